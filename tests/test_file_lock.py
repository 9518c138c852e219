"""One process at a time, or those that share, and whatever commands outlive them."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys

from nnunet_nacl.errors import UserError
from nnunet_nacl.file_lock import locked


def is_taken(path, **how) -> bool:
    try:
        with locked(path, "taken", **how):
            return False
    except UserError:
        return True


def test_a_second_holder_is_refused_and_the_next_is_not(tmp_path):
    path = tmp_path / "new" / ".lock"
    with locked(path, "taken"):
        assert is_taken(path) and is_taken(path, shared=True)
    assert not is_taken(path)


def test_a_command_that_outlives_its_process_still_holds(tmp_path):
    path = tmp_path / ".lock"
    with locked(path, "taken") as inherited:
        command = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=inherited)
    try:
        assert is_taken(path)
    finally:
        command.communicate(b"\n")
    assert not is_taken(path)


def test_the_last_of_those_who_share_removes_the_file(tmp_path):
    path, how = tmp_path / ".lock", {"shared": True, "temporary": True}
    with locked(path, "taken", **how):
        with locked(path, "taken", **how):
            assert is_taken(path)
        assert path.exists() and is_taken(path)
    assert not path.exists()


def test_a_file_that_is_removed_while_it_is_opened_is_made_again(tmp_path, monkeypatch):
    path, real = tmp_path / ".lock", fcntl.flock

    def removed_first(*arguments):
        monkeypatch.setattr(fcntl, "flock", real)
        path.unlink()
        real(*arguments)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with locked(path):
        assert is_taken(path)


def test_where_there_are_no_locks_nothing_is_held(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path / ".lock", "taken", temporary=True) as held:
        assert not held and not is_taken(tmp_path / ".lock")
    assert not list(tmp_path.iterdir())
