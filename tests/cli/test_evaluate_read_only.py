"""`nnunet_nacl evaluate` where folders cannot be read or written: said before the work."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import nnunetv2
import pytest

from nnunet_nacl.cli.main import main
from tests.runs.folders import make_model

_NOBODY = 65534


@pytest.fixture
def closed(monkeypatch):
    """A model, and a function that evaluates it where folders have other rights, which hold for
    root, too."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)  # pytest's own folders are closed to other users
    model = make_model(root / "nnunet", cases=2)
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)
    command = ["evaluate", "-d", "999", "-c", "3d_fullres", "-np", "1"]
    assert main(command) == 0  # imports what an evaluation imports
    shutil.rmtree(model.validation() / "records")
    (model.validation() / "calibration.json").unlink()

    def evaluate(*folders: Path, mode: int) -> int:
        for folder in folders:
            folder.chmod(mode)
        try:
            if os.geteuid() == 0:  # modes do not hold root back
                os.seteuid(_NOBODY)
                if not os.access(nnunetv2.__path__[0], os.R_OK, effective_ids=True):
                    pytest.skip(
                        "run as root, from a folder that is closed to the user who stands for one"
                        " without rights"
                    )
            return main(command)
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            for folder in folders:
                folder.chmod(0o755)

    yield model, evaluate
    shutil.rmtree(root)


def test_a_folder_that_cannot_be_read_or_written_is_named_and_not_taken_for_an_empty_one(
    closed, capsys
):
    model, evaluate = closed
    for place in (model.folder.parent.parent, model.folder, model.folder / "fold_0"):
        capsys.readouterr()
        assert evaluate(place, mode=0) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert f"error: {place}" in line and line.endswith(
            "Permission denied; change its permissions, or give another."
        )
    assert evaluate(model.folder, model.validation(), mode=0o555) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert (
        str(model.validation()) in line
        and "Permission denied" in line
        and not any(model.validation().glob("records/*"))
    )
