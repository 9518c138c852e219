"""Which results of an earlier, finished or killed run still hold."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Set
from pathlib import Path
from typing import Any

from nnunet_nacl.evaluation.cases import CaseFiles
from nnunet_nacl.evaluation.document import SCHEMA_VERSION, case_from_json, case_to_json
from nnunet_nacl.evaluation.labels import Labels
from nnunet_nacl.evaluation.results import CaseResult, EvaluationSettings
from nnunet_nacl.files import check_writable, remove_leftovers, to_json_text, write_atomically

__all__ = ["CaseCache", "signature"]

_COMPUTATION = 1  # raise it when a number changes for the same files
_NOT_MEASURED = ("paper", "hausdorff")  # settings that choose among what is known of every case


def signature(files: CaseFiles, labels: Labels, settings: EvaluationSettings) -> dict[str, Any]:
    """Identifies what a result depends on: the files' sizes and times, the labels, and the settings."""

    def stamp(path: Path | None) -> list[int] | None:
        try:
            status = None if path is None else path.stat()
        except FileNotFoundError:
            status = None
        return None if status is None else [status.st_size, status.st_mtime_ns]

    return {
        "computation": _COMPUTATION,
        "probabilities": stamp(files.probabilities),
        "reference": stamp(files.reference),
        "segmentation": stamp(files.segmentation),
        "labels": [list(v) if isinstance(v, tuple) else v for v in labels.values] + [labels.ignore_label],
        "settings": {key: value for key, value in settings.to_json().items() if key not in _NOT_MEASURED},
    }


class CaseCache:
    """Results by case in an earlier calibration.json and in the folder where an unfinished run left its cases.

    A result holds as long as the files and settings that it came from are the same. Probabilities that have been
    removed since, to save space, are no reason to give it up: the segmentation and the ground truth tell.

    Args:
        output: Path of calibration.json. Finished cases lie in ``<output>.partial/`` until it is written.

    Raises:
        UserError: That folder is there but cannot be written.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._partial = output.with_name(output.name + ".partial")
        self._entries: dict[str, dict[str, Any]] = {}
        for entry in self._read(output).get("metric_per_case", []):
            self._remember(entry)
        if self._partial.exists():
            check_writable(self._partial / "case.json")
            for path in sorted(self._partial.glob("*.json")):
                self._remember(self._read(path))

    @property
    def cases(self) -> Set[str]:
        """Names of the cases of which something is known."""
        return self._entries.keys()

    def get(self, case: str, wanted: dict[str, Any], settings: EvaluationSettings) -> CaseResult | None:
        """The earlier result, if it came from the same files, labels and settings."""
        entry = self._entries.get(case)
        known = entry and entry.get("signature")
        if not isinstance(known, dict):
            return None
        if wanted["probabilities"] is None:
            known = known | {"probabilities": None}
        if known != wanted:
            return None
        try:
            return case_from_json(entry).under(settings)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None  # from another version or edited by hand: compute it again

    def put(self, result: CaseResult, channels: dict[str, int], regions: bool) -> None:
        """Save one finished case, so that a killed run need not do it again."""
        entry = {"schema_version": SCHEMA_VERSION} | case_to_json(result, channels, regions)
        write_atomically(self._partial / f"{result.case}.json", to_json_text(entry))

    def clear(self) -> None:
        """Remove the saved cases, once calibration.json holds them, and what killed runs left."""
        remove_leftovers(self._output.parent)
        if self._partial.is_dir():
            for path in self._partial.glob("*.json"):
                path.unlink(missing_ok=True)
            remove_leftovers(self._partial)
            with contextlib.suppress(OSError):
                self._partial.rmdir()

    def _remember(self, entry: Any) -> None:
        if isinstance(entry, dict) and isinstance(entry.get("case"), str):
            self._entries[entry["case"]] = entry

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
            return {}
        return content if isinstance(content.get("metric_per_case", []), list) else {}
