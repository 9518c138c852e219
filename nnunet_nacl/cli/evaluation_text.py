"""An evaluation as tables for the terminal, and as a CSV file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from nnunet_nacl.case.case import MASK_NOTES
from nnunet_nacl.case.evaluation import Evaluation
from nnunet_nacl.errors import UserError, one_line, some
from nnunet_nacl.files import check_writable, to_csv_text
from nnunet_nacl.numbers.calibration_error import MASK_METRICS
from nnunet_nacl.show.tables import ten_worst, text_of

_SHOWN = 3  # so many cases are named in a line
_HEADER = ("scope", "case", "structure", "mask", "metric", "value")
_SCORES = [name for name, metric in MASK_METRICS.items() if metric.printed]


def table_text(evaluation: Evaluation, title: str = "", *, every: bool = False) -> str:
    """Segmentation by structure, then calibration by mask: mean over cases, and pooled over voxels.

    Args:
        evaluation: The cases.
        title: First line.
        every: Every structure, not the worst only.
    """
    means, undefined, names = evaluation.mean, evaluation.undefined, evaluation.names
    n_defined = {key: len(evaluation.records) - len(undefined["Dice"].get(key, ())) for key in names}
    rows = [{"structure": f"{key} {names[key]}", **_segmentation(means[key]), "cases": n_defined[key]} for key in names]
    shown, more = ten_worst(rows, "structure", itemgetter("Dice"), every)
    mean = {"structure": "mean", **_segmentation(evaluation.foreground_mean), "cases": ""}
    lines = [title] if title else []
    lines += [text_of([*shown, mean], decimals=4), *more]
    kept = {row["structure"] for row in shown}
    lines += _undefined(undefined, {key: name for key in names if (name := f"{key} {names[key]}") in kept})
    for which, heading, count in (("mean", "mean over cases", "n_cases"), ("pooled", "pooled voxels", "n_voxels")):
        by_mask = [
            {"mask": mask, **{score: values[score] for score in _SCORES}, count[2:]: f"{values[count]:,}"}
            for mask, values in evaluation.calibration[which].items()
        ]
        lines += ["", f"calibration, {heading}", text_of(by_mask, decimals=4)]
    lines += ["", *(f"  {mask}: {note.format(**vars(evaluation.settings))}" for mask, note in MASK_NOTES.items())]
    if changed := sum(record.scan["n_changed_voxels"] > 0 for record in evaluation.records):
        lines.append(
            f"\nIn {changed} of {len(evaluation.records)} cases the segmentation differs from what the probabilities "
            "say (postprocessed, or an npz left from an earlier run?): Dice and confidence are the segmentation's."
        )
    return "\n".join(lines)


def _segmentation(mean: Mapping[str, float]) -> dict[str, float]:
    return {"Dice": mean["Dice"], "HD95 mm": mean["HD95_mm"], "ASSD mm": mean["ASSD_mm"]}


def _undefined(undefined: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """Which cases are in no mean, and why: absent structures and empty masks must not pass unseen."""
    lines = []
    for key, name in names.items():
        dice = undefined["Dice"].get(key, [])
        distances = [case for case in undefined["HD95_mm"].get(key, []) if case not in dice]
        if dice:
            lines.append(f"{name} is in neither truth nor prediction of {_counted(dice)}: no Dice, no distance")
        if distances:
            lines.append(f"{name} is missing in truth or prediction of {_counted(distances)}: no distance")
    cases_of = {key: cases for metric in ("Dice", "HD95_mm") for key, cases in undefined[metric].items() if cases}
    if others := cases_of.keys() - names.keys():
        lines.append(f"{len(others)} of the other structures have no Dice or distance in some cases (--verbose)")
    lines += [f"{mask} is empty in {_counted(cases)}" for mask, cases in undefined["calibration"].items() if cases]
    return [f"  {one_line(line)}" for line in lines]


def _counted(cases: Sequence[str]) -> str:
    return f"{len(cases)} ({some(cases, _SHOWN)})"


def csv_text(evaluation: Evaluation) -> str:
    """One value a line: scope (case, mean, pooled), case, structure, mask, metric, value; empty if undefined."""
    Scope = tuple[str, str, dict[str, Any], dict[str, Any]]
    cases: list[Scope] = [("case", case["case"], case["metrics"], case["calibration"]) for case in evaluation.cases]
    mean: Scope = ("mean", "", evaluation.mean, evaluation.calibration["mean"])
    pooled: Scope = ("pooled", "", {}, evaluation.calibration["pooled"])
    return to_csv_text(_HEADER, (row for scope in (*cases, mean, pooled) for row in _rows(*scope)))


def check_csv(path: Path) -> None:
    """UserError unless ``path`` can be written and holds nothing, or what :func:`csv_text` made."""
    check_writable(path)
    if path.exists():
        with open(path, encoding="utf-8", errors="replace") as file:
            if file.readline(200).strip().replace('"', "") != ",".join(_HEADER):
                raise UserError(
                    f"{path} was not written by `nnunet_nacl evaluate --csv` and would be lost; remove it or choose "
                    "another -o."
                )


def _rows(scope: str, case: str, structures: dict[str, Any], masks: dict[str, Any]) -> Iterator[tuple]:
    for key, values in structures.items():
        for metric, value in values.items():
            if metric == "calibration":
                for mask, scores in value.items():
                    yield from ((scope, case, key, mask, name, score) for name, score in scores.items())
            elif not isinstance(value, dict):
                yield scope, case, key, "", metric, value
    for mask, scores in masks.items():
        yield from ((scope, case, "", mask, name, score) for name, score in scores.items())
