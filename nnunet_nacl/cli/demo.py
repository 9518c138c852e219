"""`nnunet_nacl demo`: calibration with and without NACL, on virtual brains or any Decathlon task."""

from __future__ import annotations

import argparse

HELP = "train nnU-Net's loss, CE and NACL on a small task, calibrate and compare them"

_DESCRIPTION = """\
Trains stock nnU-Net (Dice + CE), plain CE and NACL on the same data, schedule and optimiser, and compares how far their
confidence can be trusted, as trained and calibrated afterwards. Every step is a command of nnU-Net's or of this
package, shown as it is run; the last are `nnunet_nacl calibrate`, `compare` and, where there are few new scans,
`predict`. It ends with what was gained in three sentences and two pages to open: the comparison, and the new scans,
those to look at first.

Without --data or --download the data are made here: virtual brains from the ICBM152 template (a template, not
patients), whose true label probabilities are known. That needs `pip install 'nnunet_nacl[demo]'`, no network, and takes
about 10 minutes on two CPU cores. Interrupted or repeated, the demo resumes; its folder can be moved.
"""

_EPILOG = """\
On the CPU, unless -c is given, the demo adds a configuration 2d_small to nnU-Net's plans: 2d with smaller batches (16
slices; virtual brains: 4) and 3/8 of the features. On a GPU nnU-Net's 2d is used as planned.

Trainer names without <n>epochs, <n>iters or adam get the demo's schedule appended, so that all compare; nnUNetTrainer
stands for nnU-Net's own loss under that schedule. Names that have one of these tokens are run as they are.

examples:
  nnunet_nacl demo
  nnunet_nacl demo --download Task04_Hippocampus -f 0 1
  nnunet_nacl demo --data Task09_Spleen -tr nnUNetTrainer nnUNetTrainerNACL nnUNetTrainerNACL_lambda0p2 -c 3d_fullres
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    from nnunet_nacl.demo.options import DEFAULT_FOLDER, DEFAULT_TRAINERS, DEVICES, SCHEDULES

    virtual, cpu, gpu = (
        f"{epochs} x {iterations}"
        for epochs, iterations in (SCHEDULES[name] for name in ("virtual brains", "cpu", "gpu"))
    )
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument  # dest: names of `nnunet_nacl.demo.options.DemoSettings`
    where = "everything goes there, nnU-Net's three folders too (default: ./%(default)s)"
    add("-o", dest="folder", metavar="FOLDER", default=DEFAULT_FOLDER, help=where)
    data = "a task in the format of the Medical Segmentation Decathlon, in a folder named TaskNN_Name"
    add("--data", metavar="TASK_FOLDER", help=data)
    download = "one of the Decathlon's ten tasks, such as Task04_Hippocampus, from its public mirror"
    add("--download", metavar="TASK", help=download)
    names = f"trainers to compare (default: {' '.join(DEFAULT_TRAINERS)})"
    add("-tr", dest="trainers", metavar="TRAINER", nargs="+", default=DEFAULT_TRAINERS, help=names)
    network = "nnU-Net's configuration (default: 2d on a GPU, 2d_small on the CPU, see below)"
    add("-c", dest="configuration", metavar="CONFIGURATION", help=network)
    add("-f", dest="folds", metavar="FOLD", nargs="+", default=["0"], help="folds, 0 to 4, or all (default: 0)")
    add("-device", choices=DEVICES, help="default: cuda if there is a GPU, else cpu")
    length = f"{virtual} (virtual brains on the CPU), {cpu} (other data on the CPU), {gpu} (GPU)"
    add("-epochs", metavar="N", type=int, help=f"epochs; with -iters by default {length}")
    add("-iters", dest="iterations", metavar="N", type=int, help="iterations per epoch")
    optimiser = "nnU-Net's own optimiser instead of the paper's Adam; it needs longer schedules"
    add("--sgd", dest="adam", action="store_false", help=optimiser)
    busy = "trainings at the same time (default: as many as keep all CPU cores busy; one on a GPU)"
    add("-np", dest="parallel", metavar="N", type=int, help=busy)


def run(args: argparse.Namespace) -> int:
    """Runs the demo; exit status 130 if interrupted."""
    from nnunet_nacl.demo.options import DemoSettings
    from nnunet_nacl.demo.steps import run_demo

    settings = DemoSettings(
        **{name: value for name, value in vars(args).items() if name not in ("subcommand", "run", "argv")}
    )
    try:
        run_demo(settings)
    except KeyboardInterrupt:
        print("\nStopped. The same command resumes.")
        return 130
    return 0
