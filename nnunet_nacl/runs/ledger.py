"""What is finished, and whether it is still of the same files: by their content, not by their time.

Every long run keeps a ledger: one small JSON file a finished case, written last. An entry holds as long as the content
of the files that it came from, the settings, and what was written are the same, wherever the files lie. So a run that
was killed goes on where it was, and folders may be moved and copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError, one_line
from nnunet_nacl.files import checksum, is_file_name, lies_inside, remove_leftovers, to_json_text, write_atomically
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.nnunet.image_files import array_checksum, spacing_file

PROBLEM = ".problem"
"""Ending of a file in a ledger that says why a case could not be done."""

SIGNATURE = "signature"
WRITTEN = "written"


def sign(
    files: Mapping[str, Path | None], settings: Mapping[str, Any], earlier: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a result depends on: settings, and the content of files.

    Args:
        files: By their name in the signature. Of an npz the checksum of its probabilities stands in its directory.
        settings: JSON values.
        earlier: A signature of before. A file that lies where it lay, with size and time unchanged, has the checksum
            that stands there, and is not read; nor need a file exist that it knows. The probabilities of a case that
            was measured when it was predicted never did: None stands for them.

    Raises:
        OSError: A file cannot be read.
    """
    earlier, result = earlier or {}, dict(settings)
    spacings = {f"{name}, spacing": at for name, path in files.items() if path and (at := spacing_file(path))}
    for name, path in {**files, **spacings}.items():
        try:
            result[name] = path and identify(path, earlier.get(name))
        except FileNotFoundError:
            result[name] = earlier.get(name)
    return result


def identify(path: Path, earlier: Any = None) -> dict[str, Any]:
    """Place, size, time and checksum of a file; OSError if it cannot be read.

    Args:
        path: The file.
        earlier: What was found before: the checksum is taken from it where place, size and time are the same.
    """
    status = path.stat()
    place = {"path": os.path.abspath(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    if isinstance(earlier, Mapping) and place.items() <= earlier.items() and "checksum" in earlier:
        return place | {"checksum": earlier["checksum"]}
    if path.suffix == ".npz":
        return place | {"checksum": array_checksum(path)}
    return place | {"checksum": checksum(path, hashlib.blake2b(digest_size=8))}


def same_contents(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two signatures are of the same settings and the same contents, wherever the files lie."""
    return {**first, **contents(first)} == {**second, **contents(second)}


def contents(signature: Mapping[str, Any]) -> dict[str, tuple[int | None, str]]:
    """Size and checksum of each file of a signature, without places and times: files may be moved and copied."""
    files = {name: value for name, value in signature.items() if isinstance(value, Mapping) and "checksum" in value}
    return {name: (value.get("size"), value["checksum"]) for name, value in files.items()}


def _is_entry(entry: Any) -> bool:
    """Whether this is an entry, and its paths are relative and lead down; a case whose entry is damaged is done again.

    By hand, since the package that decodes other documents takes as long to load as a small folder to review.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("case"), str) or not is_file_name(entry["case"]):
        return False
    signature, written = entry.get(SIGNATURE, {}), entry.get(WRITTEN, {})
    if not isinstance(signature, dict) or not isinstance(written, dict):
        return False
    return not any(os.path.isabs(name) or ".." in Path(name).parts for name in written)


class Ledger:
    """The entries of a run's cases, one file a case in a folder of its own.

    Whoever made the folder may have put anything into the entries: nothing outside it, or outside the folder of what
    was written, is read or removed because an entry names it.

    Args:
        folder: Of the entries, made when the first is written; None keeps nothing.
        entries: Entries that stand elsewhere, as in an earlier run's document; a file of the same case comes first.

    Raises:
        UserError: The folder is a link: what lies there is no run's.
    """

    def __init__(self, folder: Path | None, entries: Iterable[Any] = ()) -> None:
        if folder is not None and folder.is_symlink():
            raise UserError(f"{folder} is a link, and files are removed in it; remove the link.")
        self.folder = folder
        self._entries = {entry["case"]: entry for entry in entries if _is_entry(entry)}
        for path in filter(Path.is_file, self._files(".json")):
            with contextlib.suppress(UserError):  # damaged
                entry = read_dict(path)
                if _is_entry(entry) and entry["case"] == path.stem:
                    self._entries[path.stem] = entry

    @property
    def cases(self) -> Set[str]:
        """Names of the cases of which something is known."""
        return self._entries.keys()

    def entry(self, case: str) -> dict[str, Any]:
        """What is known of a case; empty if nothing is."""
        return self._entries.get(case, {})

    def finished(self, case: str, signature: Mapping[str, Any], output: Path | None = None) -> dict[str, Any] | None:
        """The entry of a case, if it came from the same contents and settings, and what was written is still there.

        Args:
            case: Its name.
            signature: As it is now, see :func:`sign`.
            output: Folder of the files that the entry says were written; None: it wrote none.
        """
        entry = self.entry(case)
        known = entry.get(SIGNATURE)
        if not isinstance(known, dict) or not same_contents(known, signature):
            return None
        if output is None:
            return entry
        try:
            now = {name: identify(path, entry[WRITTEN][name]) for name, path in self.written(case, output).items()}
            return entry if same_contents(now, entry[WRITTEN]) else None
        except (KeyError, OSError):
            return None  # never finished, or gone

    def written(self, case: str, output: Path) -> dict[str, Path]:
        """The files that the entry of a case says were written, by their name in it; of these what lies in ``output``.

        A path that a link leads out of ``output`` does not.
        """
        paths = {name: output / name for name in self.entry(case).get(WRITTEN, {})}
        return {name: path for name, path in paths.items() if lies_inside(path, output)}

    def remember(
        self, case: str, entry: Mapping[str, Any], written: Iterable[Path] = (), output: Path | None = None
    ) -> None:
        """Save the entry of a finished case; UserError where it cannot be written.

        Args:
            case: Its name.
            entry: With its ``signature``.
            written: Files of the case.
            output: The folder that they lie in, at any depth.
        """
        files = {} if output is None else {WRITTEN: {str(path.relative_to(output)): identify(path) for path in written}}
        self._entries[case] = made = {"case": case, **entry, **files}
        if self.folder is not None:
            write_atomically(self.folder / f"{case}.json", to_json_text(made))
            self.remember_problem(case, "")

    def remember_problem(self, case: str, problem: str) -> None:
        """Say why a case could not be done; empty: an earlier problem is none any more. UserError if it cannot."""
        path = self.folder and self.folder / f"{case}{PROBLEM}"
        if path and problem:
            with contextlib.suppress(UnicodeError):
                write_atomically(path, one_line(problem))
        elif path:
            path.unlink(missing_ok=True)

    @property
    def problems(self) -> dict[str, str]:
        """By case why it could not be done, as some run or process found."""
        paths = filter(Path.is_file, self._files(PROBLEM))
        return {path.stem: path.read_text(encoding="utf-8", errors="replace") for path in paths}

    def forget(self, case: str) -> None:
        """What is known of a case."""
        self._entries.pop(case, None)
        if self.folder is not None:
            for ending in (".json", PROBLEM):
                (self.folder / f"{case}{ending}").unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the files, once a document holds the entries."""
        if self.folder is not None and self.folder.is_dir():
            for path in (*self._files(".json"), *self._files(PROBLEM)):
                path.unlink(missing_ok=True)
            remove_leftovers(self.folder)
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def _files(self, ending: str) -> list[Path]:
        return sorted(self.folder.glob(f"*{ending}")) if self.folder is not None else []
