"""Which results of an earlier, finished or killed run still hold."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from nnunet_nacl.evaluation.cases import CaseFiles, Labels
from nnunet_nacl.evaluation.document import SCHEMA_VERSION, case_from_json, case_to_json
from nnunet_nacl.evaluation.files import to_json_text, write_atomically
from nnunet_nacl.evaluation.results import CaseResult, Settings

__all__ = ["CaseCache", "signature"]

_COMPUTATION = 1  # raise it when a number changes for the same files


def signature(files: CaseFiles, labels: Labels, settings: Settings) -> dict[str, Any]:
    """Identifies what a result depends on: the files' sizes and times, the labels, and the settings."""

    def stamp(path: Path | None) -> list[int] | None:
        if path is None:
            return None
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]

    return {
        "computation": _COMPUTATION,
        "probabilities": stamp(files.probabilities),
        "reference": stamp(files.reference),
        "segmentation": stamp(files.segmentation),
        "labels": [list(v) if isinstance(v, tuple) else v for v in labels.values] + [labels.ignore_label],
        "settings": {key: value for key, value in settings.to_json().items() if key != "paper"},
    }


class CaseCache:
    """Results by case in an earlier calibration.json and in the folder where an unfinished run left its cases.

    Args:
        output: Path of calibration.json. Finished cases lie in ``<output>.partial/`` until it is written.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._partial = output.with_name(output.name + ".partial")
        self._entries: dict[str, dict[str, Any]] = {}
        for entry in self._read(output).get("metric_per_case", []):
            self._remember(entry)
        if self._partial.is_dir():
            for path in sorted(self._partial.glob("*.json")):
                self._remember(self._read(path))

    def get(self, case: str, wanted: dict[str, Any], *, paper: bool) -> CaseResult | None:
        """The earlier result, if it came from the same files, labels and settings."""
        entry = self._entries.get(case)
        if entry is None or entry.get("signature") != wanted:
            return None
        try:
            result = case_from_json(entry)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None  # from another version or edited by hand: compute it again
        if paper and any(structure.hd95_voxels is None for structure in result.structures.values()):
            return None
        return result

    def put(self, result: CaseResult, channels: dict[str, int], regions: bool) -> None:
        """Save one finished case, so that a killed run need not do it again."""
        path = self._partial / f"{result.case}.json"
        entry = {"schema_version": SCHEMA_VERSION} | case_to_json(result, channels, regions)
        write_atomically(path, to_json_text(entry))

    def clear(self) -> None:
        """Remove the saved cases, once calibration.json holds them."""
        if self._partial.is_dir():
            for path in self._partial.glob("*.json"):
                path.unlink(missing_ok=True)
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
