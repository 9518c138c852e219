"""A lock of the operating system on a file, which goes when the process does that holds it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nnunet_nacl.errors import UserError


@contextlib.contextmanager
def locked(
    path: Path, taken: str | None = None, *, shared: bool = False, temporary: bool = False
) -> Iterator[list[int]]:
    """Holds a file, which is made with its folder, while the block runs.

    Where there are no locks (Windows, some network file systems), nothing is held.

    Args:
        path: The file. Nothing else is written to it: some file systems let none but its holder write to a locked file.
        taken: Message of the error where another holds it; None waits until it is free.
        shared: Hold it with others that share it, against those that do not.
        temporary: Remove the file with its last holder. Not where commands inherit it, which may hold it for longer.

    Yields:
        File descriptors for commands to inherit: a command that outlives this process still holds the file. None where
        nothing is held.

    Raises:
        UserError: Another process, or another block of this one, holds the file.
        OSError: The file cannot be made.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield []
        return
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            held = [file.fileno()]
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if taken else 0))
            except BlockingIOError:
                raise UserError(taken) from None
            except OSError:
                held = []
            if held and not _is_at(file, path):  # its last holder has just removed it
                continue
            try:
                yield held
            finally:
                if temporary:
                    with contextlib.suppress(OSError):  # where others share it, the last of them removes it
                        if held:
                            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()
            return


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False
