"""Checks whether nnU-Net finds the trainers, for `nnunet_nacl doctor`.

Nothing here may fail because what it checks is broken: a broken installation is what these checks are for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module, metadata

from nnunet_nacl.errors import UserError
from nnunet_nacl.methods import PREFIX
from nnunet_nacl.registration import ENVIRONMENT_VARIABLE, TRAINERS_PACKAGE, bridge_folder
from nnunet_nacl.registration.grammar import parse
from nnunet_nacl.registration.lookup import RegisteredTrainer, registered_trainers, suggest

OK, WARN, FAIL = "OK", "WARN", "FAIL"

FindTrainer = Callable[[str], type]

_INSTALL_NNUNET = 'pip install "nnunetv2>=2.8,<3"'
_REINSTALL = "pip install --force-reinstall --no-deps nnunet_nacl"
_EXPORT = f'export {ENVIRONMENT_VARIABLE}="$(nnunet_nacl doctor --path)"'
_EXAMPLE_VARIANT = "nnUNetTrainerNACL_lambda0p2"


@dataclass(frozen=True)
class Check:
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


def check_nnunet() -> tuple[Check, FindTrainer | None]:
    """Whether nnU-Net is there and can be extended.

    Returns:
        The result, and nnU-Net's own look-up of trainers if it can be used.
    """
    subject = "nnU-Net"
    spec = _find_spec("nnunetv2")
    if spec is None:
        return Check(FAIL, subject, "not installed", _INSTALL_NNUNET), None
    place = f"in {os.path.dirname(spec.origin)}" if spec.origin else ""
    described = f"{_version('nnunetv2')} {place}".strip()
    try:
        with _quiet():
            find = import_module("nnunetv2.utilities.find_objects").recursive_find_trainer_class_by_name
            import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "nnunetv2.utilities.find_objects":
            too_old = "too old: it looks for trainers in its own folder only (from 2.8.0 on elsewhere, too)"
            return Check(FAIL, subject, f"{described}, {too_old}", _INSTALL_NNUNET), None
        fix = f"install what it misses, or {_INSTALL_NNUNET.replace('install', 'install --force-reinstall')}"
        return Check(FAIL, subject, f"{described}, cannot be imported: {_describe(error)}", fix), None
    if _version("nnunetv2").split(".")[0] not in ("2", "unknown"):
        return Check(WARN, subject, f"{described}, newer than this package knows", _INSTALL_NNUNET), find
    return Check(OK, subject, f"{described}, can be extended"), find


def check_registration() -> Iterator[Check]:
    """Whether the bridge folder is in nnU-Net's environment variable, by which means, and what else is there."""
    subject, bridge = "registration", bridge_folder()
    folders = [folder for folder in os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep) if folder.strip()]
    startup_file = next(_startup_files(), None)
    by_startup_file = startup_file is not None and bridge in _folders_of_a_new_python()
    if os.pathsep in bridge:
        fix = "use an environment whose path has no such character"
        yield Check(FAIL, subject, f"the path {bridge} holds {os.pathsep!r}, which separates folders", fix)
    elif bridge in folders and by_startup_file:
        yield Check(OK, subject, f"by {startup_file}, whenever Python starts")
    elif bridge in folders:
        found = f"by the variable {ENVIRONMENT_VARIABLE} alone, which has to be set in every shell"
        yield Check(WARN, subject, found, f"put into your shell's profile: {_EXPORT}")
    elif by_startup_file:
        found = f"{startup_file} works, but this Python was started with -S, or has changed {ENVIRONMENT_VARIABLE}"
        yield Check(FAIL, subject, found, _EXPORT)
    elif startup_file is not None:
        found = f"{startup_file} is not read by this Python (a folder of --target or PYTHONPATH?)"
        yield Check(FAIL, subject, found, _EXPORT)
    else:
        yield Check(FAIL, subject, "the startup file nnunet_nacl.pth is missing", f"{_REINSTALL}, or {_EXPORT}")
    yield from (_check_other_folder(folder) for folder in folders if folder != bridge)


def check_trainers(find: FindTrainer) -> Iterator[Check]:
    """Whether nnU-Net's own look-up finds every registered trainer, and as the class that Python imports."""
    trainers = registered_trainers()
    if any(trainer.is_ours for trainer in trainers):
        value = f"{TRAINERS_PACKAGE}:{_EXAMPLE_VARIANT}"
        trainers.append(RegisteredTrainer(_EXAMPLE_VARIANT, value, "nnunet_nacl"))
    else:
        yield Check(FAIL, "trainers", "none of this package's trainers is registered", _REINSTALL)
    merged: dict[tuple[str, str, str], list[Check]] = {}  # one row for all that have the same trouble
    for check in (_check_trainer(trainer, find) for trainer in trainers):
        merged.setdefault((check.status, check.found, check.fix), []).append(check)
    for first, *others in merged.values():
        yield replace(first, found=f"{first.found} (and {len(others)} more likewise)") if others else first


def _check_trainer(trainer: RegisteredTrainer, find: FindTrainer) -> Check:
    broken = FAIL if trainer.is_ours else WARN  # others' trainers are theirs to fix
    try:
        imported = trainer.load()
    except ImportError as error:
        return Check(broken, trainer.name, str(error), f"reinstall {trainer.package.split(' ')[0]}")
    try:
        with _quiet():
            found = find(trainer.name)
    except RuntimeError:
        return Check(broken, trainer.name, "not found by nnU-Net", "see registration above")
    except (Exception, SystemExit) as error:  # it imports all that lies in the user's folders, scripts as well
        return Check(broken, trainer.name, f"nnU-Net's look-up fails: {_describe(error)}", "see registration above")
    if found is not imported:
        source = getattr(sys.modules.get(found.__module__), "__file__", None) or f"module {found.__module__}"
        described = f"nnU-Net finds another class of that name, in {source}"
        return Check(broken, trainer.name, described, "rename one of them")
    try:
        pickles = pickle.loads(pickle.dumps(found)) is found
    except Exception:
        pickles = False
    if not pickles:
        return Check(broken, trainer.name, f"cannot be pickled as {found.__module__}.{found.__qualname__}", _REINSTALL)
    return Check(OK, trainer.name, f"is {found.__module__}.{found.__qualname__}")


def _check_other_folder(folder: str) -> Check:
    subject = "other trainer folder"
    if not os.path.exists(folder):
        return Check(WARN, subject, f"{folder} does not exist, nnU-Net skips it")
    if folder.endswith(os.path.join("nnunet_nacl", "registration", "_bridge")):
        return Check(OK, subject, f"{folder}, of another environment, harmless here")
    spec = _find_spec(TRAINERS_PACKAGE)
    ours = os.path.dirname(os.path.realpath(spec.origin)) if spec is not None and spec.origin else None
    if ours is not None and (ours + os.sep).startswith(os.path.realpath(folder).rstrip(os.sep) + os.sep):
        found = f"{folder} holds this package's trainers, which nnU-Net would import a second time under other names"
        return Check(FAIL, subject, found, f"remove that folder from {ENVIRONMENT_VARIABLE}")
    return Check(OK, subject, f"{folder}, searched by nnU-Net as well")


def _startup_files() -> Iterator[str]:
    # From Python 3.15 on the .start file counts, before that nothing reads it.
    name = "nnunet_nacl.start" if sys.version_info >= (3, 15) else "nnunet_nacl.pth"
    return filter(os.path.isfile, (os.path.join(folder or os.curdir, name) for folder in sys.path))


def _folders_of_a_new_python() -> list[str]:
    """The folders in the variable of a Python that is started without it: what the startup file alone does."""
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT_VARIABLE}
    code = f"import os; print(os.environ.get({ENVIRONMENT_VARIABLE!r}, ''))"
    try:
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = result.stdout.splitlines()
    return lines[-1].split(os.pathsep) if lines else []


def _find_spec(package: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown version"


def _describe(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Old versions of nnU-Net print pages about unset folders when they are imported."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def check_known(trainer: str) -> None:
    """UserError unless nnU-Net finds the trainer; names of our grammar that nobody registered it always does.

    Raises:
        ValueError: The method is one of ours, a token of the name is not; the message holds the grammar.
    """
    registered = [entry.name for entry in registered_trainers()]
    if trainer == PREFIX or (trainer not in registered and parse(trainer) is not None):
        return
    check, find = check_nnunet()
    if find is None:
        raise UserError(f"nnU-Net: {check.found}; {check.fix}")
    try:
        with _quiet():
            find(trainer)
    except Exception as error:  # whatever importing another package's trainer raises
        hint = suggest(trainer, registered)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise UserError(
            f"{trainer}: nnU-Net finds no such trainer ({reason})"
            + (f"; did you mean {hint}?" if hint else "; `nnunet_nacl trainers` lists those of this package")
        ) from error
