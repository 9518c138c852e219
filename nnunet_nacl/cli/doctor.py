"""`nnunet_nacl doctor`: one table that tells whether nnU-Net can use the trainers here, and the fix if not."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import nnunet_nacl
from nnunet_nacl.registration import bridge_folder
from nnunet_nacl.registration.health import FAIL, OK, WARN, Check, check_nnunet, check_registration, check_trainers

HELP = "check that nnU-Net finds the trainers here, and say how to fix what is broken"

_NEEDED_FOR = {
    "nnUNet_raw": "for planning and preprocessing",
    "nnUNet_preprocessed": "for preprocessing and training",
    "nnUNet_results": "for training and prediction",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = (
        "Check this environment: nnU-Net and whether it can be extended, the registration of the trainers, every\n"
        "trainer by nnU-Net's own look-up, nnU-Net's three folders, PyTorch and the GPU.\n\n"
        "FAIL is broken: exit status 1. WARN is worth knowing, but not everybody's problem: a folder of nnU-Net's\n"
        "that is not set, say, which some commands do without. It leaves the exit status 0, unless --strict.\n\n"
        "After `pip install` nnU-Net finds the trainers by itself: Python appends their folder to the environment\n"
        "variable nnUNet_extTrainer whenever it starts. Where it cannot (pip install --target, PYTHONPATH,\n"
        "python -S), set the variable to what --path prints."
    )
    parser.epilog = (
        "examples:\n  nnunet_nacl doctor --strict    # for a job that is about to train\n"
        '  export nnUNet_extTrainer="/my/trainers:$(nnunet_nacl doctor --path)"'
    )
    parser.add_argument("--strict", action="store_true", help="exit with status 1 on a WARN, too")
    parser.add_argument("--path", action="store_true", help="print the folder of the trainers, and check nothing")


def run(args: argparse.Namespace) -> int:
    """Prints the table as the checks proceed; 1 if something is broken."""
    if args.path:
        print(bridge_folder())
        return 0
    counts = {OK: 0, WARN: 0, FAIL: 0}
    _print_row("status", "check", "found")
    for check in _checks():
        counts[check.status] += 1
        _print_row(check.status, check.subject, check.found)
        if check.fix:
            _print_row("", "", f"-> {check.fix}")
    print(f"\n{counts[OK]} OK, {counts[WARN]} to note, {counts[FAIL]} broken")
    return 1 if counts[FAIL] or (args.strict and counts[WARN]) else 0


def _print_row(status: str, subject: str, found: str) -> None:
    print(f"{status:<6}  {subject:<27}  {found}", flush=True)


def _checks() -> Iterator[Check]:
    yield Check(OK, "nnunet_nacl", f"{nnunet_nacl.__version__} in {os.path.dirname(nnunet_nacl.__file__)}")
    yield Check(OK, "Python", f"{platform.python_version()}, {sys.executable}")
    nnunet, find = check_nnunet()
    yield nnunet
    yield from check_registration()
    if find is None:
        yield Check(WARN, "trainers", "not checked, since nnU-Net cannot look for them")
    else:
        yield from check_trainers(find)
    for variable in _NEEDED_FOR:
        yield check_folder(variable)
    yield check_torch()


def check_folder(variable: str) -> Check:
    """One of nnU-Net's three folders.

    Unset is a WARN, since it is a setting of the shell, not of the installation, and which folders are needed depends
    on the command. A folder that is set but cannot be used is a FAIL.
    """
    folder = os.environ.get(variable)
    if not folder:
        found = f"not set, needed {_NEEDED_FOR[variable]}"
        return Check(WARN, variable, found, f'export {variable}="/path/to/{variable}"')
    make = f'mkdir -p "{folder}"'
    if not os.path.exists(folder):
        if variable == "nnUNet_raw":  # the one that nnU-Net reads before it writes
            return Check(FAIL, variable, f"{folder} does not exist", f"{make}, or correct the variable")
        parent = next(place for place in Path(folder).absolute().parents if place.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            found = f"{folder} does not exist, and cannot be made: no right to write to {parent}"
            return Check(FAIL, variable, found, "correct the variable, or get that right")
        return Check(WARN, variable, f"{folder} does not exist yet, nnU-Net will make it", make)
    if not os.path.isdir(folder):
        return Check(FAIL, variable, f"{folder} is not a folder", "correct the variable")
    if not os.access(folder, os.R_OK | os.X_OK):
        return Check(FAIL, variable, f"{folder} cannot be read", f'chmod u+rx "{folder}", or correct the variable')
    if os.access(folder, os.W_OK):
        return Check(OK, variable, f"{folder}, writable")
    if variable == "nnUNet_raw":
        return Check(OK, variable, f"{folder}, read-only, which is enough to read from")
    status = FAIL if variable == "nnUNet_results" else WARN
    return Check(status, variable, f"{folder} is not writable", f'chmod u+w "{folder}", or correct the variable')


def check_torch() -> Check:
    """PyTorch and the devices that it can train on; having no GPU is no fault."""
    try:
        import torch
    except Exception as error:
        return Check(FAIL, "PyTorch", f"cannot be imported: {type(error).__name__}: {error}", "pip install torch")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Check(OK, "PyTorch", f"{torch.__version__}, GPU: {names}")
    if torch.backends.mps.is_available():
        return Check(OK, "PyTorch", f"{torch.__version__}, GPU: Apple's, by -device mps")
    if torch.version.cuda:
        found = f"{torch.__version__}, built for CUDA {torch.version.cuda}, but finds no GPU"
    else:
        found = f"{torch.__version__}, a build without CUDA"
    return Check(OK, "PyTorch", f"{found}: train and predict with -device cpu")
