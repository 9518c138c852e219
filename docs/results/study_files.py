"""The files of study/: their checksums, and which of them are read."""

from __future__ import annotations

import builtins
import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from unittest.mock import patch

from table_kinds import STUDY

from nnunet_nacl.files import write_atomically

SUMS = STUDY / "SHA256SUMS"
READ: set[Path] = set()
"""Files that were read since this process began: tables are kept, and their files then not read again."""


@contextmanager
def recorded() -> Iterator[None]:
    """Add each file that is opened meanwhile to ``READ``."""

    def opened(file, *arguments, **settings):
        if isinstance(file, (str, Path)):
            READ.add(Path(file).resolve())
        return real(file, *arguments, **settings)

    real = builtins.open
    with patch.object(builtins, "open", opened), patch.object(io, "open", opened):
        yield


def files() -> list[Path]:
    """All files but that of the checksums."""
    return sorted(path for path in STUDY.rglob("*") if path.is_file() and path != SUMS)


def checksums() -> str:
    """A line for each file, as sha256sum writes and checks them."""
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(STUDY).as_posix()}\n" for path in files()
    )


def write_checksums() -> None:
    """Renew the file of the checksums."""
    write_atomically(SUMS, checksums())


def changed_files() -> list[str]:
    """What differs from the checksums, each with the file's name."""
    old, new = (
        {name: value for value, name in (line.split("  ", 1) for line in text.splitlines())}
        for text in (SUMS.read_text(encoding="utf-8") if SUMS.is_file() else "", checksums())
    )
    problems = [f"study/{name}: missing" for name in old if name not in new]
    problems += [f"study/{name}: not in SHA256SUMS" for name in new if name not in old]
    return problems + [f"study/{name}: changed" for name in old if name in new and old[name] != new[name]]


def unread_files(excepted: Mapping[str, str]) -> list[str]:
    """Files that no table or claim has read.

    Args:
        excepted: Pattern of the end of a path -> who else reads such files.
    """
    unread = [path.relative_to(STUDY).as_posix() for path in files() if path not in READ]
    known = {path: pattern for path in unread for pattern in excepted if PurePath(path).match(pattern)}
    problems = [f"study/{path}: no table or claim reads it" for path in unread if path not in known]
    unused = [pattern for pattern in excepted if pattern not in known.values()]
    return problems + [f"exceptions.py: nothing uses the files '{pattern}'" for pattern in unused]
