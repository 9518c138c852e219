"""A model that is there is replaced by a whole one, or stays, however an import ends."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import zipfile
from pathlib import Path

import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.errors import UserError
from nnunet_nacl.models.installation import install_model
from tests.processes import run_warm

MODEL = "Dataset001_A/T__P__C"
NAMES = (f"{MODEL}/dataset.json", f"{MODEL}/plans.json", f"{MODEL}/fold_0/checkpoint_final.pth")
CHOSEN = "Dataset001_A/inference_information.json"
NEW = dict.fromkeys((*NAMES, CHOSEN), "new")
OLD = dict.fromkeys((*NAMES, CHOSEN, f"{MODEL}/fold_1/checkpoint_final.pth"), "old")


@pytest.fixture
def archive(tmp_path):
    return pack(tmp_path / "model.zip", NEW)


@pytest.fixture
def results(tmp_path):
    for name, content in OLD.items():
        path = tmp_path / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "results"


def pack(path: Path, names) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name in names:
            opened.writestr(name, "new")
    return path


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("lacking", NAMES)
def test_what_nnunet_could_not_predict_with_is_refused(tmp_path, results, lacking):
    archive = pack(tmp_path / "model.zip", NEW.keys() - {lacking})
    with pytest.raises(UserError, match=f"{MODEL} has no .*; export the model again"):
        install_model(archive, results, overwrite=True)
    assert contents(results) == OLD


def test_names_of_windows_are_taken(tmp_path, results):
    archive = pack(tmp_path / "model.zip", ["Dataset001_A\\", *(name.replace("/", "\\") for name in NEW)])
    assert install_model(archive, results, overwrite=True) == [MODEL]
    assert contents(results) == NEW


def import_and_stop(archive: Path, at: int, how: int | None) -> int:
    """Right after a file or folder got another name: by a signal, or by an error of the disk."""
    count, replace = 0, os.replace

    def replace_and_stop(*arguments):
        nonlocal count
        replace(*arguments)
        count += 1
        if count == at:
            if how is None:
                raise OSError(5, "Input/output error")
            os.kill(os.getpid(), how)

    os.replace = replace_and_stop
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup
    return main(["import", "-i", str(archive), "--overwrite"])


@pytest.mark.parametrize(
    "how, at, status, left",
    [
        (None, 1, 2, OLD),
        (None, 4, 2, OLD),
        (signal.SIGTERM, 1, 128 + signal.SIGTERM, OLD),
        (signal.SIGTERM, 2, 128 + signal.SIGTERM, OLD),
        (signal.SIGTERM, 6, 128 + signal.SIGTERM, NEW),
        (signal.SIGHUP, 3, 128 + signal.SIGHUP, OLD),
    ],
)
def test_an_import_that_is_stopped_leaves_the_old_or_the_new(archive, results, monkeypatch, how, at, status, left):
    monkeypatch.setenv("nnUNet_results", str(results))
    ended = run_warm(import_and_stop, archive, at, how, folder=archive.parent)
    assert ended.returncode == status, ended.stderr
    assert contents(results) == left


@pytest.mark.parametrize("at, there", [(1, {}), (2, NEW), (4, NEW)])
def test_after_a_kill_the_next_import_says_where_the_old_model_is(archive, results, monkeypatch, at, there):
    monkeypatch.setenv("nnUNet_results", str(results))
    ended = run_warm(import_and_stop, archive, at, signal.SIGKILL, folder=archive.parent)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    copy, place = results / "Dataset001_A" / ".T__P__C.before_import", results / MODEL
    for overwrite in (False, True):
        with pytest.raises(UserError, match=f"{copy}: an import .* was at {place} before; move it back"):
            install_model(archive, results, overwrite=overwrite)
    assert {name: text for name, text in contents(results).items() if name in NAMES} == {
        name: text for name, text in there.items() if name in NAMES
    }
    shutil.rmtree(place, ignore_errors=True)
    copy.rename(place)
    chosen = results / "Dataset001_A" / ".inference_information.json.before_import"
    if chosen.exists():
        chosen.replace(results / CHOSEN)
    assert contents(results) == OLD
    install_model(archive, results, overwrite=True)
    assert contents(results) == NEW


def test_a_second_import_at_the_same_time_is_refused(archive, results, monkeypatch):
    real = zipfile.ZipFile.extractall

    def beside_another(self, *arguments):
        monkeypatch.setattr(zipfile.ZipFile, "extractall", real)
        real(self, *arguments)
        with pytest.raises(UserError, match="another import of Dataset001_A is at work in .*results; wait"):
            install_model(archive, results, overwrite=True)

    monkeypatch.setattr(zipfile.ZipFile, "extractall", beside_another)
    install_model(archive, results, overwrite=True)
    assert contents(results) == NEW


def test_what_the_disk_does_not_hold_is_not_installed(archive, results, monkeypatch):
    real = zipfile.ZipFile.extractall

    def losing(self, folder, *arguments):
        real(self, folder, *arguments)
        if (folder / NAMES[-1]).exists():
            (folder / NAMES[-1]).write_text("ne")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", losing)
    with pytest.raises(UserError, match="fold_0/checkpoint_final.pth: was not written as it is in the zip"):
        install_model(archive, results, overwrite=True)
    assert contents(results) == OLD


def test_a_data_set_may_be_a_link_to_another_disk(archive, results):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == results.stat().st_dev:
        pytest.skip("there is no other file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=other) as place:
        shutil.move(results / "Dataset001_A", Path(place) / "there")
        (results / "Dataset001_A").symlink_to(Path(place) / "there")
        install_model(archive, results, overwrite=True)
        assert contents(Path(place) / "there") == {name.removeprefix("Dataset001_A/"): "new" for name in NEW}
        assert (results / "Dataset001_A").is_symlink()
