"""`nnunet_nacl doctor`: checks whether nnU-Net finds the trainers of this package, and says what to
do if not.

No check may fail because what it checks is broken: a broken installation is what they are for.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import platform
import sys
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import nnunet_nacl
from nnunet_nacl.cli.options import exit_status
from nnunet_nacl.registration import ENVIRONMENT_VARIABLE, TRAINERS_PACKAGE, bridge_folder
from nnunet_nacl.registration.class_files import find_users_trainers
from nnunet_nacl.registration.lookup import RegisteredTrainer, registered_trainers

HELP = "check that nnU-Net finds the trainers here, and say how to fix what is broken"

_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
_PRETRAINED = "nnUNetv2_train_pretrained"  # of nnU-Net's main branch
_VARIANT = "nnUNetTrainerNACL_lambda0p2"  # made from its name
_NO_GPU = "no GPU: train and predict with -device cpu"
_FORMER_MODULE = "nnunet_nacl.training"  # now nnunet_nacl.registration
OK = "OK"
WARN = "WARN"
FAIL = "FAIL"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = (
        "Checks this environment: nnU-Net, whether it finds each trainer, its three folders,"
        " PyTorch and the GPU.\nFAIL is broken, and the exit status is 1; WARN is worth"
        " knowing.\n\nA startup file in site-packages, nnunet_nacl.pth, registers the trainers"
        " whenever Python starts (0.5 ms;\nSECURITY.md says what it does and how to switch it off)."
        " Where it cannot (pip install --target, PYTHONPATH,\npython -S), for example: export"
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
    with _no_garbage_collection():
        for check in _checks():
            counts[check.status] += 1
            print(f"{check.status:<6}  {check.subject:<27}  {check.found}", flush=True)
            if check.fix:
                print(f"{'':<35}  -> {check.fix}")
    print(f"\n{counts[OK]} OK, {counts[WARN]} to note, {counts[FAIL]} broken")
    return exit_status(counts[FAIL])


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Nearly all of the time goes into nnU-Net's imports, which make millions of objects, and all
    of them stay: to look for garbage among them, at the end of the process once more, takes as long
    as half of the imports."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


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
        for name, path in find_users_trainers().items():
            yield check_users_trainer(name, path, find_trainer)
    for variable in _FOLDERS:
        yield _check_folder(variable)
    yield _check_torch()


def _check_registration() -> Check:
    """Whether nnU-Net will search the bridge folder."""
    folders = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if bridge_folder() in folders.split(os.pathsep):
        return Check(OK, "registration", f"{bridge_folder()} is in {ENVIRONMENT_VARIABLE}")
    for former in _former_startup_files():
        text = f"{former} is of an earlier version, and Python complains of it at every start"
        return Check(FAIL, "registration", text, "install nnunet_nacl again, as the README says")
    ours = "$(nnunet_nacl doctor --path)"
    with_users = f"${ENVIRONMENT_VARIABLE}{os.pathsep}{ours}"
    return Check(
        FAIL,
        "registration",
        "Python has not read the startup file nnunet_nacl.pth (pip install --target, PYTHONPATH,"
        " python -S?)",
        f'export {ENVIRONMENT_VARIABLE}="{with_users if folders else ours}"',
    )


def _former_startup_files() -> list[Path]:
    """Startup files of an editable install that name a module which has another name now."""
    files = [Path(folder, "nnunet_nacl.pth") for folder in sys.path]
    return [file for file in files if file.is_file() and _FORMER_MODULE in file.read_text("utf-8")]


def _check_nnunet() -> tuple[Check, Callable[[str], type] | None]:
    """Whether nnU-Net is there and can be extended, and its own look-up of trainers if it can."""
    fix = 'pip install "nnunetv2>=2.8,<3"'
    try:
        version = metadata.version("nnunetv2")
    except Exception:  # such as metadata that are damaged: the line says what to do
        return Check(FAIL, "nnU-Net", "not installed", fix), None
    try:
        module = _import_quietly("nnunetv2.utilities.find_objects")
        find_trainer = module.recursive_find_trainer_class_by_name
        import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    except Exception as error:  # whatever a broken installation raises
        why = (
            "cannot be imported, or is older than 2.8, which finds no trainers of others"
            f" ({_in_a_line(error)})"
        )
        return Check(FAIL, "nnU-Net", f"{version} {why}", fix), None
    return Check(OK, "nnU-Net", f"{version}, can be extended"), find_trainer


def check_trainer(trainer: RegisteredTrainer, find_trainer: Callable[[str], type]) -> Check:
    """Whether nnU-Net's own look-up finds a registered trainer, as the class that Python
    imports."""
    broken = FAIL if trainer.is_ours else WARN  # others' trainers are theirs to fix
    try:
        imported_class = trainer.load()
        with _nothing_printed():
            found_class = find_trainer(trainer.name)
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


def check_users_trainer(name: str, path: Path, find_trainer: Callable[[str], type]) -> Check:
    """Whether nnU-Net's own look-up finds the class of this file in a folder of the user's, and
    whether its attributes have possible values."""
    try:
        with _nothing_printed():
            found_class = find_trainer(name)
            if hasattr(found_class, "check_attributes"):
                found_class.check_attributes()
    except (Exception, SystemExit) as error:  # it imports all that lies in the user's folders
        return Check(WARN, name, _in_a_line(error), f"correct {path}")
    # By the module's name: nnU-Net forgets the modules of such folders, and with them their files.
    package, _, _ = found_class.__module__.partition(".")
    if package in ("nnunetv2", TRAINERS_PACKAGE):
        found = f"is in {path}, but nnU-Net finds that of {package}"
        return Check(WARN, name, found, "rename one")
    return Check(OK, name, f"is in {path}, of {ENVIRONMENT_VARIABLE}")


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
    is_read_only = variable == "nnUNet_raw"
    if not os.path.exists(folder):
        return Check(
            FAIL if is_read_only else WARN,
            variable,
            f"{folder} does not exist",
            f'mkdir -p "{folder}", or correct the variable',
        )
    needed = os.R_OK | os.X_OK
    if not is_read_only:
        needed |= os.W_OK
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
    except Exception as error:  # whatever a broken installation raises
        return Check(FAIL, "PyTorch", f"cannot be imported: {error}", "pip install torch")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if names:
        devices = f"GPU: {', '.join(names)}"
    elif torch.backends.mps.is_available():
        devices = "GPU: Apple's, by -device mps"
    elif torch.version.cuda:
        devices = f"built for CUDA {torch.version.cuda}, {_NO_GPU}"
    else:
        devices = f"a build without CUDA, {_NO_GPU}"
    return Check(OK, "PyTorch", f"{torch.__version__}, {devices}")


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _import_quietly(name: str) -> ModuleType:
    with _nothing_printed():
        return import_module(name)


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """nnU-Net prints pages about unset folders when it is imported."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
