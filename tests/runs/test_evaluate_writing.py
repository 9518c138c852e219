"""Where results cannot be written: said before the work, and nothing half written is left."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from pathlib import Path

import nnunetv2
import pytest

import nnunet_nacl
from nnunet_nacl.case.document import read_document
from nnunet_nacl.cli.main import main
from nnunet_nacl.files import can_write, write_atomically
from nnunet_nacl.runs import evaluate as evaluate_module
from nnunet_nacl.runs.sample_files import SAMPLES_FOLDER
from tests.processes import full_disk
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
    assert evaluate("-f", 0, "-o", root / "warm.json") == 0  # imports what an evaluation imports

    def take(*folders: Path, mode: int = 0o555) -> None:
        for folder in folders:
            folder.chmod(mode)
        if os.geteuid() == 0:  # modes do not hold root back
            os.seteuid(_NOBODY)
            if not libraries_are_readable():  # nnU-Net looks through its own folders for classes
                pytest.skip("run as root, from a folder that is closed to the user who stands for one without rights")
        assert not any(can_write(folder) for folder in folders), "this test needs folders that cannot be written"

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


def test_a_read_only_fold_is_named_before_the_work(read_only, measured, capsys):
    model, take = read_only
    take(model.validation())
    assert evaluate("-f", 0) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(model.validation()) in line and "Permission denied" in line and "-o" in line
    assert not measured


@pytest.mark.parametrize("which", ["results", "model", "fold"])
def test_a_folder_that_cannot_be_read_is_named_and_not_taken_for_an_empty_one(read_only, measured, capsys, which):
    model, take = read_only
    fold = model.folder / "fold_0"
    place = {"results": model.folder.parent.parent, "model": model.folder, "fold": fold}[which]
    try:
        take(place, mode=0)
        assert evaluate() == 2
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        place.chmod(0o755)
    [line] = capsys.readouterr().err.splitlines()
    assert f"error: {place}" in line and line.endswith(": Permission denied; change its permissions, or give another.")
    assert not measured


def test_results_of_a_read_only_model_can_lie_elsewhere(read_only, measured, tmp_path, monkeypatch, capsys):
    model, take = read_only
    elsewhere = model.root.parent / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    take(model.folder, model.validation(0), model.validation(1))
    original = evaluate_module.measure

    def die_at_last(case_files, *rest):
        if case_files.case == "case_11":
            raise KeyboardInterrupt
        return original(case_files, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_module, "measure", die_at_last)
        assert evaluate("-o", elsewhere / "all.json") == 130
    assert measured == ["case_00", "case_01", "case_10"]
    assert evaluate("-o", elsewhere / "all.json") == 0
    assert measured[3:] == ["case_11"]  # the others were kept, though no fold could take them
    assert [path.name for path in elsewhere.iterdir()] == ["all.json"]
    assert len(read_document(elsewhere / "all.json").cases) == 4
    assert evaluate("-o", elsewhere / "all.json") == 0 and len(measured) == 4


def test_no_room_for_a_case_leaves_the_old_file(make_validated, capsys):
    model = make_validated(cases=2)
    (model.validation() / "calibration.json").write_text("the old file")
    with full_disk(4096):
        assert evaluate() == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("nnunet_nacl evaluate: error:") and "case_00.json: cannot be written (File too" in error
    assert (model.validation() / "calibration.json").read_text() == "the old file"
    assert not list((model.validation() / "calibration.json.partial").iterdir())


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_users_umask_holds(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a.json", "{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode


def test_leftovers_of_killed_runs_are_removed(make_validated):
    model = make_validated(cases=1, folds=2)
    partial = model.validation() / "calibration.json.partial"
    samples = model.validation() / SAMPLES_FOLDER
    partial.mkdir()
    samples.mkdir()
    places = (partial, samples, model.validation(), model.folder)
    leftovers = [folder / ".0123456789ab.nnunet_nacl.tmp" for folder in places]
    for path in leftovers:
        path.write_text("half a docu")
    assert evaluate() == 0
    assert not partial.exists() and not any(path.exists() for path in leftovers)
    assert json.loads((model.folder / "calibration.json").read_text())["n_cases"] == 2
