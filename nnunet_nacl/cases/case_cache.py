"""Which results of an earlier, finished or killed run still hold."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from nnunet_nacl.cases.labels import Labels
from nnunet_nacl.cases.npz import array_checksum
from nnunet_nacl.cases.prediction_folder import CaseFiles
from nnunet_nacl.documents.document import FILE_NAME, SCHEMA_VERSION, case_from_json, case_to_json, check_output
from nnunet_nacl.documents.results import CaseResult, EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_writable, checksum, remove_leftovers, to_json_text, write_atomically
from nnunet_nacl.json_files import read_json

__all__ = [
    "PROBLEM",
    "CaseCache",
    "came_from",
    "is_current",
    "partial_folder",
    "problems_of_exports",
    "same_contents",
    "save_case",
    "signature",
]

PROBLEM = ".problem"
"""Ending of a file among the finished cases that says why one could not be measured when it was predicted."""

_COMPUTATION = 1  # raise it when a number changes for the same files
_NOT_MEASURED = ("paper", "hausdorff")  # settings that choose among what is known of every case
_FILES = {"probabilities": "probabilities_file", "reference": "reference_file", "segmentation": "prediction_file"}


def signature(
    files: CaseFiles, labels: Labels, settings: EvaluationSettings, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Identifies what a result depends on: the contents of the files, the labels, and the settings.

    Args:
        files: Files of a case.
        labels: What they may hold.
        settings: What is measured.
        known: An earlier signature of the case. A file that lies where it lay, with size and time unchanged, has the
            checksum that stands there, and is not read; nor need probabilities exist that it knows. Those of a case
            that was measured when it was predicted never did: None stands for them.

    Raises:
        OSError: A file cannot be read.
    """
    known = known or {}
    result = {
        "computation": _COMPUTATION,
        "labels": [*labels.listed, labels.ignore_label],
        "settings": {key: value for key, value in vars(settings).items() if key not in _NOT_MEASURED},
    }
    for kind in _FILES:
        path, hashed = getattr(files, kind), array_checksum if kind == "probabilities" else _checksum
        try:
            result[kind] = path and _identity(path, hashed, known.get(kind))
        except FileNotFoundError:
            result[kind] = known.get(kind)
    return result if files.derived is None else result | {"derived": files.derived}


def is_current(result: CaseResult, files: CaseFiles, labels: Labels, settings: EvaluationSettings) -> bool:
    """Whether a result need not be measured again.

    One that lacks what this version measures must be, as long as the probabilities are there.

    Raises:
        OSError: A file cannot be read.
    """
    return _is_whole(result, files) and came_from(result, files, labels, settings)


def came_from(result: CaseResult, files: CaseFiles, labels: Labels, settings: EvaluationSettings) -> bool:
    """Whether a result came from the same contents of files, labels and settings, wherever the files lie.

    Raises:
        OSError: A file cannot be read.
    """
    known = _signature_in({key: getattr(result, key) for key in ("signature", *_FILES.values())})
    return same_contents(known, signature(files, labels, settings, known))


def same_contents(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two signatures are of the same contents, wherever the files lie."""
    return _contents(first) == _contents(second)


def _is_whole(result: CaseResult, files: CaseFiles) -> bool:
    return bool(result.chosen) or not files.probabilities.is_file()


def _identity(path: Path, hashed: Callable[[Path], Any], known: Any) -> dict[str, Any]:
    status = path.stat()
    place = {"path": os.path.abspath(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    untouched = isinstance(known, dict) and place.items() <= known.items()
    return place | {"checksum": known.get("checksum") if untouched else hashed(path)}


def _checksum(path: Path) -> str:
    return checksum(path, hashlib.blake2b(digest_size=8))


def _contents(signature: Mapping[str, Any]) -> dict[str, Any]:
    """A signature without the places and times of the files: those may be moved and copied."""
    files = {kind: value for kind in _FILES if isinstance(value := signature.get(kind), dict)}
    return {**signature, **{kind: (value.get("size"), value.get("checksum")) for kind, value in files.items()}}


def partial_folder(output: Path) -> Path:
    """Where the finished cases lie until ``output``, a calibration.json, is written."""
    return output.with_name(output.name + ".partial")


def save_case(output: Path, result: CaseResult, channels: Mapping[str, int], regions: bool) -> None:
    """Save one finished case for whoever writes ``output``; UserError where that is not possible."""
    entry = {"schema_version": SCHEMA_VERSION} | case_to_json(result, channels, regions)
    write_atomically(partial_folder(output) / f"{result.case}.json", to_json_text(entry))


def problems_of_exports(folder: Path) -> dict[str, str]:
    """By case what was wrong when it was exported and should have been measured."""
    found = sorted(partial_folder(folder / FILE_NAME).glob(f"*{PROBLEM}"))
    return {path.stem: path.read_text(encoding="utf-8", errors="replace") for path in found if path.is_file()}


class CaseCache:
    """Results by case in an earlier calibration.json and in the folder where an unfinished run left its cases.

    A result holds as long as the contents of the files and the settings that it came from are the same, wherever the
    files lie. Probabilities that have been removed since, to save space, are no reason to give it up: the segmentation
    and the ground truth tell.

    Args:
        output: Path of calibration.json. Finished cases lie in ``<output>.partial/`` until it is written.

    Raises:
        UserError: ``output`` or that folder cannot be written, or ``output`` is something else of the user's.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._partial = partial_folder(output)
        entries = list(check_output(output))
        if self._partial.exists():
            check_writable(self._partial / "case.json")
            for path in sorted(self._partial.glob("*.json")):
                with contextlib.suppress(UserError):  # damaged: measured again
                    entry = read_json(path) if path.is_file() else None
                    if isinstance(entry, dict) and entry.pop("schema_version", None) == SCHEMA_VERSION:
                        entries.append(entry)
        self._entries = {
            entry["case"]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("case"), str)
        }

    @property
    def cases(self) -> Set[str]:
        """Names of the cases of which something is known."""
        return self._entries.keys()

    def get(
        self, files: CaseFiles, labels: Labels, settings: EvaluationSettings, channels: Mapping[str, int]
    ) -> tuple[CaseResult | None, dict[str, Any]]:
        """The earlier result, if it came from the same contents, labels and settings; and the signature as it is now.

        Raises:
            OSError: A file cannot be read.
        """
        entry = self._entries.get(files.case, {})
        known = _signature_in(entry)
        now = signature(files, labels, settings, known)
        try:
            if same_contents(known, now):
                result = case_from_json(entry, channels, labels.regions, settings)
                return (result if _is_whole(result, files) else None), now
        except ValueError:
            pass  # from another version or edited by hand: measure it again
        return None, now

    def put(self, result: CaseResult, channels: Mapping[str, int], regions: bool) -> None:
        """Save one finished case, so that a killed run need not do it again."""
        save_case(self._output, result, channels, regions)

    def clear(self) -> None:
        """Remove the saved cases, once calibration.json holds them."""
        if self._partial.is_dir():
            for path in (*self._partial.glob("*.json"), *self._partial.glob(f"*{PROBLEM}")):
                path.unlink(missing_ok=True)
            remove_leftovers(self._partial)
            with contextlib.suppress(OSError):
                self._partial.rmdir()


def _signature_in(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The signature in a case's entry, as this version would have written it; empty if there is none.

    The first version kept sizes and times alone there, the paths beside it; a later one may have further settings.
    """
    known = entry.get("signature")
    if not isinstance(known, dict):
        return {}
    known = dict(known)
    if isinstance(known.get("settings"), dict):
        settings = EvaluationSettings.__dataclass_fields__
        known["settings"] = {key: value for key, value in known["settings"].items() if key in settings}
    for kind, key in _FILES.items():
        if isinstance(known.get(kind), list) and len(known[kind]) == 2 and isinstance(entry.get(key), str):
            size, time = known[kind]
            known[kind] = {"path": os.path.abspath(entry[key]), "size": size, "mtime_ns": time, "checksum": "unknown"}
    return known
