"""Which files a run may replace or remove: those that a run wrote, as their digests say.

Files of others stay. The record of a case names the files that were written of it, with their
digests, and is saved last. Files get their names before that, so a pending record with the digests
of what is about to get its name is written first: a run that was killed in between can be run
again, and knows its files. What lies there with another content, such as labels that were corrected
in place, is a file of others.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from pydantic import InstanceOf

import nnunet_nacl
from nnunet_nacl.cases.record import record_path
from nnunet_nacl.cases.record_file import read_header
from nnunet_nacl.cases.record_key import FileKey, file_key, is_same_content, renamed_key
from nnunet_nacl.utilities.errors import UserError, describe, some
from nnunet_nacl.utilities.files import (
    is_ours,
    lies_inside,
    regular_only,
    temporary_folder,
    to_json_text,
    write_atomically,
)
from nnunet_nacl.utilities.json_files import decode

_LONGEST_NAME = 255
"""Bytes of a file's name, on any usual file system."""

Digests = dict[str, list[FileKey]]
"""By file name in a folder, with / between names, all that runs have written there."""


def check_no_others(
    paths: Sequence[Path], instead: str = "move them away, or choose another [[output]]"
) -> None:
    """UserError, before any work, where there are any ``paths``, which are files of others.

    ``instead`` says what to do about them.
    """
    if paths:
        listed = some([str(path) for path in paths])
        raise UserError(
            f"{listed}: not written by nnunet_nacl, or changed since, and would be lost; {instead}."
        )


class OwnedFiles:
    """Files in a folder that only runs write, by their digests.

    They get their names, and are removed, through this.

    Args:
        folder: Where they lie; file names start from it.
        pending: File that names them until what lists them, such as a record, has been saved.
        known: By file name all that runs have written there, as that list and the pending record
            say.
        replace_others: Replace and remove files of others too.

    Attributes:
        written: What got its name through this object, by file name.
    """

    def __init__(
        self, folder: Path, pending: Path, known: Digests, *, replace_others: bool = False
    ) -> None:
        self.folder = folder
        self.written: dict[str, FileKey] = {}
        self._pending = pending
        self._known = {file_name: list(keys) for file_name, keys in known.items()}
        self._replace_others = replace_others

    @property
    def known_names(self) -> list[str]:
        """Names of all files that runs have written."""
        return list(self._known)

    def others(self, file_names: Iterable[str]) -> list[Path]:
        """What has these names and was not written by a run.

        Nothing where files of others are replaced too.
        """
        if self._replace_others:
            return []
        return [self.folder / file_name for file_name in file_names if not self._is_ours(file_name)]

    def in_the_way(self, file_names: Iterable[str]) -> list[Path]:
        """What must be moved away before files get these names.

        Those are files of others, also where the pending record goes.
        """
        others = self.others(file_names)
        if not is_ours(self._pending):
            others.append(self._pending)
        return others

    def rename(self, staged: Mapping[Path, str]) -> None:
        """Give finished files their names, in this order.

        Raises:
            UserError: A file of others has one of the names: then none is renamed. Or the disk
                is full.
            OSError: A file cannot be renamed.
        """
        check_no_others(self.in_the_way(staged.values()))
        keys = {file_name: file_key(path) for path, file_name in staged.items()}
        for file_name, key in keys.items():
            self._known.setdefault(file_name, []).append(key)
        self._save_pending()
        for path, file_name in staged.items():
            os.replace(path, self.folder / file_name)
            self.written[file_name] = renamed_key(keys[file_name], self.folder / file_name)

    @contextlib.contextmanager
    def staging(self, file_name: str) -> Iterator[Path]:
        """A temporary folder for the file of this name, and for others beside it.

        At the block's end, when all are whole, they get their names. Probabilities (npz) get
        theirs last: where they lie, all others do.

        Raises:
            UserError: A file of others has one of the names; or the block raised OSError, such
                as no space.
        """
        path = self.folder / file_name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary_folder(path.parent) as work:  # nnU-Net does not look into folders
                yield work
                names = sorted(
                    (file.name for file in work.iterdir()),
                    key=lambda name: (name.endswith(".npz"), name),
                )
                self.rename(
                    {work / name: str(PurePosixPath(file_name).with_name(name)) for name in names}
                )
        except OSError as error:
            raise UserError(describe(error, path, "cannot be written")) from None

    def remove(self, file_name: str) -> None:
        """Remove a file, and folders that are left empty.

        Files of others stay, and so does what lies outside.
        """
        path = self.folder / file_name
        if self.others([file_name]) or not lies_inside(path, self.folder):
            return
        path.unlink()
        for parent in PurePosixPath(file_name).parents[:-1]:
            with contextlib.suppress(OSError):  # other files are there
                (self.folder / parent).rmdir()

    def settle(self, listed: Iterable[str]) -> None:
        """Once their list is saved: remove what earlier runs wrote that is not ``listed``.

        The pending record is removed, too.
        """
        for file_name in self._known.keys() - set(listed):
            self.remove(file_name)
        if is_ours(self._pending):
            self._pending.unlink(missing_ok=True)

    def _is_ours(self, file_name: str) -> bool:
        """Whether nothing of others lies there: nothing, an empty file, or what a run wrote."""
        path = self.folder / file_name
        known = self._known.get(file_name, [])
        try:
            key = file_key(path, known[0] if known else None)
        except (FileNotFoundError, NotADirectoryError):
            return not path.is_symlink()  # a link that leads nowhere is a file of others
        except OSError:  # a folder, or it cannot be read
            return False
        return key["size"] == 0 or any(is_same_content(key, earlier) for earlier in known)

    def _save_pending(self) -> None:
        content = {
            "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
            "meaning": "files that a run has written, or was about to write, and not listed yet",
            "files": self._known,
        }
        write_atomically(self._pending, to_json_text(content))


def read_pending(path: Path) -> Digests:
    """What a pending record names; nothing where there is none, or it is damaged."""
    try:
        with open(path, "rb", opener=regular_only) as file:
            files = json.load(file)["files"]  # names of files need not be UTF-8
        return decode(dict[InstanceOf[str], list[FileKey]], files, path)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def pending_path(records: Path, case: str) -> Path:
    """Where the pending record of a case lies, beside its record."""
    return records / f"{case}.json"


def files_of_case(
    folder: Path, records: Path, case: str, *, replace_others: bool = False
) -> OwnedFiles:
    """The files of a case in a folder of segmentations.

    They are known by its record, of any version, and its pending record. Whoever made these may
    have put anything into them: a file must lie in the folder and be named for the case and no
    other, or lie in a folder of its name; what has no name that a file can have is passed over.
    """
    pending = pending_path(records, case)
    known: Digests = {
        file_name: [key] for file_name, key in _files_in_record(record_path(records, case)).items()
    }
    for file_name, keys in read_pending(pending).items():
        known.setdefault(file_name, []).extend(keys)
    known = {file_name: keys for file_name, keys in known.items() if _is_named_for(case, file_name)}
    return OwnedFiles(folder, pending, known, replace_others=replace_others)


def _files_in_record(path: Path) -> dict[str, FileKey]:
    """By file name the files that a record of any version names; none without a readable record."""
    try:
        header = read_header(path)
        files = decode(dict[InstanceOf[str], FileKey], header.get("files", {}), path)
        # a validation case that an earlier version predicted
        if not files and header.get("made_by"):
            segmentation = decode(FileKey, header["key"]["files"]["segmentation"], path)
            files = {Path(segmentation["path"]).name: segmentation}
    except Exception:  # NumPy and JSON raise anything on broken bytes
        return {}
    return {file_name.replace(os.sep, "/"): key for file_name, key in files.items()}


def is_damaged(record: Path) -> bool:
    """Whether the record of a case lies there, and cannot be read: nobody knows then what a run has
    written of it."""
    try:
        read_header(record)
    except FileNotFoundError:
        return False
    except Exception:  # NumPy and JSON raise anything on broken bytes
        return True
    return False


def _is_named_for(case: str, file_name: str) -> bool:
    path = PurePosixPath(file_name)
    if path.is_absolute() or ".." in path.parts or "\0" in file_name:
        return False
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
        return False
    if len(path.parts) == 1:  # scan_1.nii.gz is of another case than scan
        return path.name.startswith(f"{case}.")
    # DICOM objects, and the sensitive labels of regions, have names behind the case's
    return path.name.startswith((f"{case}.", f"{case}_")) or path.parent.name == case
