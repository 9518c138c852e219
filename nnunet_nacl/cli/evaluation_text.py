"""The text that `nnunet_nacl evaluate` prints; calibration.json has every number."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal

from nnunet_nacl.calibration.quality_texts import detected_text, presence_text, quality_text
from nnunet_nacl.cases.case import MASK_NOTES
from nnunet_nacl.comparison.calibration_report import MaskScores, MetricMeans
from nnunet_nacl.comparison.evaluate import EvaluationResult
from nnunet_nacl.comparison.evaluation import Evaluation
from nnunet_nacl.metrics.calibration_error import MASK_METRICS
from nnunet_nacl.utilities.errors import one_line
from nnunet_nacl.utilities.tables import ten_worst, text_of

_SEGMENTATION: dict[str, Literal["Dice", "HD95_mm", "ASSD_mm"]] = {
    "Dice": "Dice",
    "HD95 mm": "HD95_mm",
    "ASSD mm": "ASSD_mm",
}
"""Columns of the table of structures, and their keys in calibration.json."""

_SCORES = [name for name, metric in MASK_METRICS.items() if metric.printed]


def evaluation_text(result: EvaluationResult) -> str:
    """What was measured, how far predicted Dice holds, and what is in the scans."""
    evaluation = result.evaluation
    heading = one_line(f"{result.name}: {len(evaluation.records)} cases")
    tables = [
        _structures_text(evaluation),
        _components_text(result),
        _calibration_text(evaluation.calibration["mean"], "mean over cases", "n_cases"),
        _calibration_text(evaluation.calibration["pooled"], "pooled voxels", "n_voxels"),
        _masks_text(evaluation),
        _changed_text(evaluation),
        detected_text(result.detected, evaluation.names),
        quality_text(result.table, result.bad),
        presence_text(result.presence, evaluation.names),
    ]
    text = f"{heading}\n" + "\n\n".join(filter(None, tables))
    return "\n".join([text, *(f"note: {caveat}" for caveat in result.caveats)])


def _structures_text(evaluation: Evaluation) -> str:
    """Overlap and distances of each structure, or of the ten worst, and their mean."""
    n_values = evaluation.table.groupby("key")[["Dice", "HD95_mm"]].count()
    rows: list[dict[str, Any]] = []
    for key, name in evaluation.names.items():
        counts = {"cases": n_values.Dice[key], "with distances": n_values.HD95_mm[key]}
        rows.append({"structure": f"{key} {name}"} | _segmentation(evaluation.mean[key]) | counts)
    shown, more = ten_worst(rows, "structure", itemgetter("Dice"))
    no_counts = {"cases": "", "with distances": ""}
    mean = {"structure": "mean"} | _segmentation(evaluation.foreground_mean) | no_counts
    lines = [text_of([*shown, mean], decimals=4), *more]
    undefined = evaluation.undefined
    if undefined["Dice"] or undefined["HD95_mm"] or undefined["calibration"]:
        lines.append(
            "Cases without a value (absent, missed or invented) are in no mean; `undefined` in the"
            " report names them."
        )
    return "\n".join(lines)


def _components_text(result: EvaluationResult) -> str:
    """Which connected components of structures are found; empty where none are counted."""
    rows: list[dict[str, Any]] = []
    for key, counts in result.components.to_dict("index").items():
        row: dict[str, Any] = {"structure": f"{key} {result.evaluation.names[str(key)]}"}
        row |= {"true": counts["true"], "touched": counts["touched"], "false": counts["false"]}
        row["share touched"] = counts["component_recall"]
        row["false a case"] = counts["false_components"]
        row["F1"] = counts["component_F1"]
        rows.append(row)
    if not rows:
        return ""
    shown, more = ten_worst(rows, "structure", itemgetter("F1"))
    lines = [
        "connected components (lesions): of all cases; then means over cases",
        text_of(shown, decimals=4),
        *more,
        "  touched: true ones that share a voxel with the segmentation; false: segmented ones that"
        " share none with the truth",
    ]
    return "\n".join(lines)


def _segmentation(mean: MetricMeans) -> dict[str, float]:
    return {heading: mean[metric] for heading, metric in _SEGMENTATION.items()}


def _calibration_text(scores_by_mask: Mapping[str, MaskScores], heading: str, count: str) -> str:
    """The scores of each mask, and of how many cases or voxels they are.

    Args:
        scores_by_mask: By name of the mask.
        heading: Of what they are scores.
        count: ``n_cases`` or ``n_voxels``, the key of their number among the scores.
    """
    rows = []
    for mask, values in scores_by_mask.items():
        row: dict[str, Any] = {"mask": mask}
        row |= {score: values[score] for score in _SCORES}
        row[count.removeprefix("n_")] = f"{values[count]:,}"
        rows.append(row)
    return f"calibration, {heading}\n{text_of(rows, decimals=4)}"


def _masks_text(evaluation: Evaluation) -> str:
    settings = vars(evaluation.settings)
    return "\n".join(f"  {mask}: {note.format(**settings)}" for mask, note in MASK_NOTES.items())


def _changed_text(evaluation: Evaluation) -> str:
    """In how many cases the segmentation is not what the probabilities say; empty for none."""
    changed = sum(record.scan["n_changed_voxels"] > 0 for record in evaluation.records)
    if not changed:
        return ""
    return (
        f"In {changed} of {len(evaluation.records)} cases the segmentation differs from what the"
        " probabilities say (postprocessed, or an npz left from an earlier run?): Dice and"
        " confidence are the segmentation's."
    )
