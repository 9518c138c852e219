"""`python -m nnunet_nacl`: the command line, where the `nnunet_nacl` script is not on the PATH."""

from __future__ import annotations

import sys

from nnunet_nacl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
