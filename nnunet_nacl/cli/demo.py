"""`nnunet_nacl demo`: trains, calibrates and compares models on virtual brains or on a task of the
Decathlon."""

from __future__ import annotations

import argparse

from nnunet_nacl.cli.options import fill_paragraphs

HELP = (
    "see it work: train two small networks, calibrate them, and list the new scans to look at first"
)

_DESCRIPTION = """\
Trains nnU-Net's loss (Dice + CE) and NACL on the same data, calibrates both, compares how far
their confidence can be trusted, predicts new scans, and learns where to cut networks of a loss
without a Dice term. Every step is a command of nnU-Net's or of this package, and commands.sh lists
them. It ends with two pages to open: the list of new scans, those to look at first on top, and
the comparison.

Without --data the data are made here: virtual brains from the ICBM152 template (a template, not
patients). Half of the scans that are not trained on are noisy, and the list has to find them.
That needs `pip install 'nnunet_nacl[demo]'`, no network, and takes at most 10 minutes on two CPU
cores. Interrupted or repeated, the demo goes on; its folder can be moved.
"""

_EPILOG = """\
On the CPU, unless -c is given, the demo adds a configuration 2d_small to nnU-Net's plans: 2d with
smaller batches (16 slices; virtual brains: 4) and 3/8 of the features. Trainings are short: 10
epochs of 100 iterations (virtual brains on the CPU), 40 of 50 (other data on the CPU) or 50 of
100 (GPU) by Adam, unless -tr says otherwise.

examples:
  nnunet_nacl demo
  nnunet_nacl demo --data Task09_Spleen -tr nnUNetTrainerDiceCE_50epochs \
nnUNetTrainerNACL_50epochs -c 3d_fullres -f 0 1
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = fill_paragraphs(_DESCRIPTION)
    parser.epilog = fill_paragraphs(_EPILOG)
    add = parser.add_argument
    add(
        "-o",
        metavar="FOLDER",
        default="nnunet_nacl_demo",
        help="everything goes there (default: ./%(default)s)",
    )
    data = (
        "a task in the format of the Medical Segmentation Decathlon, in a folder named TaskNN_Name"
    )
    add("--data", metavar="TASK_FOLDER", help=data)
    add(
        "-tr",
        metavar="TRAINER",
        nargs="+",
        help="trainers, schedule included (default: the two above)",
    )
    add(
        "-c",
        metavar="CONFIGURATION",
        help="nnU-Net's configuration (default: 2d on a GPU, 2d_small on the CPU)",
    )
    folds = ["0", "1", "2", "3", "4", "all"]
    add(
        "-f",
        metavar="FOLD",
        nargs="+",
        choices=folds,
        default=["0"],
        help="folds, 0 to 4, or all (default: 0)",
    )
    add("-device", choices=("cpu", "cuda", "mps"), help="default: cuda if there is a GPU, else cpu")


def run(args: argparse.Namespace) -> int:
    """Runs the demo; exit status 130 if interrupted."""
    from nnunet_nacl.demo.plan import plan_demo
    from nnunet_nacl.demo.steps import Demo

    plan = plan_demo(
        args.o,
        data=args.data,
        trainers=args.tr,
        configuration=args.c,
        folds=args.f,
        device=args.device,
    )
    try:
        Demo(plan).run()
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on.")
        return 130
    return 0
