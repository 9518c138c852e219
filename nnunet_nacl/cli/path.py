"""`nnunet_nacl path`: the folder for nnU-Net's environment variable, for use by hand."""

from __future__ import annotations

import argparse

from nnunet_nacl.registration import bridge_folder

HELP = "print the folder in which nnU-Net finds the trainers"


def configure(parser: argparse.ArgumentParser) -> None:
    """It has no arguments."""
    parser.description = (
        "Print the folder that nnU-Net has to search for the trainers of all installed packages.\n\n"
        "After `pip install` you do not need it: Python appends the folder to the environment variable\n"
        "nnUNet_extTrainer whenever it starts. Where it cannot (pip install --target, PYTHONPATH, python -S),\n"
        "set the variable yourself."
    )
    parser.epilog = (
        'example:\n  export nnUNet_extTrainer="$(nnunet_nacl path)"\n'
        "beside folders of your own:\n"
        '  export nnUNet_extTrainer="/my/trainers:$(nnunet_nacl path)"'
    )


def run(args: argparse.Namespace) -> int:
    """Prints the folder, nothing else."""
    print(bridge_folder())
    return 0
