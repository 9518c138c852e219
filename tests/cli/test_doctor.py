"""`nnunet_nacl doctor`: what it says of a working environment and of broken ones."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from nnunet_nacl.cli import doctor
from nnunet_nacl.cli.main import main
from nnunet_nacl.training import bridge_folder
from nnunet_nacl.training.lookup import RegisteredTrainer, registered_trainers
from tests.environments import Environment

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


class Trainer:
    """Stands for a trainer class."""


def registered(name: str = "nnUNetTrainerNACL", module: str = "nnunet_nacl_trainers") -> RegisteredTrainer:
    return RegisteredTrainer(name, f"{module}:{name}", "somebody 1.0")


def test_a_working_environment_passes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nnunetv2", reason="needs nnU-Net")
    if not registered_trainers():
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


def test_without_nnunet_it_says_how_to_install_it(wheel_environment: Environment) -> None:
    result = wheel_environment.command("doctor")
    assert result.returncode == 1 and result.stderr == ""
    assert "not installed" in result.stdout
    assert '-> pip install "nnunetv2>=2.8,<3"' in result.stdout
    assert "-> pip install torch" in result.stdout
    assert "is in nnUNet_extTrainer" in result.stdout


@pytest.mark.parametrize("fault", ["print('nnUNet_raw is not defined ...')", "1 +"])
def test_an_nnunet_that_is_old_or_broken_is_named_with_the_fix(
    wheel_environment: Environment, tmp_path: Path, fault: str
) -> None:
    for name, content in {
        "nnunetv2/__init__.py": "",
        "nnunetv2/utilities/__init__.py": fault,
        "nnunetv2-2.5.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: nnunetv2\nVersion: 2.5.1\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    result = wheel_environment.command("doctor", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "2.5.1 cannot be imported, or is older than 2.8" in result.stdout
    assert '-> pip install "nnunetv2>=2.8,<3"' in result.stdout
    assert "is not defined" not in result.stdout and result.stderr == ""


def test_a_missing_registration_is_told_with_what_to_export(monkeypatch) -> None:
    for value, status in ((f"/mine{os.pathsep}{bridge_folder()}", "OK"), ("/mine", "FAIL")):
        monkeypatch.setenv("nnUNet_extTrainer", value)
        check = doctor.check_registration()
        assert check.status == status and ("export nnUNet_extTrainer=" in check.fix) == (status == "FAIL")


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        (Trainer, "OK", ""),
        (doctor.Check, "FAIL", "another class of that name, in .*doctor.py"),
        *((error, "FAIL", type(error).__name__) for error in (RuntimeError("not found"), SystemExit("usage"))),
    ],
)
def test_what_nnunet_finds_must_be_what_python_imports(monkeypatch, found, status, words) -> None:
    def find(name: str) -> type:
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(RegisteredTrainer, "load", lambda self: Trainer)
    check = doctor.check_trainer(registered(), find)
    assert check.status == status and re.search(words, check.found)


def test_broken_trainers_of_others_are_no_failure() -> None:
    trainer = registered("nnUNetTrainerTheirs", "a_missing_package.trainers")
    check = doctor.check_trainer(trainer, lambda name: Trainer)
    assert check.status == "WARN"
    assert "No module named 'a_missing_package'" in check.found and "reinstall somebody" in check.fix


def test_folders_that_are_not_there_or_cannot_be_written(monkeypatch, tmp_path) -> None:
    for variable, missing in (("nnUNet_raw", "FAIL"), ("nnUNet_results", "WARN")):
        monkeypatch.setenv(variable, str(tmp_path / "a" / "b"))
        check = doctor.check_folder(variable)
        assert check.status == missing and "does not exist" in check.found and "mkdir -p" in check.fix
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write anywhere
    for variable, closed in (("nnUNet_raw", "OK"), ("nnUNet_results", "FAIL")):
        monkeypatch.setenv(variable, str(tmp_path))
        assert doctor.check_folder(variable).status == closed
