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


def test_without_nnunet_it_says_how_to_install_it(wheel_environment: Environment) -> None:
    result = wheel_environment.command("doctor")
    assert result.returncode == 1 and result.stderr == ""
    assert "not installed" in result.stdout
    assert '-> pip install "nnunetv2>=2.8,<3"' in result.stdout
    assert "-> pip install torch" in result.stdout
    assert "is in nnUNet_extTrainer" in result.stdout


def test_an_nnunet_that_is_old_is_named_with_the_fix(wheel_environment: Environment, tmp_path: Path) -> None:
    for name, content in {
        "nnunetv2/__init__.py": "",
        "nnunetv2/utilities/__init__.py": "print('nnUNet_raw is not defined ...')",
        "nnunetv2-2.5.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: nnunetv2\nVersion: 2.5.1\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    result = wheel_environment.command("doctor", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1 and result.stderr == "" and "is not defined" not in result.stdout
    assert "2.5.1 cannot be imported, or is older than 2.8" in result.stdout


def test_a_working_environment_passes_and_what_is_missing_is_told(monkeypatch, tmp_path, capsys) -> None:
    if not registered_trainers():
        pytest.skip("needs this package to be installed in the running Python")
    monkeypatch.setenv("nnUNet_extTrainer", f"/mine{os.pathsep}{bridge_folder()}")
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert not any(word in printed for word in ("FAIL", "WARN", "->"))
    assert all(trainer.name in printed for trainer in registered_trainers())
    (tmp_path / "later-1.dist-info").mkdir()
    scripts = "[console_scripts]\nnnUNetv2_train_pretrained = later:main\n"
    (tmp_path / "later-1.dist-info" / "entry_points.txt").write_text(scripts)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["doctor"]) == 0
    assert re.search("WARN +nnUNetv2_train_pretrained +does not read nnUNet_extTrainer", capsys.readouterr().out)
    monkeypatch.setenv("nnUNet_extTrainer", "/mine")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "a" / "b"))
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "export nnUNet_extTrainer=" in printed and "does not exist" in printed and "mkdir -p" in printed


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        (doctor.Check, "FAIL", "another class of that name, in .*doctor.py"),
        *((error, "FAIL", type(error).__name__) for error in (RuntimeError("not found"), SystemExit("usage"))),
    ],
)
def test_what_nnunet_finds_must_be_what_python_imports(found, status, words) -> None:
    def find(name: str) -> type:
        if isinstance(found, BaseException):
            raise found
        return found

    check = doctor.check_trainer(registered_trainers()[0], find)
    assert check.status == status and re.search(words, check.found)
    theirs = RegisteredTrainer("nnUNetTrainerTheirs", "a_missing_package.trainers:Trainer", "somebody 1.0")
    assert doctor.check_trainer(theirs, find).status == "WARN"
