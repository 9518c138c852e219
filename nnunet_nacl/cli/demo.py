"""`nnunet_nacl demo`: calibration with and without NACL, on virtual brains or any Decathlon task."""

from __future__ import annotations

import argparse

HELP = "train nnU-Net's loss, CE and NACL on a small task, calibrate and compare them"

_DESCRIPTION = """\
Trains stock nnU-Net (Dice + CE), plain CE and NACL on the same data, schedule and optimiser, calibrates them, and
compares how far their confidence can be trusted. Every step is a command of nnU-Net's or of this package, shown as it
is run. It ends with what was gained in three sentences and two pages to open: the comparison, and the new scans, those
to look at first.

Without --data or --download the data are made here: virtual brains from the ICBM152 template (a template, not
patients), whose true label probabilities are known. That needs `pip install 'nnunet_nacl[demo]'`, no network, and takes
about 10 minutes on two CPU cores. Interrupted or repeated, the demo resumes; its folder can be moved.
"""

_EPILOG = """\
On the CPU, unless -c is given, the demo adds a configuration 2d_small to nnU-Net's plans: 2d with smaller batches (16
slices; virtual brains: 4) and 3/8 of the features. Trainer names without <n>epochs, <n>iters or adam get the demo's
schedule appended, so that all compare; nnUNetTrainer stands for nnU-Net's own loss under that schedule.

examples:
  nnunet_nacl demo
  nnunet_nacl demo --download Task04_Hippocampus -f 0 1
  nnunet_nacl demo --data Task09_Spleen -tr nnUNetTrainer nnUNetTrainerNACL nnUNetTrainerNACL_lambda0p2 -c 3d_fullres
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description, parser.epilog, add = _DESCRIPTION, _EPILOG, parser.add_argument
    add("-o", metavar="FOLDER", default="nnunet_nacl_demo", help="everything goes there (default: ./%(default)s)")
    source = parser.add_mutually_exclusive_group()
    data = "a task in the format of the Medical Segmentation Decathlon, in a folder named TaskNN_Name"
    source.add_argument("--data", metavar="TASK_FOLDER", help=data)
    download = "one of the Decathlon's ten tasks, such as Task04_Hippocampus, from its public mirror"
    source.add_argument("--download", metavar="TASK", help=download)
    trainers = ["nnUNetTrainer", "nnUNetTrainerCE", "nnUNetTrainerNACL"]
    add("-tr", metavar="TRAINER", nargs="+", default=trainers, help=f"default: {' '.join(trainers)}")
    add("-c", metavar="CONFIGURATION", help="nnU-Net's configuration (default: 2d on a GPU, 2d_small on the CPU)")
    folds = ["0", "1", "2", "3", "4", "all"]
    add("-f", metavar="FOLD", nargs="+", choices=folds, default=["0"], help="folds, 0 to 4, or all (default: 0)")
    add("-device", choices=("cpu", "cuda", "mps"), help="default: cuda if there is a GPU, else cpu")
    length = "by default 10 x 100 (virtual brains on the CPU), 40 x 50 (other data on the CPU), 50 x 100 (GPU)"
    add("-epochs", metavar="N", type=int, help=f"epochs; with -iters {length}")
    add("-iters", metavar="N", type=int, help="iterations per epoch")
    add("--sgd", action="store_true", help="nnU-Net's optimiser instead of the paper's Adam; it needs longer schedules")
    busy = "trainings at the same time (default: as many as keep all CPU cores busy; one on a GPU)"
    add("-np", metavar="N", type=int, help=busy)


def run(args: argparse.Namespace) -> int:
    """Runs the demo; exit status 130 if interrupted."""
    from nnunet_nacl.demo.steps import Demo

    try:
        Demo(args).run()
    except KeyboardInterrupt:
        print("\nStopped. The same command resumes.")
        return 130
    return 0
