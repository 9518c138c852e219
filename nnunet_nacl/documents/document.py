"""calibration.json: what an evaluation looks like in a file. The format is described in docs/reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import nnunet_nacl
from nnunet_nacl.documents.results import (
    CHOSEN_MASKS,
    MASKS,
    CaseResult,
    Evaluation,
    EvaluationSettings,
    Structure,
    mask_metrics,
    nanmean,
    structure_calibration,
)
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_writable, to_json_text
from nnunet_nacl.json_files import NUMBER, Optional, mismatch, read_json
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.chosen import ChosenStats
from nnunet_nacl.metrics.paper import PaperScores, paper_mean, paper_scores

__all__ = [
    "FILE_NAME",
    "SCHEMA_VERSION",
    "case_from_json",
    "case_to_json",
    "check_output",
    "paper_of",
    "read_document",
    "to_document",
]

FILE_NAME = "calibration.json"
SCHEMA_VERSION = 1  # keys may be added within a version
_ANY_VERSION = {"schema_version": int, "generated_by": str, "metric_per_case": list, "bins": dict}
_SETTINGS = {"n_bins": int, "dilation_mm": (int, float), "boundary_mm": (int, float), "hausdorff": str, "paper": bool}
_DOCUMENT = _ANY_VERSION | {
    "settings": _SETTINGS,
    "structures": {"*": {"name": str, "channel": int}},
    "regions": bool,
    "problems": {"*": str},
}
_PLAIN: dict[str, type] = dict.fromkeys(("case", "reference_file", "prediction_file", "probabilities_file"), str)
_PLAIN |= {"largest_label": int, "n_changed_voxels": int, "signature": dict}
_DISTANCES = dict.fromkeys(("HD95_pooled_mm", "HD95_max_mm", "HD95_voxels"), NUMBER)
_STRUCTURE = {**dict.fromkeys(("TP", "FP", "FN", "TN"), int), "ASSD_mm": NUMBER, "distances": _DISTANCES}
_CASE = _PLAIN | {
    "metrics": {"*": _STRUCTURE},
    "bins": dict.fromkeys(MASKS, dict),
    "chosen": Optional(dict.fromkeys(CHOSEN_MASKS, dict)),
}


def to_document(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as JSON values: nnU-Net's three keys, and ours."""
    cases, keys = evaluation.cases, list(evaluation.names)
    per_case = [case_to_json(case, evaluation.channels, evaluation.regions) for case in cases]
    mean = {key: _mean_structure([case["metrics"][key] for case in per_case]) for key in keys}
    segmentation_keys = [name for name, value in mean[keys[0]].items() if not isinstance(value, dict)]
    document = {
        "schema_version": SCHEMA_VERSION,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "settings": evaluation.settings.to_json(),
        "structures": {key: {"name": evaluation.names[key], "channel": evaluation.channels[key]} for key in keys},
        "regions": evaluation.regions,
        "n_cases": len(cases),
        "foreground_mean": {name: float(np.mean([mean[key][name] for key in keys])) for name in segmentation_keys},
        "mean": mean,
        "calibration": {
            "mean": {mask: _mean_values([case["calibration"][mask] for case in per_case]) for mask in MASKS},
            "pooled": {mask: mask_metrics(evaluation.pooled[mask]) for mask in MASKS},
        },
        "undefined": _undefined(per_case, keys),
        "problems": evaluation.problems,
    }
    if evaluation.settings.paper:
        scores = [paper_of(case) for case in cases]
        document["paper"] = asdict(paper_mean(scores)) | {
            "per_case": {case.case: asdict(score) for case, score in zip(cases, scores)}
        }
    document["bins"] = {mask: evaluation.pooled[mask].to_json() for mask in MASKS}
    document["metric_per_case"] = per_case
    return document


def case_to_json(case: CaseResult, channels: Mapping[str, int], regions: bool) -> dict[str, Any]:
    """One entry of ``metric_per_case``."""
    return {
        **{key: getattr(case, key) for key in _PLAIN},
        "metrics": {
            key: structure.to_json()
            | {"calibration": {mask: structure_calibration(case.stats[mask], channels[key], regions) for mask in MASKS}}
            for key, structure in case.structures.items()
        },
        "calibration": {mask: mask_metrics(case.stats[mask]) for mask in MASKS},
        "bins": {mask: case.stats[mask].to_json() for mask in MASKS},
        **({"chosen": {mask: stats.to_json() for mask, stats in case.chosen.items()}} if case.chosen else {}),
        **case.blocks,
    }


def case_from_json(data: Any, channels: Mapping[str, int], regions: bool, settings: EvaluationSettings) -> CaseResult:
    """Inverse of :func:`case_to_json`, with the distances that the settings want.

    Raises:
        ValueError: It is not such an entry, or one of other structures or bins.
    """
    if problem := mismatch(data, _CASE):
        raise ValueError(problem)
    num_classes = len(channels) if regions else len(channels) + 1
    nothing = BinStats.zeros(num_classes, n_bins=settings.n_bins, regions=regions)
    try:
        structures = {key: Structure.from_json(value).under(settings) for key, value in data["metrics"].items()}
        stats = {mask: nothing + BinStats.from_json(data["bins"][mask]) for mask in MASKS}  # fails for other shapes
        chosen = {
            mask: ChosenStats.from_json(data["chosen"][mask], stats["all"].count.shape)
            for mask in CHOSEN_MASKS
            if "chosen" in data
        }
        blocks = {key: value for key, value in data.items() if key not in _CASE and key != "calibration"}
        to_json_text(blocks)
    except (OverflowError, RecursionError) as error:  # numbers beyond any float, blocks nested beyond any use
        raise ValueError(f"{data['case']}: {error}") from None
    if structures.keys() != channels.keys():
        raise ValueError(f"{data['case']} has the structures {', '.join(structures)}, not {', '.join(channels)}")
    if not (0 <= data["largest_label"] and (regions or data["largest_label"] < num_classes)):
        raise ValueError(f"{data['case']} has the largest_label {data['largest_label']}, of {num_classes} classes")
    plain = {key: data[key] for key in _PLAIN}
    return CaseResult(structures=structures, stats=stats, chosen=chosen, blocks=blocks, **plain)


def read_document(path: Path | str) -> Evaluation:
    """Read a calibration.json back: the one reader of such files.

    Keys and settings that a later version added within the schema version are passed over; blocks that it added to a
    case are kept as they are.

    Raises:
        UserError: The file is missing, not such a file, or of another schema version.
    """
    data = _checked(Path(path), read_json(Path(path)))
    channels = {key: value["channel"] for key, value in data["structures"].items()}
    try:
        settings = EvaluationSettings.from_json(data["settings"])
        cases = [case_from_json(case, channels, data["regions"], settings) for case in data["metric_per_case"]]
    except ValueError as error:
        raise UserError(f"{path}: not a calibration.json of this package ({error}); evaluate again.") from None
    names = {key: value["name"] for key, value in data["structures"].items()}
    return Evaluation(names, channels, data["regions"], settings, cases, data["problems"])


def _checked(path: Path, data: Any) -> dict[str, Any]:
    """The values of a calibration.json whose cases are not looked at yet; UserError if it is none."""
    problem = mismatch(data, _ANY_VERSION)
    if not problem and (version := data["schema_version"]) != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {version}, this version of nnunet_nacl reads {SCHEMA_VERSION}; update it or "
            "evaluate again."
        )
    problem = problem or mismatch(data, _DOCUMENT)
    if not problem:
        first, channels = int(not data["regions"]), sorted(value["channel"] for value in data["structures"].values())
        if not channels or channels != list(range(first, first + len(channels))):
            problem = f"structures have the channels {channels}"
    if problem:
        raise UserError(f"{path}: not a calibration.json of this package ({problem}); evaluate again.")
    return data


def check_output(path: Path) -> list[Any]:
    """Fail before hours of work: only a calibration.json may be written over, nothing else of the user's.

    A file of that name that is no JSON at all, damaged by a full disk or a broken copy, may be written over too.

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
    try:
        return _checked(path, content)["metric_per_case"]
    except UserError as error:
        raise UserError(f"{str(error).rsplit(';', 1)[0]}, and would be lost; remove it or choose another -o.") from None


def paper_of(case: CaseResult) -> PaperScores:
    """The case in the paper's definition."""
    return paper_scores(
        {key: structure.overlap for key, structure in case.structures.items()},
        {key: one.hd95_voxels for key, one in case.structures.items() if one.hd95_voxels is not None},
        case.stats["foreground"],
        case.largest_label,
    )


def _mean_values(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Mean over the cases where a value is defined, how many those are, and the total of the voxels."""
    result = {name: nanmean(row[name] for row in rows) for name in rows[0] if name != "n_voxels"}
    if "n_voxels" in rows[0]:
        result |= {"n_cases": sum(row["n_voxels"] > 0 for row in rows)}
    return result


def _mean_structure(rows: list[dict[str, Any]]) -> dict[str, Any]:
    result = _mean_values([{k: v for k, v in row.items() if not isinstance(v, dict)} for row in rows])
    result["calibration"] = {mask: _mean_values([row["calibration"][mask] for row in rows]) for mask in MASKS}
    return result


def _undefined(per_case: list[dict[str, Any]], keys: list[str]) -> dict[str, dict[str, list[str]]]:
    """Which cases are left out of which mean."""

    def missing(block: str, key: str, value: str) -> list[str]:
        return [case["case"] for case in per_case if np.isnan(case[block][key][value])]

    found = {
        "Dice": {key: missing("metrics", key, "Dice") for key in keys},
        "HD95_mm": {key: missing("metrics", key, "HD95_mm") for key in keys},
        "calibration": {mask: missing("calibration", mask, "ECE") for mask in MASKS},
    }
    return {name: {key: names for key, names in rows.items() if names} for name, rows in found.items()}
