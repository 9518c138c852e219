"""A lock of the operating system, which goes when the process does that holds it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from nnunet_nacl.errors import UserError

__all__ = ["locked"]


@contextlib.contextmanager
def locked(path: Path, taken: str) -> Iterator[list[int]]:
    """Holds a file, whose folder is made, while the block runs; on Windows nothing is held.

    Args:
        path: The file.
        taken: Message of the error where another process holds it.

    Yields:
        File descriptors for commands to inherit: a command that outlives this process still holds the file.

    Raises:
        UserError: Another process, or another block of this one, holds the file.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield []
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(taken) from error
        yield [file.fileno()]
