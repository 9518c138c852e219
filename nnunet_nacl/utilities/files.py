"""Writes files so that a killed run leaves the old one or the new one, never half of it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from nnunet_nacl.utilities.errors import UserError, describe

_TEMPORARY = ".nnunet_nacl.tmp"


@contextlib.contextmanager
def locked(path: Path, taken: str | None = None) -> Iterator[bool]:
    """Holds a lock of the operating system on a file, which is made with its folder, and removed
    when the block ends.

    Yields whether it is held: some network file systems have no locks. Where another process, or
    block, holds it, UserError with the message ``taken``; without one it waits.
    """
    from filelock import FileLock, Timeout

    for_ever = -1
    lock = FileLock(path, timeout=for_ever if taken is None else 0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(taken) from None
    except OSError:
        # There are no locks; where no file can be made, whoever writes the next one says so.
        pass
    try:
        yield lock.is_locked
    finally:
        # Before it is free: whoever waits for it finds that it is gone. Where it cannot be removed
        # an empty file stays, which locks as well.
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


def write_atomically(path: Path, text: str) -> None:
    """Write text under a temporary name, then rename it: see :func:`replacing`. The user's umask
    holds."""
    # Names of files need not be UTF-8: such bytes go out as they came in.
    data = text.encode("utf-8", errors="surrogateescape")
    with replacing(path) as temporary, open(temporary, "xb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; the file that the block writes there replaces ``path`` at
    the block's end.

    Missing folders are made. UserError where the block raised OSError, such as no space; nothing is
    left behind, whatever it raised.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_name(path.parent) as temporary:
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        raise UserError(describe(error, path, "cannot be written")) from None


@contextlib.contextmanager
def temporary_name(folder: Path) -> Iterator[Path]:
    """A name for a file or folder, removed at the block's end; a lock keeps
    :func:`remove_leftovers` off until then.

    What killed runs left is found again by such names, and files that are made under them keep the
    user's umask: neither is so with those of tempfile.
    """
    path = folder / f".{secrets.token_hex(6)}{_TEMPORARY}"
    with locked(_lock_path(path)):
        try:
            yield path
        finally:
            _remove(path)


@contextlib.contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A new folder in another, for files that have no name there yet; see
    :func:`temporary_name`."""
    with temporary_name(folder) as path:
        path.mkdir()
        yield path


def _lock_path(path: Path) -> Path:
    """One for all temporary names that begin alike, and no lock on the files themselves: libraries
    write them anew."""
    return path.with_name(f"{path.name.partition(_TEMPORARY)[0]}{_TEMPORARY}.lock")


def _remove(path: Path) -> None:
    """Removes a file or folder, if it is there; what cannot be removed is left to the next run."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs left in a folder under temporary names; nothing where it cannot be
    told by a lock."""
    for path in folder.glob(f".{'[0-9a-f]' * 12}{_TEMPORARY}*"):
        # UserError: another run has it in hand. OSError: it stays, and a later run tries again.
        with (
            contextlib.suppress(OSError, UserError),
            locked(_lock_path(path), "in hand") as is_held,
        ):
            if is_held:
                _remove(path)


def check_writable(path: Path) -> None:
    """UserError, before hours of work, where no file can be written; what killed runs left beside
    it is removed."""
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise UserError(f"{path} is {what}; give another file name.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(describe(error, path.parent, "no file can be written there")) from None
    remove_leftovers(path.parent)


_MARKS = (
    b'<meta name="generator" content="nnunet_nacl ',
    b'"generated_by": "nnunet_nacl ',
    b"tEXtSoftware\0nnunet_nacl",
)
"""What pages, JSON files and PNG images say of themselves near their begin."""

_FIRST_BYTES = (
    b'"rank","case","flag"',
    b'"case","empty","',
    b'"case","structure","',
    b'"scope","case","',
    b"img_path,mask_path\n",
)
"""How CSV files begin, which have no other place for a mark."""


def is_ours(path: Path) -> bool:
    """Whether a run may replace or remove what lies there: nothing, an empty file, or one that says
    we wrote it."""
    try:
        with open(path, "rb", opener=regular_only) as file:
            start = file.read(1024)
    except OSError as error:
        return isinstance(error, (FileNotFoundError, NotADirectoryError))
    is_empty = not start.strip()
    return is_empty or start.startswith(_FIRST_BYTES) or any(mark in start for mark in _MARKS)


def check_ours(paths: Iterable[Path]) -> None:
    """UserError, before any work, for a file that would be replaced and that no run wrote."""
    for path in paths:
        if not (path.is_dir() or is_ours(path)):
            raise UserError(
                f"{path} was not written by nnunet_nacl and would be lost; move or rename it."
            )


def check_folder(folder: Path, holds: str) -> None:
    """UserError unless it is a folder; ``holds`` says of what, for whoever gave another path."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {what}; give the folder that holds {holds}.")


def is_file_name(name: str) -> bool:
    """Whether a text can be the name of a file in a folder, so that joined to the folder it leads
    nowhere else."""
    if name in ("", ".", ".."):
        return False
    return not any(separator in name for separator in ("/", "\0", os.sep))


def lies_inside(path: Path, folder: Path) -> bool:
    """Whether a path, which a document may have named, is a file in a folder, wherever the links in
    its way lead."""
    if not os.path.isfile(path):
        return False
    real_parent = Path(os.path.realpath(path.parent))
    return real_parent.is_relative_to(os.path.realpath(folder))


def regular_only(path: str, flags: int) -> int:
    """An ``opener`` of :func:`open` that takes no pipe or device, which may never end; OSError, at
    once, instead."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder, open() itself says it
        os.close(descriptor)
        raise OSError(errno.ESPIPE, "a pipe or device, not a file", path)
    return descriptor


class Digest(Protocol):
    """What computes a digest block by block, as the objects of hashlib do."""

    def update(self, data: bytes, /) -> object:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """Of all bytes so far."""


def checksum(path: Path, digest: Digest | None = None) -> str:
    """Hexadecimal SHA-256 of a file, or what another of hashlib's objects gives; OSError if it
    cannot be read."""
    if digest is None:
        digest = hashlib.sha256()
    with open(path, "rb", opener=regular_only) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def to_json_text(value: object) -> str:
    """JSON with one entry a line but lists of numbers in one; NaN becomes null, so that any JSON
    reader takes it."""
    return _format(value, "") + "\n"


def _format(value: object, indent: str) -> str:
    """JSON of a value whose first line is indented already."""
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    inner = indent + "  "
    if isinstance(value, dict) and value:
        entries = [
            f"{inner}{json.dumps(str(key))}: {_format(item, inner)}" for key, item in value.items()
        ]
        return _join_lines("{", entries, indent + "}")
    if isinstance(value, (list, tuple)):
        items = [_format(item, inner) for item in value]
        if any(isinstance(item, dict) for item in value):
            return _join_lines("[", [inner + item for item in items], indent + "]")
        return "[" + ", ".join(items) + "]"
    return json.dumps(value)


def _join_lines(first: str, entries: Sequence[str], last: str) -> str:
    return "\n".join([first, ",\n".join(entries), last])
