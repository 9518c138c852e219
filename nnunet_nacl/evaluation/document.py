"""calibration.json: what an evaluation looks like in a file. The format is described in docs/reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

import nnunet_nacl
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.results import (
    MASKS,
    CaseResult,
    Evaluation,
    EvaluationSettings,
    Structure,
    mask_metrics,
    nanmean,
    structure_calibration,
)
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.paper import PaperScores, paper_mean, paper_scores

__all__ = ["SCHEMA_VERSION", "case_from_json", "case_to_json", "paper_of", "read_document", "to_document"]

SCHEMA_VERSION = 1
_SETTINGS = {field.name for field in fields(EvaluationSettings)}  # keys may be added within a version


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


def case_to_json(case: CaseResult, channels: dict[str, int], regions: bool) -> dict[str, Any]:
    """One entry of ``metric_per_case``."""
    return {
        "case": case.case,
        "reference_file": case.reference_file,
        "prediction_file": case.prediction_file,
        "probabilities_file": case.probabilities_file,
        "metrics": {
            key: structure.to_json()
            | {"calibration": {mask: structure_calibration(case.stats[mask], channels[key], regions) for mask in MASKS}}
            for key, structure in case.structures.items()
        },
        "calibration": {mask: mask_metrics(case.stats[mask]) for mask in MASKS},
        "largest_label": case.largest_label,
        "n_changed_voxels": case.n_changed_voxels,
        "bins": {mask: case.stats[mask].to_json() for mask in MASKS},
        "signature": case.signature,
    }


def case_from_json(data: dict[str, Any]) -> CaseResult:
    """Inverse of :func:`case_to_json`; KeyError, TypeError or ValueError if it is not such an entry."""
    return CaseResult(
        case=data["case"],
        probabilities_file=data["probabilities_file"],
        reference_file=data["reference_file"],
        prediction_file=data["prediction_file"],
        structures={key: Structure.from_json(value) for key, value in data["metrics"].items()},
        stats={mask: BinStats.from_json(data["bins"][mask]) for mask in MASKS},
        largest_label=int(data["largest_label"]),
        n_changed_voxels=int(data["n_changed_voxels"]),
        signature=data["signature"],
    )


def read_document(path: Path | str) -> Evaluation:
    """Read a calibration.json back.

    Raises:
        UserError: The file is missing, not such a file, or of a newer schema.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        version = data["schema_version"]
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema version {version!r}, this version of nnunet_nacl reads {SCHEMA_VERSION}; "
                "update it or evaluate again."
            )
        return Evaluation(
            names={key: value["name"] for key, value in data["structures"].items()},
            channels={key: value["channel"] for key, value in data["structures"].items()},
            regions=data["regions"],
            settings=EvaluationSettings(**{key: value for key, value in data["settings"].items() if key in _SETTINGS}),
            cases=[case_from_json(case) for case in data["metric_per_case"]],
            problems=data["problems"],
        )
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run `nnunet_nacl evaluate` first.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a calibration.json of this package ({error}); evaluate again.") from None


def paper_of(case: CaseResult) -> PaperScores:
    """The case in the paper's definition."""
    return paper_scores(
        {key: structure.overlap for key, structure in case.structures.items()},
        {key: structure.hd95_voxels for key, structure in case.structures.items()},
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

    def missing(value: Callable[[dict], float]) -> list[str]:
        return [case["case"] for case in per_case if np.isnan(value(case))]

    found = {
        "Dice": {key: missing(lambda case, key=key: case["metrics"][key]["Dice"]) for key in keys},
        "HD95_mm": {key: missing(lambda case, key=key: case["metrics"][key]["HD95_mm"]) for key in keys},
        "calibration": {mask: missing(lambda case, mask=mask: case["calibration"][mask]["ECE"]) for mask in MASKS},
    }
    return {name: {key: names for key, names in rows.items() if names} for name, rows in found.items()}
