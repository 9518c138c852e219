"""An evaluation for the eye, and for a spreadsheet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnunet_nacl.evaluation.document import to_document
from nnunet_nacl.evaluation.results import MASKS, Evaluation

__all__ = ["MASK_NOTES", "csv_text", "table_text"]

_SHOWN = 3  # so many cases are named in a line
_SCORES = ("ECE", "CECE_mean", "ACE", "MCE", "NLL", "Brier")
MASK_NOTES = {
    "foreground": "truth is not background: the paper's",
    "union": "truth or prediction is not background",
    "dilated": "foreground grown by {dilation_mm:g} mm",
    "boundary": "within {boundary_mm:g} mm of a surface of the truth",
    "predicted": "prediction is not background: known in use",
    "all": "every voxel",
}


def table_text(evaluation: Evaluation, title: str = "") -> str:
    """Segmentation by structure, then calibration by mask: mean over cases, and pooled over voxels."""
    document = to_document(evaluation)
    lines = [title] if title else []
    rows = [["structure", "Dice", "HD95 mm", "ASSD mm", "cases"]]
    for key, name in evaluation.names.items():
        mean = document["mean"][key]
        defined = _count_defined(document, key)
        rows.append(
            [
                f"{key} {name}",
                _number(mean["Dice"]),
                _number(mean["HD95_mm"], 2),
                _number(mean["ASSD_mm"], 2),
                str(defined),
            ]
        )
    mean = document["foreground_mean"]
    rows.append(["mean", _number(mean["Dice"]), _number(mean["HD95_mm"], 2), _number(mean["ASSD_mm"], 2), ""])
    lines += _align(rows)
    lines += _undefined(document, evaluation)
    for heading, values in (
        ("mean over cases", document["calibration"]["mean"]),
        ("pooled voxels", document["calibration"]["pooled"]),
    ):
        lines += ["", f"calibration, {heading}"]
        last = "cases" if heading == "mean over cases" else "voxels"
        rows = [["mask", *_SCORES, last]]
        for mask in MASKS:
            count = values[mask]["n_cases" if last == "cases" else "n_voxels"]
            rows.append([mask, *(_number(values[mask][score]) for score in _SCORES), f"{count:,}"])
        lines += _align(rows)
    settings = document["settings"]
    lines += ["", *(f"  {mask}: {MASK_NOTES[mask].format(**settings)}" for mask in MASKS)]
    if "paper" in document:
        lines += ["", *_paper(document, evaluation)]
    changed = sum(case.n_changed_voxels > 0 for case in evaluation.cases)
    if changed:
        lines += [
            "",
            f"In {changed} of {len(evaluation.cases)} cases the segmentation differs from what the probabilities say "
            "(postprocessed, or an npz left from an earlier run?): Dice is the segmentation's, calibration the "
            "probabilities'.",
        ]
    return "\n".join(lines)


def _undefined(document: dict[str, Any], evaluation: Evaluation) -> list[str]:
    """Which cases are in no mean, and why: absent structures and empty masks must not pass unseen."""
    undefined, lines = document["undefined"], []
    for key, name in evaluation.names.items():
        dice = undefined["Dice"].get(key, [])
        distances = [case for case in undefined["HD95_mm"].get(key, []) if case not in dice]
        if dice:
            lines.append(f"  {key} {name} is in neither truth nor prediction of {_some(dice)}: no Dice, no distance")
        if distances:
            lines.append(f"  {key} {name} is missing in truth or prediction of {_some(distances)}: no distance")
    lines += [f"  {mask} is empty in {_some(cases)}" for mask, cases in undefined["calibration"].items()]
    return lines


def _some(cases: Sequence[str]) -> str:
    shown = ", ".join(cases[:_SHOWN])
    return f"{len(cases)} ({shown}{', ...' if len(cases) > _SHOWN else ''})"


def _count_defined(document: dict[str, Any], key: str) -> int:
    """Cases in which a structure's Dice is defined."""
    return document["n_cases"] - len(document["undefined"]["Dice"].get(key, ()))


def _paper(document: dict[str, Any], evaluation: Evaluation) -> list[str]:
    paper = document["paper"]
    rows = [["paper's evaluation", "DSC", "HD95 voxels", "ECE", "CECE"]]
    for key, name in evaluation.names.items():
        rows.append([f"{key} {name}", _number(paper["dsc"][key]), _number(paper["hd95_voxels"][key], 2), "", ""])
    dsc, distance = (np.mean(list(paper[name].values())) for name in ("dsc", "hd95_voxels"))
    rows.append(["mean", _number(dsc), _number(distance, 2), "", ""])
    rows.append(["foreground", "", "", _number(paper["ece"]), _number(paper["cece"])])
    return _align(rows)


def csv_text(evaluation: Evaluation) -> str:
    """One value a line: scope (case, mean, pooled), case, structure, mask, metric, value; empty if undefined."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("scope", "case", "structure", "mask", "metric", "value"))
    document = to_document(evaluation)
    for case in document["metric_per_case"]:
        writer.writerows(_rows("case", case["case"], case["metrics"], case["calibration"]))
    writer.writerows(_rows("mean", "", document["mean"], document["calibration"]["mean"]))
    writer.writerows(_rows("pooled", "", {}, document["calibration"]["pooled"]))
    return stream.getvalue()


def _rows(scope: str, case: str, structures: dict[str, Any], masks: dict[str, Any]) -> Iterator[tuple]:
    for key, values in structures.items():
        for metric, value in values.items():
            if metric == "calibration":
                for mask, scores in value.items():
                    yield from ((scope, case, key, mask, name, _value(score)) for name, score in scores.items())
            elif not isinstance(value, dict):
                yield scope, case, key, "", metric, _value(value)
    for mask, scores in masks.items():
        yield from ((scope, case, "", mask, name, _value(score)) for name, score in scores.items())


def _value(value: float | None) -> Any:
    return "" if value is None or math.isnan(value) else value


def _number(value: float, decimals: int = 4) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return lines
