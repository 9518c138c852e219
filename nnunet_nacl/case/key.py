"""What a record depends on: contents of files and settings, wherever the files lie and whenever they were written."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from nnunet_nacl.files import checksum, regular_only


class FileKey(TypedDict):
    """A file by its content; place, size and time only spare the reading.

    Attributes:
        path: Where it lay.
        size: In bytes.
        mtime_ns: When it was written.
        digest: Of its content.
    """

    path: str
    size: NonNegativeInt
    mtime_ns: int
    digest: str


class Key(TypedDict):
    """What a record depends on.

    Attributes:
        files: By name; None for a file that never was, such as probabilities of a case measured when it was predicted.
        settings: JSON values.
    """

    files: dict[str, FileKey | None]
    settings: dict[str, Any]


def make_key(files: Mapping[str, Path | None], settings: Mapping[str, Any], earlier: Key | None = None) -> Key:
    """The key of a case as it is now.

    Args:
        files: By name.
        settings: JSON values.
        earlier: The key of an earlier record. A file that is gone counts as it did there: deleted probabilities are no
            reason to measure again.

    Raises:
        OSError: A file cannot be read.
    """
    known = earlier["files"] if earlier else {}
    keys: dict[str, FileKey | None] = {}
    for name, path in files.items():
        try:
            keys[name] = None if path is None else file_key(path, known.get(name))
        except FileNotFoundError:
            keys[name] = known.get(name)
    return {"files": keys, "settings": dict(settings)}


def file_key(path: Path, earlier: FileKey | None = None) -> FileKey:
    """A file by its content; OSError if it cannot be read.

    Args:
        path: The file. Of an npz the checksum of its members stands in its directory, which alone is read.
        earlier: What was found before; its digest holds where place, size and time are the same.
    """
    status, place = path.stat(), os.path.abspath(path)
    size, mtime_ns = status.st_size, status.st_mtime_ns
    if earlier and (earlier["path"], earlier["size"], earlier["mtime_ns"]) == (place, size, mtime_ns):
        return earlier
    digest = npz_digest(path) if path.suffix == ".npz" else checksum(path, hashlib.blake2b(digest_size=16))
    return {"path": place, "size": size, "mtime_ns": mtime_ns, "digest": digest}


def npz_digest(path: Path) -> str:
    """The checksum of the probabilities in an npz file, from its directory; of a broken one, none."""
    try:
        with open(path, "rb", opener=regular_only) as file, zipfile.ZipFile(file) as archive:
            return f"{archive.getinfo('probabilities.npy').CRC:08x}"
    except Exception:  # zipfile raises many kinds on broken bytes; reading the file says what is wrong
        return ""


def same_contents(first: Key, second: Key) -> bool:
    """Whether two keys are of the same settings and the same contents of files."""

    def contents(key: Key) -> dict[str, tuple[int, str] | None]:
        return {name: file and (file["size"], file["digest"]) for name, file in key["files"].items()}

    return first["settings"] == second["settings"] and contents(first) == contents(second)
