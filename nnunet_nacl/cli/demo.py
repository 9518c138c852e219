"""`nnunet_nacl demo`: calibration with and without NACL, on virtual brains or any Decathlon task."""

from __future__ import annotations

import argparse

HELP = "train stock nnU-Net, CE and NACL on a small task and compare their calibration"

_DESCRIPTION = """\
Trains stock nnU-Net (Dice + CE), plain CE and NACL on the same data, schedule and optimiser, and compares how far their
confidence can be trusted. Every step is one of nnU-Net's own commands, shown as it is run.

Without --data or --download the data are made here: virtual brains from the ICBM152 template (a template, not
patients), whose true label probabilities are known. That needs `pip install 'nnunet_nacl[demo]'`, no network, and takes
less than 10 minutes on two CPU cores. Interrupted or repeated, the demo goes on where it stopped.
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
    from nnunet_nacl.demo.names import DEFAULT_TRAINERS
    from nnunet_nacl.demo.settings import DEFAULT_FOLDER, DEVICES, SCHEDULES

    virtual, cpu, gpu = (
        f"{epochs} x {iterations}"
        for epochs, iterations in (SCHEDULES[name] for name in ("virtual brains", "cpu", "gpu"))
    )
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "-o",
        metavar="FOLDER",
        default=DEFAULT_FOLDER,
        help="everything goes there, nnU-Net's three folders too (default: ./%(default)s)",
    )
    parser.add_argument(
        "--data",
        metavar="TASK_FOLDER",
        help="a task in the format of the Medical Segmentation Decathlon, in a folder named TaskNN_Name",
    )
    parser.add_argument(
        "--download",
        metavar="TASK",
        help="one of the Decathlon's ten tasks, such as Task04_Hippocampus, from its public mirror",
    )
    parser.add_argument(
        "-tr",
        metavar="TRAINER",
        nargs="+",
        default=list(DEFAULT_TRAINERS),
        help=f"trainers to compare (default: {' '.join(DEFAULT_TRAINERS)})",
    )
    parser.add_argument(
        "-c",
        metavar="CONFIGURATION",
        help="nnU-Net's configuration (default: 2d on a GPU, 2d_small on the CPU, see below)",
    )
    parser.add_argument("-f", metavar="FOLD", nargs="+", default=["0"], help="folds, 0 to 4 (default: 0)")
    parser.add_argument("-device", choices=DEVICES, help="default: cuda if there is a GPU, else cpu")
    parser.add_argument(
        "-epochs",
        metavar="N",
        type=int,
        help="epochs; with -iters by default "
        f"{virtual} (virtual brains on the CPU), {cpu} (other data on the CPU), {gpu} (GPU)",
    )
    parser.add_argument("-iters", metavar="N", type=int, help="iterations per epoch")
    parser.add_argument(
        "--sgd",
        action="store_true",
        help="nnU-Net's own optimiser instead of the paper's Adam; it needs longer schedules",
    )
    parser.add_argument(
        "-np",
        metavar="N",
        type=int,
        help="trainings at the same time (default: as many as keep all CPU cores busy; one on a GPU)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the demo; exit status 130 if interrupted."""
    from nnunet_nacl.demo.run import run_demo
    from nnunet_nacl.demo.settings import resolve

    settings = resolve(
        folder=args.o,
        data=args.data,
        download=args.download,
        trainers=tuple(args.tr),
        configuration=args.c,
        folds=tuple(args.f),
        device=args.device,
        epochs=args.epochs,
        iterations=args.iters,
        adam=not args.sgd,
        parallel=args.np,
    )
    try:
        run_demo(settings)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.")
        return 130
    return 0
