"""calibration.json: what it holds, and reading it back. Format: docs/reference/files.md. Its cases: :mod:`.results`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import computed_field
from typing_extensions import TypedDict

import nnunet_nacl
from nnunet_nacl.case.results import MASKS, CaseResult, EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_writable, to_json_text, write_atomically
from nnunet_nacl.json_files import Number, decode, encode, read_json
from nnunet_nacl.numbers.binning import BinStats
from nnunet_nacl.numbers.calibration_error import mask_metrics, nanmean

FILE_NAME = "calibration.json"
SCHEMA_VERSION = 3  # keys may be added within a version
_AGAIN = "evaluate again"


class NamedChannel(TypedDict):
    """A structure's name, and the channel of its probabilities."""

    name: str
    channel: int


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over the cases where a value is defined, by mask and structure too, and how many cases have a voxel."""
    result: dict[str, Any] = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        if isinstance(first, dict) and name != "distances":
            result[name] = _means(values)
        elif name not in ("n_voxels", "distances"):
            result[name] = nanmean(values)
    if "n_voxels" in rows[0]:
        result["n_cases"] = sum(row["n_voxels"] > 0 for row in rows)
    return result


def _undefined(cases: Sequence[CaseResult]) -> dict[str, dict[str, list[str]]]:
    result: dict[str, dict[str, list[str]]] = {"Dice": {}, "HD95_mm": {}, "calibration": {}}
    for case in cases:
        values = {("Dice", key): row.Dice for key, row in case.metrics.items()}
        values |= {("HD95_mm", key): row.HD95_mm for key, row in case.metrics.items()}
        values |= {("calibration", mask): row["ECE"] for mask, row in case.calibration.items()}
        for (name, key), value in values.items():
            if np.isnan(value):
                result[name].setdefault(key, []).append(case.case)
    return result


@dataclass(frozen=True)
class Evaluation:
    """calibration.json: all cases of one or more folders.

    Attributes:
        schema_version: Of this format.
        generated_by: Package and version.
        structures: By nnU-Net's key, background excluded.
        regions: Whether structures are sigmoid regions.
        settings: What was measured.
        problems: What was wrong with the cases that could not be evaluated, by name.
        metric_per_case: Results, in order.
        map_sha256: Of the map that the predictions were calibrated by; null where none is known.
        predicted_quality: How well predicted Dice holds; null where that was not measured.

    Raises:
        ValueError: Channels have gaps, or a case has other structures or bins.
    """

    schema_version: int = field(default=SCHEMA_VERSION, kw_only=True)
    generated_by: str = field(default=f"nnunet_nacl {nnunet_nacl.__version__}", kw_only=True)
    structures: dict[str, NamedChannel]
    regions: bool
    settings: EvaluationSettings
    problems: dict[str, str]
    metric_per_case: list[CaseResult]
    map_sha256: str | None = None
    predicted_quality: dict[str, Any] | None = None

    @computed_field
    @cached_property
    def n_cases(self) -> int:
        """Cases that were measured."""
        return len(self.cases)

    @computed_field
    @cached_property
    def mean(self) -> dict[str, dict[str, Any]]:
        """By structure the mean of each metric over the cases where it is defined."""
        return {key: _means([encode(case.metrics[key]) for case in self.cases]) for key in self.structures}

    @computed_field
    @cached_property
    def foreground_mean(self) -> dict[str, Number]:
        """Mean of each metric over the structures."""
        names = next(iter(self.mean.values())).keys() - {"calibration"}
        return {name: float(np.mean([row[name] for row in self.mean.values()])) for name in sorted(names)}

    @computed_field
    @cached_property
    def bins(self) -> dict[str, BinStats]:
        """By mask, sums over all cases."""
        return {mask: BinStats.merge(case.bins[mask] for case in self.cases) for mask in MASKS}

    @computed_field
    @cached_property
    def calibration(self) -> dict[str, dict[str, dict[str, Number]]]:
        """By mask the scores: mean over cases, and pooled over voxels."""
        pooled = {mask: mask_metrics(stats) for mask, stats in self.bins.items()}
        return {"mean": _means([case.calibration for case in self.cases]), "pooled": pooled}

    @computed_field
    @cached_property
    def undefined(self) -> dict[str, dict[str, list[str]]]:
        """Which cases are left out of which mean: by metric, and structure or mask."""
        return _undefined(self.cases)

    def __post_init__(self) -> None:
        first = int(not self.regions)
        channels = sorted(value["channel"] for value in self.structures.values())
        if not channels or channels != list(range(first, first + len(channels))):
            raise ValueError(f"structures have the channels {channels}")
        for case in self.cases:
            case.check(self.structures, self.regions, self.settings)

    @property
    def cases(self) -> list[CaseResult]:
        """Results, in order."""
        return self.metric_per_case

    @property
    def pooled(self) -> dict[str, BinStats]:
        """By mask, sums over all cases."""
        return self.bins

    @property
    def names(self) -> dict[str, str]:
        """Name of each structure by nnU-Net's key."""
        return {key: structure["name"] for key, structure in self.structures.items()}

    def mean_dice(self) -> float:
        """The mean of the structures' means over the cases where Dice is defined, as nnU-Net."""
        return self.foreground_mean["Dice"]

    def mean_ece(self, mask: str = "foreground") -> float:
        """Mean over the cases of the ECE on a mask; cases where the mask is empty are left out."""
        return self.calibration["mean"][mask]["ECE"]

    def write(self, path: Path) -> None:
        """Write calibration.json, without what is not known; UserError if that fails."""
        write_atomically(path, to_json_text({key: value for key, value in encode(self).items() if value is not None}))


def read_document(path: Path | str) -> Evaluation:
    """Read a calibration.json back: the one reader of such files.

    Raises:
        UserError: The file is missing, not such a file, or of another schema version.
    """
    content = read_json(Path(path))
    if not _is_ours(content):
        raise UserError(f"{path}: not a calibration.json of this package; {_AGAIN}.")
    if (version := content["schema_version"]) != SCHEMA_VERSION:
        reads = f"this version of nnunet_nacl reads {SCHEMA_VERSION}"
        raise UserError(f"{path}: schema version {version!r}, {reads}; {_AGAIN}.")
    return decode(Evaluation, content, f"{path}: not a calibration.json of this package", fix=_AGAIN)


def _is_ours(content: Any) -> bool:
    return isinstance(content, dict) and content.keys() >= {"schema_version", "generated_by", "metric_per_case", "bins"}


def check_output(path: Path) -> list[Any]:
    """Fail before hours of work: only a calibration.json may be written over, nothing else of the user's.

    A file of that name that is no JSON at all, damaged by a full disk or a broken copy, may be written over, too.

    Returns:
        The entries of the cases that it holds, unchecked; none of those of another version.

    Raises:
        UserError: ``path`` cannot be written, or holds something else.
    """
    if path.suffix != ".json" and not path.is_dir():
        raise UserError(f"{path}: the output file must end with .json.")
    check_writable(path)
    if not path.exists():
        return []
    content: Any = None
    with contextlib.suppress(UserError):
        content = read_json(path)
    if content is None and path.name == FILE_NAME:
        return []
    if not _is_ours(content):
        raise UserError(
            f"{path}: not a calibration.json of this package, and would be lost; remove it or choose another -o."
        )
    entries = content["metric_per_case"]
    return entries if content["schema_version"] == SCHEMA_VERSION and isinstance(entries, list) else []
