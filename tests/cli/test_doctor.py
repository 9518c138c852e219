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

_OWN_TRAINER = """\
from nnunet_nacl_trainers import nnUNetTrainerNACL

class {}(nnUNetTrainerNACL):
    loss_settings = {{"penalty_weight": {}}}
"""


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
    users = tmp_path / "trainers"
    (users / "sub").mkdir(parents=True)
    (users / "sub" / "__init__.py").touch()
    (users / "sub" / "mine.py").write_text(_OWN_TRAINER.format("nnUNetTrainerNACL_ours", 0.3))
    folders = os.pathsep.join(["/mine", str(users), bridge_folder()])
    monkeypatch.setenv("nnUNet_extTrainer", folders)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert not any(word in printed for word in ("FAIL", "WARN", "->"))
    for trainer in registered_trainers():
        assert trainer.name in printed
    assert re.search(rf"OK +nnUNetTrainerNACL_ours +is in {users}/sub/mine.py, of", printed)
    files = re.findall(r"nnUNetTrainer(?:Dice)?(?:NACL|NACL_lambda0p2) +is in (\S+)", printed)
    assert {Path(file).parts[-2:] for file in files} == {("trainers", "nacl.py")} and len(
        files
    ) == 3
    (users / "wrong.py").write_text(_OWN_TRAINER.format("nnUNetTrainerNACL_wrong", -1))
    copied = "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
    (users / "copied.py").write_text(f"{copied}class nnUNetTrainer_20epochs(nnUNetTrainer): pass\n")
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"WARN +nnUNetTrainerNACL_wrong +ValueError: .* -1.*\n +-> correct", printed)
    assert re.search(
        r"WARN +nnUNetTrainer_20epochs +is in .*copied.py, but nnU-Net finds that of nnunetv2",
        printed,
    )
    for name in ("wrong.py", "copied.py"):
        (users / name).unlink()
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
