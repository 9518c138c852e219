"""`nnunet_nacl doctor`: checks whether nnU-Net finds the trainers of this package, and says what to
do if not.

No check may fail because what it checks is broken: a broken installation is what they are for.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import sys
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from typing import Any, NamedTuple

import nnunet_nacl
from nnunet_nacl.registration import ENVIRONMENT_VARIABLE, TRAINERS_PACKAGE, bridge_folder
from nnunet_nacl.registration.lookup import RegisteredTrainer, registered_trainers

HELP = "check that nnU-Net finds the trainers here, and say how to fix what is broken"

_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
_PRETRAINED = "nnUNetv2_train_pretrained"  # of nnU-Net's main branch
_VARIANT = "nnUNetTrainerNACL_lambda0p2"  # made from its name
OK, WARN, FAIL = "OK", "WARN", "FAIL"


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = (
        "Checks this environment: nnU-Net, whether it finds each trainer, its three folders,"
        " PyTorch and the GPU.\nFAIL is broken, and the exit status is 1; WARN is worth"
        " knowing.\n\nPython registers the trainers whenever it starts. Where it cannot (pip"
        " install --target, PYTHONPATH,\npython -S), for example: export"
        ' nnUNet_extTrainer="/my/trainers:$(nnunet_nacl doctor --path)"'
    )
    parser.add_argument(
        "--path", action="store_true", help="print the folder of the trainers, and check nothing"
    )


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
    return 1 if counts[FAIL] else 0


class Check(NamedTuple):
    """One line of the table: status, what was checked, what was found, and what to do about it if
    anything."""

    status: str
    subject: str
    found: str
    fix: str = ""


def _checks() -> Iterator[Check]:
    yield Check(
        OK, "nnunet_nacl", f"{nnunet_nacl.__version__} in {os.path.dirname(nnunet_nacl.__file__)}"
    )
    yield Check(OK, "Python", f"{platform.python_version()}, {sys.executable}")
    nnunet_check, find_trainer = _check_nnunet()
    yield nnunet_check
    yield _check_registration()
    if metadata.entry_points(group="console_scripts", name=_PRETRAINED):
        yield Check(
            WARN,
            _PRETRAINED,
            f"does not read {ENVIRONMENT_VARIABLE}, so it finds no trainer of another package",
            "nnUNetv2_train ... -pretrained_weights CHECKPOINT",
        )
    if find_trainer is not None:
        with_tokens = RegisteredTrainer(_VARIANT, f"{TRAINERS_PACKAGE}:{_VARIANT}", "nnunet_nacl")
        for trainer in [*registered_trainers(), with_tokens]:
            yield check_trainer(trainer, find_trainer)
    for variable in _FOLDERS:
        yield _check_folder(variable)
    yield _check_torch()


def _check_registration() -> Check:
    """Whether nnU-Net will search the bridge folder."""
    folders = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if bridge_folder() in folders.split(os.pathsep):
        return Check(OK, "registration", f"{bridge_folder()} is in {ENVIRONMENT_VARIABLE}")
    path = "$(nnunet_nacl doctor --path)"
    if folders:  # those of the user stay
        path = f"${ENVIRONMENT_VARIABLE}{os.pathsep}{path}"
    return Check(
        FAIL,
        "registration",
        "Python has not read the startup file nnunet_nacl.pth (pip install --target, PYTHONPATH,"
        " python -S?)",
        f'export {ENVIRONMENT_VARIABLE}="{path}"',
    )


def _check_nnunet() -> tuple[Check, Callable[[str], type] | None]:
    """Whether nnU-Net is there and can be extended, and its own look-up of trainers if it can."""
    fix, version = 'pip install "nnunetv2>=2.8,<3"', None
    try:
        version = metadata.version("nnunetv2")
        find = _quietly(
            import_module, "nnunetv2.utilities.find_objects"
        ).recursive_find_trainer_class_by_name
        import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    except Exception as error:
        why = (
            "cannot be imported, or is older than 2.8, which finds no trainers of others"
            f" ({_in_a_line(error)})"
        )
        return Check(FAIL, "nnU-Net", f"{version} {why}" if version else "not installed", fix), None
    return Check(OK, "nnU-Net", f"{version}, can be extended"), find


def check_trainer(trainer: RegisteredTrainer, find_trainer: Callable[[str], type]) -> Check:
    """Whether nnU-Net's own look-up finds a registered trainer, as the class that Python
    imports."""
    broken = FAIL if trainer.is_ours else WARN  # others' trainers are theirs to fix
    try:
        imported_class = trainer.load()
        found_class = _quietly(find_trainer, trainer.name)
    except (Exception, SystemExit) as error:
        # it imports all that lies in the user's folders, scripts as well
        return Check(
            broken,
            trainer.name,
            _in_a_line(error),
            f"see registration, or reinstall {trainer.package}",
        )
    if found_class is not imported_class:
        return Check(
            broken,
            trainer.name,
            f"nnU-Net finds another class of that name, in {_file_of(found_class)}",
            f"rename one, or take its folder out of {ENVIRONMENT_VARIABLE}",
        )
    return Check(OK, trainer.name, f"is in {_file_of(found_class)}")


def _file_of(trainer: type) -> str:
    """The file that holds a class; of one that is made from its name, that of the class it
    changes."""
    for parent in trainer.__mro__:
        module = sys.modules.get(parent.__module__)
        path = getattr(module, "__file__", None)
        if path and not path.endswith("__init__.py"):
            return path
    return f"module {trainer.__module__}"


def _check_folder(variable: str) -> Check:
    """One of nnU-Net's three folders: not all commands need it, and nnU-Net makes all but the first
    itself."""
    folder = os.environ.get(variable)
    if not folder:
        return Check(
            WARN,
            variable,
            "not set; not all commands need it",
            f'export {variable}="/path/to/{variable}"',
        )
    if not os.path.exists(folder):
        status = FAIL if variable == "nnUNet_raw" else WARN
        return Check(
            status,
            variable,
            f"{folder} does not exist",
            f'mkdir -p "{folder}", or correct the variable',
        )
    needed = os.R_OK | os.X_OK | (0 if variable == "nnUNet_raw" else os.W_OK)
    if not os.path.isdir(folder) or not os.access(folder, needed):
        return Check(
            FAIL,
            variable,
            f"{folder} is no folder, or lacks permissions",
            "correct folder or variable",
        )
    return Check(OK, variable, folder)


def _check_torch() -> Check:
    """PyTorch and the devices that it can train on; having no GPU is no fault."""
    try:
        import torch
    except Exception as error:
        return Check(FAIL, "PyTorch", f"cannot be imported: {error}", "pip install torch")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    gpu = ", ".join(names) or (
        "Apple's, by -device mps" if torch.backends.mps.is_available() else ""
    )
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
    without = f"{built}, no GPU: train and predict with -device cpu"
    return Check(OK, "PyTorch", f"{torch.__version__}, {f'GPU: {gpu}' if gpu else without}")


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _quietly(call: Callable[[str], Any], argument: str) -> Any:
    """nnU-Net prints pages about unset folders when it is imported."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return call(argument)
