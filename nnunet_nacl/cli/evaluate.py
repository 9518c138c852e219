"""`nnunet_nacl evaluate`: measures segmentation and calibration of predictions against the ground truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_nacl.cli.options import MODEL, NETWORK, add_shared
from nnunet_nacl.errors import UserError

HELP = "measure segmentation and calibration of a validated model or of a folder of predictions"

_DESCRIPTION = """\
Measures Dice, HD95, ASSD, ECE, CECE, ACE, MCE, NLL and Brier score per case, structure and mask, and writes
calibration.json: of a trained model's validation cases (-d -c), or of predictions that have their probabilities
(-i, with their ground truth -gt).
"""

_EPILOG = """\
examples:
  nnunet_nacl evaluate -d 4 -c 3d_fullres --predict
  nnunet_nacl evaluate -i predictions -gt labelsTs -map calibration_map.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.usage = "%(prog)s (-d DATASET -c CONFIGURATION | -i PREDICTIONS -gt LABELS) [options]"
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("-i", metavar="PREDICTIONS", type=Path, help="folder of predictions with their probabilities")
    add("-gt", metavar="LABELS", type=Path, help="folder with the ground truth of -i")
    add_shared(parser, "-djfile", "-pfile", *MODEL)
    add("--predict", action="store_true", help="predict the validation cases of -d first")
    add("-chk", metavar="NAME", default="checkpoint_final.pth", help="for --predict (default: %(default)s)")
    add_shared(parser, *NETWORK)
    add("-o", metavar="FILE", help="output file, must end with .json")
    add_shared(parser, "-np", "--quiet")
    add("-bins", metavar="N", type=int, default=15, help="confidence bins (default: %(default)s)")
    masks = {"dilated": "radius of the masks `dilated` and `near`", "boundary": "reach of `boundary`"}
    for mask, explained in masks.items():
        add(f"-{mask}", metavar="MM", type=float, help=f"{explained} (default: 2 mm, or a wider voxel)")
    add_shared(parser, "-bad", "-structures")
    add("-map", metavar="FILE", help="measure -i through this map, and how far its predicted Dice holds")
    add("--csv", action="store_true", help="also write every number to a .csv file beside the output")
    add("--verbose", action="store_true", help="print every structure, not the ten worst only")
    add_shared(parser, "--trust_checkpoint")
    add("--chill", action="store_true", help="do not complain about cases that have no prediction")


def run(args: argparse.Namespace) -> int:
    """Evaluates; exit status 1 if something could not be evaluated."""
    if args.map and args.d is not None:
        raise UserError(
            "-map is for a folder of predictions (-i); for a model's own validation cases `nnunet_nacl compare -tr "
            "TRAINER+calibrated` predicts Dice."
        )
    if args.predict and args.d is None:
        raise UserError("--predict needs a model: -d DATASET -c CONFIGURATION.")
    if (args.d is None) == (args.i is None):
        raise UserError("name a model (-d DATASET -c CONFIGURATION) or a folder of predictions (-i PREDICTIONS).")
    if (args.i is None) != (args.gt is None):
        raise UserError("-i PREDICTIONS and -gt LABELS go together: the folder with their ground truth is needed.")
    from nnunet_nacl.cli.evaluation import evaluate

    return evaluate(args)
