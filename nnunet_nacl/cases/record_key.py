"""The key of a record: everything that it depends on, by which an earlier one is known to hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import InstanceOf
from typing_extensions import TypedDict

from nnunet_nacl.cases.file_key import FileKey, file_key


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
