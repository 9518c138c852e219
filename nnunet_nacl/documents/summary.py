"""calibration.json as a whole: an evaluation in the words of nnU-Net's summary.json, and ours."""

from __future__ import annotations

from typing import Any

import numpy as np

import nnunet_nacl
from nnunet_nacl.documents.document import SCHEMA_VERSION, case_to_json
from nnunet_nacl.documents.results import MASKS, Evaluation
from nnunet_nacl.json_files import encode
from nnunet_nacl.metrics.calibration_error import mask_metrics, nanmean


def to_document(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as JSON values: nnU-Net's three keys, and ours."""
    cases, keys = evaluation.cases, list(evaluation.names)
    per_case = [case_to_json(case, evaluation.channels, evaluation.regions) for case in cases]
    mean = {key: _means([case["metrics"][key] for case in per_case]) for key in keys}
    segmentation_keys = [name for name, value in mean[keys[0]].items() if not isinstance(value, dict)]
    document = {
        "schema_version": SCHEMA_VERSION,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "settings": encode(evaluation.settings),
        "structures": {key: {"name": evaluation.names[key], "channel": evaluation.channels[key]} for key in keys},
        "regions": evaluation.regions,
        "n_cases": len(cases),
        "foreground_mean": {name: float(np.mean([mean[key][name] for key in keys])) for name in segmentation_keys},
        "mean": mean,
        "calibration": {
            "mean": _means([case["calibration"] for case in per_case]),
            "pooled": {mask: mask_metrics(evaluation.pooled[mask]) for mask in MASKS},
        },
        "undefined": _undefined(per_case),
        "problems": evaluation.problems,
    }
    document["bins"] = {mask: encode(evaluation.pooled[mask]) for mask in MASKS}
    document["metric_per_case"] = per_case
    return document


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
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


def _undefined(per_case: list[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Which cases are left out of which mean."""
    result: dict[str, dict[str, list[str]]] = {"Dice": {}, "HD95_mm": {}, "calibration": {}}
    for case in per_case:
        values = {(name, key): row[name] for key, row in case["metrics"].items() for name in ("Dice", "HD95_mm")}
        values |= {("calibration", mask): row["ECE"] for mask, row in case["calibration"].items()}
        for (name, key), value in values.items():
            if np.isnan(value):
                result[name].setdefault(key, []).append(case["case"])
    return result
