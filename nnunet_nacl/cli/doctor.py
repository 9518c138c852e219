"""`nnunet_nacl doctor`: one table that tells whether nnU-Net can use the trainers here, and the fix if not."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator

import nnunet_nacl
from nnunet_nacl.training import TRAINERS_PACKAGE, bridge_folder
from nnunet_nacl.training.health import FAIL, OK, WARN, Check, check_nnunet, check_registration, check_trainer
from nnunet_nacl.training.lookup import RegisteredTrainer, registered_trainers

HELP = "check that nnU-Net finds the trainers here, and say how to fix what is broken"

_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
_VARIANT = "nnUNetTrainerNACL_lambda0p2"  # made from its name


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = (
        "Check this environment: nnU-Net, the registration of the trainers, each of them by nnU-Net's own look-up,\n"
        "nnU-Net's three folders, PyTorch and the GPU. FAIL is broken: exit status 1. WARN is worth knowing.\n\n"
        "Python registers the trainers whenever it starts. Where it cannot (pip install --target, PYTHONPATH,\n"
        'python -S), for example: export nnUNet_extTrainer="/my/trainers:$(nnunet_nacl doctor --path)"'
    )
    parser.add_argument("--strict", action="store_true", help="exit with status 1 on a WARN, too")
    parser.add_argument("--path", action="store_true", help="print the folder of the trainers, and check nothing")


def run(args: argparse.Namespace) -> int:
    """Prints the table as the checks proceed; 1 if something is broken."""
    if args.path:
        print(bridge_folder())
        return 0
    counts = {OK: 0, WARN: 0, FAIL: 0}
    for check in _checks():
        counts[check.status] += 1
        print(f"{check.status:<6}  {check.subject:<27}  {check.found}", flush=True)
        if check.fix:
            print(f"{'':<35}  -> {check.fix}")
    print(f"\n{counts[OK]} OK, {counts[WARN]} to note, {counts[FAIL]} broken")
    return 1 if counts[FAIL] or (args.strict and counts[WARN]) else 0


def _checks() -> Iterator[Check]:
    yield Check(OK, "nnunet_nacl", f"{nnunet_nacl.__version__} in {os.path.dirname(nnunet_nacl.__file__)}")
    yield Check(OK, "Python", f"{platform.python_version()}, {sys.executable}")
    nnunet, find = check_nnunet()
    yield nnunet
    yield check_registration()
    made = RegisteredTrainer(_VARIANT, f"{TRAINERS_PACKAGE}:{_VARIANT}", "nnunet_nacl")
    yield from (check_trainer(trainer, find) for trainer in [*registered_trainers(), made] if find)
    yield from (check_folder(variable) for variable in _FOLDERS)
    yield check_torch()


def check_folder(variable: str) -> Check:
    """One of nnU-Net's three folders: not all commands need it, and nnU-Net makes all but the first itself."""
    folder = os.environ.get(variable)
    if not folder:
        return Check(WARN, variable, "not set; not all commands need it", f'export {variable}="/path/to/{variable}"')
    if not os.path.exists(folder):
        status = FAIL if variable == "nnUNet_raw" else WARN
        return Check(status, variable, f"{folder} does not exist", f'mkdir -p "{folder}", or correct the variable')
    needed = os.R_OK | os.X_OK | (0 if variable == "nnUNet_raw" else os.W_OK)
    if not os.path.isdir(folder) or not os.access(folder, needed):
        return Check(FAIL, variable, f"{folder} is no folder, or lacks permissions", "correct folder or variable")
    return Check(OK, variable, folder)


def check_torch() -> Check:
    """PyTorch and the devices that it can train on; having no GPU is no fault."""
    try:
        import torch
    except Exception as error:
        return Check(FAIL, "PyTorch", f"cannot be imported: {error}", "pip install torch")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    gpu = ", ".join(names) or ("Apple's, by -device mps" if torch.backends.mps.is_available() else "")
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
    without = f"{built}, no GPU: train and predict with -device cpu"
    return Check(OK, "PyTorch", f"{torch.__version__}, {f'GPU: {gpu}' if gpu else without}")
