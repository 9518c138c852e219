"""Temporary files, and locks that tell whose they are."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path

from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import (
    check_writable,
    locked,
    remove_leftovers,
    replacing,
    temporary_name,
)
from tests.processes import run_warm


def be_killed(folder: Path) -> None:
    with replacing(folder / "image.nii.gz") as name:
        name.write_text("half")
        Path(f"{name}.nii").write_text("on the way to it")
        Path(f"{name}.d").mkdir()
        os.kill(os.getpid(), signal.SIGKILL)


def test_only_what_killed_processes_left_is_removed(tmp_path):
    assert run_warm(be_killed, tmp_path, folder=tmp_path).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 4  # and the lock
    with temporary_name(tmp_path) as folder, replacing(tmp_path / "mine.nii.gz") as name:
        folder.mkdir()
        name.write_text("whole")
        check_writable(tmp_path / "other")
        left = set(tmp_path.iterdir())
        assert {folder, name} <= left
        assert len(left) == 4  # and the lock of each
    assert {path.name for path in tmp_path.iterdir()} == {"mine.nii.gz"}


def hold(path: Path) -> int:
    """Whether another holds it; a process that ends without a word frees it."""
    try:
        with locked(path, "taken"):
            os._exit(0)
    except UserError:
        return 1


def test_one_at_a_time_holds_a_lock_until_it_ends(tmp_path):
    path = tmp_path / "new" / ".lock"
    with locked(path, "taken") as is_held:
        assert is_held
        assert run_warm(hold, path, folder=tmp_path).returncode == 1
    assert not path.exists()
    for _ in range(2):
        assert run_warm(hold, path, folder=tmp_path).returncode == 0


def test_nothing_is_removed_where_no_lock_tells_whose_it_is(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path / ".lock", "taken") as is_held, locked(tmp_path / ".lock", "taken"):
        assert not is_held
    with replacing(tmp_path / "a") as name:
        name.write_text("whole")
        remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
