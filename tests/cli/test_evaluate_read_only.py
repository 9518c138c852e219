"""`nnunet_nacl evaluate` where folders cannot be read or written: said before the work."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import nnunetv2
import pytest

import nnunet_nacl
from nnunet_nacl.cli.main import main
from tests.runs.folders import make_model

_NOBODY = 65534


@pytest.fixture
def read_only(monkeypatch):
    """Function that takes the right to write into folders, or other rights, also from root; and its model."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)  # pytest's own folders are closed to other users
    model = make_model(root / "nnunet", cases=2, folds=2)
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)
    assert evaluate("-f", 0) == 0  # imports what an evaluation imports
    shutil.rmtree(model.validation() / "records")
    (model.validation() / "calibration.json").unlink()

    def take(*folders: Path, mode: int = 0o555) -> None:
        for folder in folders:
            folder.chmod(mode)
        if os.geteuid() == 0:  # modes do not hold root back
            os.seteuid(_NOBODY)
            if not libraries_are_readable():  # nnU-Net looks through its own folders for classes
                pytest.skip("run as root, from a folder that is closed to the user who stands for one without rights")
        for folder in folders:
            with pytest.raises(OSError):
                tempfile.TemporaryFile(dir=folder)

    yield model, take
    if os.getuid() == 0:
        os.seteuid(0)
    for folder in (model.folder, *(model.validation(fold) for fold in range(2))):
        folder.chmod(0o755)
    shutil.rmtree(root)


def libraries_are_readable() -> bool:
    try:
        return all(os.listdir(package.__path__[0]) for package in (nnunetv2, nnunet_nacl))
    except PermissionError:
        return False


def evaluate(*arguments) -> int:
    return main(["evaluate", "-d", "999", "-c", "3d_fullres", "-np", "1", *map(str, arguments)])


@pytest.mark.parametrize("which", ["results", "model", "fold"])
def test_a_folder_that_cannot_be_read_is_named_and_not_taken_for_an_empty_one(read_only, capsys, which):
    model, take = read_only
    fold = model.folder / "fold_0"
    place = {"results": model.folder.parent.parent, "model": model.folder, "fold": fold}[which]
    capsys.readouterr()
    try:
        take(place, mode=0)
        assert evaluate() == 2
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        place.chmod(0o755)
    [line] = capsys.readouterr().err.splitlines()
    assert f"error: {place}" in line and line.endswith(": Permission denied; change its permissions, or give another.")


def test_a_folder_that_cannot_be_written_is_named_before_the_work_and_kept_records_need_no_right(read_only, capsys):
    model, take = read_only
    assert evaluate("-f", 1) == 0
    elsewhere = model.root.parent / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    take(model.folder, model.validation(0), model.validation(1))
    capsys.readouterr()
    for arguments in ((), ("-o", elsewhere / "one.json")):
        assert evaluate("-f", 0, *arguments) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert str(model.validation()) in line and "Permission denied" in line
    assert evaluate("-f", 1, "-o", elsewhere / "one.json") == 0
    assert [path.name for path in elsewhere.iterdir()] == ["one.json"]
