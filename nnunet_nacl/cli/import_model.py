"""`nnunet_nacl import`: installs a model's zip, after a look at what it holds."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from nnunet_nacl.errors import UserError

HELP = "install the zip of an exported model into nnUNet_results, without overwriting what is there"

_DESCRIPTION = """\
Does what nnUNetv2_install_pretrained_model_from_zip does, but refuses a zip that is damaged or incomplete, names places
outside nnUNet_results, or would replace a model that is there already. One that may be replaced stays until the new one
is whole.

A model can hold code, in its checkpoints and by what plans.json names. The commands of nnunet_nacl refuse it (but with
--trust_checkpoint), nnU-Net's own run it: install models from people that you trust.
"""

_EPILOG = """\
example:
  nnunet_nacl import -i hippocampus.zip
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.add_argument("-i", metavar="FILE", required=True, help="the zip")
    parser.add_argument("--overwrite", action="store_true", help="replace models that are there already")


def run(args: argparse.Namespace) -> int:
    """Installs the models and names them."""
    from nnunet_nacl.interruption import termination_as_interrupt
    from nnunet_nacl.io.checkpoint_files import CAN_HOLD_CODE
    from nnunet_nacl.models.installation import install_model

    results = os.environ.get("nnUNet_results")
    if not results:
        raise UserError("the environment variable nnUNet_results is not set; nnU-Net's documentation says what it is.")
    print(f"note: {CAN_HOLD_CODE}.")
    with termination_as_interrupt():
        models = install_model(Path(args.i), Path(results), overwrite=args.overwrite)
    for model in models:
        print(f"installed: {Path(results) / model}")
    return 0
