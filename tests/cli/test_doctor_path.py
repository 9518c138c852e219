"""`nnunet_nacl doctor --path`."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_nacl.cli.main import main


def test_it_prints_the_bridge_folder_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--path"]) == 0
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    assert Path(line).is_absolute()
    assert [module.name for module in Path(line).glob("*.py")] == ["nnunet_nacl_bridge.py"]
    assert printed.err == ""
