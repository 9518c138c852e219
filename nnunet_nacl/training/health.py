"""Checks whether nnU-Net finds the trainers, for `nnunet_nacl doctor`.

Nothing here may fail because what it checks is broken: a broken installation is what these checks are for.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any, NamedTuple

from nnunet_nacl.training import ENVIRONMENT_VARIABLE, bridge_folder
from nnunet_nacl.training.lookup import RegisteredTrainer

OK, WARN, FAIL = "OK", "WARN", "FAIL"


class Check(NamedTuple):
    """One line of the doctor's table.

    Attributes:
        status: `OK`, `WARN` (works, or is not needed for everything) or `FAIL` (broken).
        subject: What was checked.
        found: What was found.
        fix: What to do about it; empty if there is nothing to do.
    """

    status: str
    subject: str
    found: str
    fix: str = ""


def check_nnunet() -> tuple[Check, Callable[[str], type] | None]:
    """Whether nnU-Net is there and can be extended, and its own look-up of trainers if it can."""
    fix, version = 'pip install "nnunetv2>=2.8,<3"', None
    try:
        version = metadata.version("nnunetv2")
        find = _quietly(import_module, "nnunetv2.utilities.find_objects").recursive_find_trainer_class_by_name
        import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    except Exception as error:
        why = f"cannot be imported, or is older than 2.8, which finds no trainers of others ({_in_a_line(error)})"
        return Check(FAIL, "nnU-Net", f"{version} {why}" if version else "not installed", fix), None
    return Check(OK, "nnU-Net", f"{version}, can be extended"), find


def check_registration() -> Check:
    """Whether the bridge folder is in nnU-Net's environment variable."""
    if bridge_folder() in os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep):
        return Check(OK, "registration", f"{bridge_folder()} is in {ENVIRONMENT_VARIABLE}")
    why = "Python has not read the startup file nnunet_nacl.pth (pip install --target, PYTHONPATH, python -S?)"
    return Check(FAIL, "registration", why, f'export {ENVIRONMENT_VARIABLE}="$(nnunet_nacl doctor --path)"')


def check_trainer(trainer: RegisteredTrainer, find: Callable[[str], type]) -> Check:
    """Whether nnU-Net's own look-up finds a registered trainer, as the class that Python imports."""
    broken = FAIL if trainer.is_ours else WARN  # others' trainers are theirs to fix
    try:
        imported, found = trainer.load(), _quietly(find, trainer.name)
    except (Exception, SystemExit) as error:  # it imports all that lies in the user's folders, scripts as well
        return Check(broken, trainer.name, _in_a_line(error), f"see registration, or reinstall {trainer.package}")
    if found is not imported:
        source = getattr(sys.modules.get(found.__module__), "__file__", None) or f"module {found.__module__}"
        what = f"nnU-Net finds another class of that name, in {source}"
        return Check(broken, trainer.name, what, f"rename one, or take its folder out of {ENVIRONMENT_VARIABLE}")
    return Check(OK, trainer.name, f"is {found.__module__}.{found.__qualname__}")


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _quietly(call: Callable[[str], Any], argument: str) -> Any:
    """nnU-Net prints pages about unset folders when it is imported."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return call(argument)
