"""The key of a record: everything that it depends on, by which an earlier one is known to hold.

It names files by their contents; all else that it says of a file only spares reading it again.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import InstanceOf, NonNegativeInt
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.utilities.files import checksum, regular_only


class FileKey(TypedDict):
    """A file by its content: size and digest. All else only spares the reading.

    Records of earlier versions have neither ``inode`` nor ``ctime_ns``: such a file is read once
    more.
    """

    path: InstanceOf[str]  # names of files need not be UTF-8
    size: NonNegativeInt
    mtime_ns: int
    digest: str
    inode: NotRequired[int]
    ctime_ns: NotRequired[int]


def file_key(path: Path, earlier: FileKey | None = None) -> FileKey:
    """A file by its content; OSError if it cannot be read.

    Of an npz only the list of its members is read, which holds their checksums.
    What was found ``earlier`` holds where path, size, both times and the inode are the same. Size
    and modification time alone do not tell two files apart: archives with fixed dates give many
    files the same time, and `mv` keeps it. A file system whose inodes change costs a reading, and
    no more, since only size and digest decide.
    """
    key = _without_digest(path)
    if earlier is not None and {**earlier, "digest": ""} == key:
        return earlier
    key["digest"] = digest_of(path)
    return key


def renamed_key(key: FileKey, path: Path) -> FileKey:
    """The key of a file that has just got another name, without reading it again.

    OSError if it is not there.
    """
    renamed = _without_digest(path)
    renamed["digest"] = key["digest"]
    return renamed


def is_same_content(first: FileKey, second: FileKey) -> bool:
    """Whether two files hold the same.

    A broken npz has no digest; it never counts as the same as another file.
    """
    return bool(first["digest"]) and (first["size"], first["digest"]) == (
        second["size"],
        second["digest"],
    )


def _without_digest(path: Path) -> FileKey:
    status = path.stat()
    return FileKey(
        path=os.path.abspath(path),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        digest="",
        inode=status.st_ino,
        ctime_ns=status.st_ctime_ns,
    )


def digest_of(path: Path) -> str:
    """What tells a file's content from others of the same size; of a broken npz empty.

    OSError if it cannot be read.
    """
    if path.suffix == ".npz":
        return _npz_digest(path)
    return checksum(path, hashlib.blake2b(digest_size=16))


def _npz_digest(path: Path) -> str:
    """The checksum of the probabilities in an npz file, from its directory; empty if broken."""
    try:
        with open(path, "rb", opener=regular_only) as file, zipfile.ZipFile(file) as archive:
            return f"{archive.getinfo('probabilities.npy').CRC:08x}"
    except Exception:
        # zipfile raises many kinds on broken bytes; reading the file says what is wrong
        return ""


def lacks_fields(earlier: Mapping[str, FileKey | None], now: Mapping[str, FileKey | None]) -> bool:
    """Whether any file has an inode in the keys of ``now``, and had none in the ``earlier`` ones.

    Then a version that kept no inodes made the earlier keys, which should be written anew.
    """
    for name, key in now.items():
        before = earlier.get(name)
        if before is not None and key is not None and "inode" in key and "inode" not in before:
            return True
    return False


class Key(TypedDict):
    """What a record depends on, wherever files lie and whenever they were written.

    Attributes:
        files: Digests of the contents by what a file is; None for one that never was.
        settings: Networks, map and what is measured, in JSON values.
    """

    files: dict[InstanceOf[str], FileKey | None]
    settings: dict[str, object]


def make_key(
    files: Mapping[str, Path | None], settings: Mapping[str, object], earlier: Key | None = None
) -> Key:
    """The key of a case as it is now.

    A file that is gone counts as it did in the key of an ``earlier`` record: deleted probabilities
    are no reason to measure again.

    Raises:
        OSError: A file cannot be read.
    """
    earlier_files = earlier["files"] if earlier else {}
    keys: dict[str, FileKey | None] = {}
    for name, path in files.items():
        if path is None:
            keys[name] = None
            continue
        try:
            keys[name] = file_key(path, earlier_files.get(name))
        except FileNotFoundError:
            keys[name] = earlier_files.get(name)
    return {"files": keys, "settings": dict(settings)}


def same_contents(first: Key, second: Key) -> bool:
    """Whether two keys are of the same settings and the same contents of files."""
    return first["settings"] == second["settings"] and _contents(first) == _contents(second)


def _contents(key: Key) -> dict[str, tuple[int, str] | None]:
    """By what a file is its size and digest, whatever its name and times."""
    contents: dict[str, tuple[int, str] | None] = {}
    for name, file in key["files"].items():
        contents[name] = None if file is None else (file["size"], file["digest"])
    return contents
