"""`nnunet_nacl doctor`: what it says of a working environment and of broken ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_nacl.cli import doctor
from nnunet_nacl.cli.main import main
from nnunet_nacl.registration import bridge_folder, health
from nnunet_nacl.registration.lookup import RegisteredTrainer, registered_trainers
from tests.environments import Environment

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


class Trainer:
    """Stands for a trainer class."""


def registered(name: str = "nnUNetTrainerNACL", module: str = "nnunet_nacl_trainers") -> RegisteredTrainer:
    return RegisteredTrainer(name, f"{module}:{name}", "somebody 1.0")


# --- whole runs -------------------------------------------------------------------------------------------------------


def test_a_working_environment_passes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nnunetv2", reason="needs nnU-Net")
    if not registered_trainers() or not list(health._startup_files()):
        pytest.skip("needs this package to be installed in the running Python")
    monkeypatch.setenv("nnUNet_extTrainer", bridge_folder())
    for variable in VARIABLES:
        monkeypatch.setenv(variable, str(tmp_path))
    status = main(["doctor", "--strict"])
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "FAIL" not in printed and "WARN" not in printed and "->" not in printed
    for trainer in registered_trainers():
        assert trainer.name in printed
    assert "nnUNetTrainerNACL_lambda0p2" in printed


def pretend_nnunet(folder: Path, version: str, files: dict[str, str]) -> str:
    """Makes something that looks like nnU-Net; returns the folder for PYTHONPATH."""
    files = {"nnunetv2/__init__.py": "", **files}
    files[f"nnunetv2-{version}.dist-info/METADATA"] = f"Metadata-Version: 2.1\nName: nnunetv2\nVersion: {version}\n"
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return str(folder)


def test_without_nnunet_it_says_how_to_install_it(wheel_environment: Environment) -> None:
    result = wheel_environment.command("doctor")
    assert result.returncode == 1
    assert result.stderr == ""
    assert "not installed" in result.stdout
    assert '-> pip install "nnunetv2>=2.8,<3"' in result.stdout
    assert "-> pip install torch" in result.stdout
    assert "nnunet_nacl.pth, whenever Python starts" in result.stdout


def test_an_old_nnunet_is_named_with_the_fix(wheel_environment: Environment, tmp_path: Path) -> None:
    noisy = "print('nnUNet_raw is not defined ...')"
    old = pretend_nnunet(tmp_path, "2.5.1", {"nnunetv2/utilities/__init__.py": noisy})
    result = wheel_environment.command("doctor", PYTHONPATH=old)
    assert result.returncode == 1
    assert "2.5.1 in" in result.stdout and "too old" in result.stdout
    assert '-> pip install "nnunetv2>=2.8,<3"' in result.stdout
    assert "is not defined" not in result.stdout


@pytest.mark.parametrize("fault", ["import a_missing_package", "raise OSError('libcudart.so: cannot open')", "1 +"])
def test_an_nnunet_that_cannot_be_imported_is_told_apart_from_an_old_one(
    wheel_environment: Environment, tmp_path: Path, fault: str
) -> None:
    broken = pretend_nnunet(tmp_path, "2.8.1", {"nnunetv2/utilities/__init__.py": fault})
    result = wheel_environment.command("doctor", PYTHONPATH=broken)
    assert result.returncode == 1
    assert "cannot be imported" in result.stdout and "too old" not in result.stdout
    assert result.stderr == ""


def test_unset_folders_are_noted_and_fail_only_if_strict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_checks", lambda: [doctor.check_folder(variable) for variable in VARIABLES])
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert main(["doctor"]) == 0
    assert '-> export nnUNet_results="/path/to/nnUNet_results"' in capsys.readouterr().out
    assert main(["doctor", "--strict"]) == 1


# --- registration -----------------------------------------------------------------------------------------------------


@pytest.fixture
def by_startup_file(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, bool], None]:
    """Pretends that a startup file exists, and that Python reads it."""

    def pretend(exists: bool, read: bool) -> None:
        monkeypatch.setattr(health, "_startup_files", lambda: iter(["/site/nnunet_nacl.pth"] if exists else []))
        monkeypatch.setattr(health, "_folders_of_a_new_python", lambda: [bridge_folder()] if read else [])

    return pretend


@pytest.mark.parametrize(
    ("in_variable", "exists", "read", "status", "found", "fix"),
    [
        (True, True, True, "OK", "by /site/nnunet_nacl.pth", ""),
        (True, False, False, "WARN", "by the variable nnUNet_extTrainer alone", "profile"),
        (False, True, True, "FAIL", "started with -S", "export"),
        (False, True, False, "FAIL", "not read by this Python", "export"),
        (False, False, False, "FAIL", "missing", "--force-reinstall"),
    ],
)
def test_the_kind_of_registration_is_told(
    monkeypatch: pytest.MonkeyPatch, by_startup_file, in_variable, exists, read, status, found, fix
) -> None:
    by_startup_file(exists, read)
    monkeypatch.setenv("nnUNet_extTrainer", bridge_folder() if in_variable else "")
    (check,) = health.check_registration()
    assert check.status == status and found in check.found and fix in check.fix


def test_the_users_own_folders_are_looked_at(monkeypatch: pytest.MonkeyPatch, by_startup_file, tmp_path: Path) -> None:
    by_startup_file(True, True)
    theirs, stale, project = tmp_path, "/does/not/exist", Path(health.__file__).parents[2]
    inherited = tmp_path / "nnunet_nacl" / "registration" / "_bridge"
    inherited.mkdir(parents=True)
    folders = [str(theirs), stale, str(project), str(project / "trainers"), str(inherited), bridge_folder(), ""]
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join(folders))
    monkeypatch.setattr(
        health, "_find_spec", lambda name: type("Spec", (), {"origin": str(project / "trainers" / "__init__.py")})
    )
    checks = list(health.check_registration())
    assert [check.status for check in checks] == ["OK", "OK", "WARN", "FAIL", "FAIL", "OK"]
    assert checks[3].fix == "remove that folder from nnUNet_extTrainer"


# --- trainers ---------------------------------------------------------------------------------------------------------


HIDDEN = type("Hidden", (), {"__module__": "nowhere"})


@pytest.mark.parametrize(
    ("found", "imported", "status", "words"),
    [
        (Trainer, Trainer, "OK", ()),
        (health.Check, Trainer, "FAIL", ("another class of that name", "health.py")),
        (HIDDEN, HIDDEN, "FAIL", ("cannot be pickled",)),
        *((error, Trainer, "FAIL", ()) for error in (RuntimeError("not found"), SystemExit("usage"), SyntaxError("x"))),
    ],
)
def test_what_nnunet_finds_must_be_what_python_imports(monkeypatch, found, imported, status, words) -> None:
    def find(name: str) -> type:
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(RegisteredTrainer, "load", lambda self: imported)
    check = health._check_trainer(registered(), find)
    assert check.status == status and all(word in check.found for word in words)


def test_broken_trainers_of_others_are_no_failure() -> None:
    trainer = registered("nnUNetTrainerTheirs", "a_missing_package.trainers")
    check = health._check_trainer(trainer, lambda name: Trainer)
    assert check.status == "WARN"
    assert "No module named 'a_missing_package'" in check.found and check.fix == "reinstall somebody"


def test_the_same_trouble_of_many_trainers_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> type:
        raise RuntimeError("not found")

    monkeypatch.setattr(health, "registered_trainers", lambda: [registered(f"nnUNetTrainer{n}") for n in range(4)])
    monkeypatch.setattr(RegisteredTrainer, "load", lambda self: Trainer)
    (check,) = health.check_trainers(fail)
    assert check.status == "FAIL" and check.subject == "nnUNetTrainer0" and "4 more" in check.found


def test_no_registered_trainer_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "registered_trainers", lambda: [])
    (check,) = health.check_trainers(lambda name: Trainer)
    assert check.status == "FAIL" and "reinstall" in check.fix


# --- nnU-Net's folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "status"), [("nnUNet_raw", "FAIL"), ("nnUNet_preprocessed", "WARN"), ("nnUNet_results", "WARN")]
)
def test_a_folder_that_is_not_there_yet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, status: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "a" / "b"))
    check = doctor.check_folder(variable)
    assert check.status == status and "does not exist" in check.found and "mkdir -p" in check.fix


@pytest.mark.parametrize(
    ("variable", "status"), [("nnUNet_raw", "OK"), ("nnUNet_preprocessed", "WARN"), ("nnUNet_results", "FAIL")]
)
@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, status: str, exists: bool
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write anywhere
    monkeypatch.setenv(variable, str(tmp_path if exists else tmp_path / "a" / "b"))
    check = doctor.check_folder(variable)
    assert check.status == (status if exists else "FAIL")
    assert check.status == "OK" or check.fix
