"""calibration.json: the entries of its cases, and reading it back. Format: docs/reference/files.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from nnunet_nacl.documents.results import (
    MASKS,
    CaseResult,
    Evaluation,
    EvaluationSettings,
    Structure,
)
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_writable
from nnunet_nacl.json_files import decode, encode, fits, read_json
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import (
    brier_per_row,
    class_errors,
    ece_per_row,
    mask_metrics,
    nll_per_row,
)
from nnunet_nacl.metrics.overlap import Overlap

FILE_NAME = "calibration.json"
SCHEMA_VERSION = 2  # keys may be added within a version
_NONE, _AGAIN = "not a calibration.json of this package", "evaluate again"


class _Distances(TypedDict):
    HD95_pooled_mm: float
    HD95_voxels: float


class _Metrics(TypedDict):
    TP: int
    FP: int
    FN: int
    TN: int
    ASSD_mm: float
    distances: _Distances


class _Plain(TypedDict):
    """Of a case, what stands in its entry as it is."""

    case: str
    reference_file: str
    prediction_file: str
    probabilities_file: str
    largest_label: int
    n_changed_voxels: int
    signature: dict[str, Any]


_PLAIN = tuple(_Plain.__annotations__)


class _Case(_Plain):
    metrics: dict[str, _Metrics]
    bins: dict[str, BinStats]


class _NamedStructure(TypedDict):
    name: str
    channel: int


class _AnyVersion(TypedDict):
    schema_version: int
    generated_by: str
    metric_per_case: list[Any]
    bins: dict[str, Any]


class _Document(_AnyVersion):
    settings: EvaluationSettings
    structures: dict[str, _NamedStructure]
    regions: bool
    problems: dict[str, str]


def case_to_json(case: CaseResult, channels: Mapping[str, int], regions: bool) -> dict[str, Any]:
    """One entry of ``metric_per_case``."""
    return {
        **{key: getattr(case, key) for key in _PLAIN},
        "metrics": {
            key: structure.to_json()
            | {
                "calibration": {
                    mask: _structure_calibration(case.stats[mask], channels[key], regions) for mask in MASKS
                }
            }
            for key, structure in case.structures.items()
        },
        "calibration": {mask: mask_metrics(case.stats[mask]) for mask in MASKS},
        "bins": {mask: encode(case.stats[mask]) for mask in MASKS},
        **case.blocks,
    }


def _structure_calibration(stats: BinStats, channel: int, regions: bool) -> dict[str, float]:
    """Calibration of one class's or region's own probability on one mask."""
    result = {"CE": float(class_errors(stats)[channel])}
    if regions:
        scores = {"ECE": ece_per_row, "NLL": nll_per_row, "Brier": brier_per_row}
        result |= {name: float(score(stats)[channel]) for name, score in scores.items()}
    return result


def case_from_json(
    data: Any,
    channels: Mapping[str, int],
    regions: bool,
    settings: EvaluationSettings,
    source: str | Path = "the entry of a case",
) -> CaseResult:
    """Inverse of :func:`case_to_json`.

    Raises:
        UserError: It is not such an entry, or one of other structures or bins; ``source`` says where it stood.
    """
    row = _decode(_Case, data, source)
    num_classes = len(channels) if regions else len(channels) + 1
    nothing = BinStats.zeros(num_classes, n_bins=settings.n_bins, regions=regions)
    blocks = {key: data[key] for key in data if key not in (*row, "calibration")}
    try:
        if lacking := [mask for mask in MASKS if mask not in row["bins"]]:
            raise ValueError(f"bins has no {lacking[0]!r}")
        stats = {mask: nothing + row["bins"][mask] for mask in MASKS}  # fails for other shapes
        if row["metrics"].keys() != channels.keys():
            raise ValueError(f"it has the structures {', '.join(row['metrics'])}, not {', '.join(channels)}")
        if not (0 <= row["largest_label"] and (regions or row["largest_label"] < num_classes)):
            raise ValueError(f"it has the largest_label {row['largest_label']}, of {num_classes} classes")
    except ValueError as error:
        raise UserError(f"{source}: {_NONE}: {row['case']}: {str(error).rstrip('.')}; {_AGAIN}.") from None
    structures = {
        key: Structure(
            Overlap(measured["TP"], measured["FP"], measured["FN"], measured["TN"]),
            measured["distances"]["HD95_pooled_mm"],
            measured["ASSD_mm"],
            measured["distances"]["HD95_voxels"],
        )
        for key, measured in row["metrics"].items()
    }
    plain: dict[str, Any] = {key: value for key, value in row.items() if key in _PLAIN}
    return CaseResult(structures=structures, stats=stats, blocks=blocks, **plain)


def read_document(path: Path | str) -> Evaluation:
    """Read a calibration.json back: the one reader of such files.

    Keys and settings that a later version added within the schema version are passed over; blocks that it added to a
    case are kept as they are.

    Raises:
        UserError: The file is missing, not such a file, or of another schema version.
    """
    data = _checked(Path(path), read_json(Path(path)))
    channels = {key: value["channel"] for key, value in data["structures"].items()}
    names = {key: value["name"] for key, value in data["structures"].items()}
    regions, settings = data["regions"], data["settings"]
    cases = [case_from_json(case, channels, regions, settings, path) for case in data["metric_per_case"]]
    return Evaluation(names, channels, regions, settings, cases, data["problems"])


def _decode(kind: Any, data: Any, path: Path | str) -> Any:
    return decode(kind, data, f"{path}: {_NONE}", fix=_AGAIN)


def _checked(path: Path, data: Any) -> _Document:
    """The values of a calibration.json whose cases are not looked at yet; UserError if it is none."""
    if (version := _decode(_AnyVersion, data, path)["schema_version"]) != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {version}, this version of nnunet_nacl reads {SCHEMA_VERSION}; update it or "
            f"{_AGAIN}."
        )
    document = _decode(_Document, data, path)
    first = int(not document["regions"])
    channels = sorted(value["channel"] for value in document["structures"].values())
    if not channels or channels != list(range(first, first + len(channels))):
        raise UserError(f"{path}: {_NONE}: structures have the channels {channels}; {_AGAIN}.")
    return document


def check_output(path: Path) -> list[Any]:
    """Fail before hours of work: only a calibration.json may be written over, nothing else of the user's.

    A file of that name that is no JSON at all, damaged by a full disk or a broken copy, may be written over too, and
    so may one of an earlier version: its cases are measured again.

    Returns:
        The entries of the cases that it holds, in the form that :func:`case_from_json` takes but unchecked.

    Raises:
        UserError: ``path`` cannot be written, or holds something else or what only a later version can read.
    """
    if path.suffix != ".json" and not path.is_dir():
        raise UserError(f"{path}: the output file must end with .json.")
    check_writable(path)
    if not path.exists():
        return []
    try:
        content = read_json(path)
    except UserError:
        if path.name == FILE_NAME:
            return []
        content = None
    if fits(_AnyVersion, content) and content["schema_version"] < SCHEMA_VERSION:
        return []
    try:
        return _checked(path, content)["metric_per_case"]
    except UserError as error:
        raise UserError(f"{str(error).rsplit(';', 1)[0]}, and would be lost; remove it or choose another -o.") from None
