"""Temporary files: of those at work they stay, of those that have ended they go."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path

from nnunet_nacl.files import check_writable, remove_leftovers, replacing, temporary_name
from tests.processes import run_warm


def be_killed(folder: Path) -> None:
    with replacing(folder / "image.nii.gz", ending=".nii.gz") as name:
        name.write_text("half")
        name.with_suffix("").write_text("on the way to it")
        name.with_suffix(".d").mkdir()
        os.kill(os.getpid(), signal.SIGKILL)


def test_only_what_killed_processes_left_is_removed(tmp_path):
    assert run_warm(be_killed, tmp_path, folder=tmp_path).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 4  # and the lock
    with temporary_name(tmp_path) as folder, replacing(tmp_path / "mine.nii.gz", ending=".nii.gz") as name:
        folder.mkdir()
        name.write_text("whole")
        earlier = tmp_path / ".model.zip.nnunet_nacl.tmp.d"  # where version 0.3 left the model that it was replacing
        earlier.mkdir()
        in_hand = {folder, name, earlier}
        check_writable(tmp_path / "other")
        assert in_hand <= set(tmp_path.iterdir()) and len(list(tmp_path.iterdir())) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"mine.nii.gz", earlier.name}


def test_nothing_is_removed_where_no_lock_tells_whose_it_is(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with replacing(tmp_path / "a") as name:
        name.write_text("whole")
        remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
