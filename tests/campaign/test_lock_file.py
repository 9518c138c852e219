"""One process at a time, and whatever commands outlive it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nnunet_nacl.campaign.lock_file import locked
from nnunet_nacl.errors import UserError


def test_a_second_holder_is_refused_and_the_next_is_not(tmp_path):
    path = tmp_path / "new" / ".lock"
    with locked(path, "taken"), pytest.raises(UserError, match="taken"), locked(path, "taken"):
        pass
    with locked(path, "taken"):
        pass


def test_a_command_that_outlives_its_process_still_holds(tmp_path):
    path = tmp_path / ".lock"
    with locked(path, "taken") as inherited:
        command = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=inherited)
    try:
        with pytest.raises(UserError, match="taken"), locked(path, "taken"):
            pass
    finally:
        command.communicate(b"\n")
    with locked(path, "taken"):
        pass
