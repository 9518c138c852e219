"""`nnunet_nacl doctor`: what it says of a working environment and of broken ones."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.registration import bridge_folder
from nnunet_nacl.registration.lookup import registered_trainers
from tests.environments import Environment


def test_without_nnunet_it_says_how_to_install_it(wheel_environment: Environment) -> None:
    result = wheel_environment.command("doctor")
    assert result.returncode == 1 and result.stderr == ""
    assert "not installed" in result.stdout
    assert '-> pip install "nnunetv2>=2.8,<3"' in result.stdout
    assert "-> pip install torch" in result.stdout
    assert "is in nnUNet_extTrainer" in result.stdout


def test_a_working_environment_passes_and_what_is_missing_is_told(
    monkeypatch, tmp_path, capsys
) -> None:
    if not registered_trainers():
        pytest.skip("needs this package to be installed in the running Python")
    monkeypatch.setenv("nnUNet_extTrainer", f"/mine{os.pathsep}{bridge_folder()}")
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert not any(word in printed for word in ("FAIL", "WARN", "->"))
    for trainer in registered_trainers():
        assert trainer.name in printed
    files = re.findall(r"nnUNetTrainer(?:Dice)?(?:NACL|NACL_lambda0p2) +is in (\S+)", printed)
    assert {Path(file).parts[-2:] for file in files} == {("trainers", "nacl.py")} and len(
        files
    ) == 3
    (tmp_path / "later-1.dist-info").mkdir()
    scripts = "[console_scripts]\nnnUNetv2_train_pretrained = later:main\n"
    (tmp_path / "later-1.dist-info" / "entry_points.txt").write_text(scripts)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["doctor"]) == 0
    assert re.search(
        "WARN +nnUNetv2_train_pretrained +does not read nnUNet_extTrainer", capsys.readouterr().out
    )
    monkeypatch.setenv("nnUNet_extTrainer", "/mine")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "a" / "b"))
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert 'export nnUNet_extTrainer="$nnUNet_extTrainer:$(nnunet_nacl doctor --path)"' in printed
    assert "does not exist" in printed and "mkdir -p" in printed
    (tmp_path / "nnunet_nacl.pth").write_text("import nnunet_nacl.training._startup\n")
    assert main(["doctor"]) == 1
    assert "is of an earlier version" in capsys.readouterr().out
