"""`python -m nnunet_nacl_paper` is the command."""

import sys

from nnunet_nacl_paper.main import main

sys.exit(main())
