"""How far predicted Dice holds, what segmentations find, and what is known of presence: rows, and
their text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from nnunet_nacl.calibration.quality_report import QualityReport, quality_report
from nnunet_nacl.estimators.presence import LearnedPresence
from nnunet_nacl.metrics.overlap import Detected
from nnunet_nacl.utilities.errors import named_together
from nnunet_nacl.utilities.tables import Rows, frames, ten_worst, text_of, wrap_text

PREDICTED_DICE_ERROR_MEANING = (
    "mean absolute difference to the true Dice over all structures of all cases that the"
    " segmentation has"
)
WITHOUT_BAD = "[[bad=0.7]] adds how many bad scans a check finds."
_DICE = "Dice where present"
_PRESENT = "probability that it is present"


def quality_rows(reports: Mapping[str, QualityReport]) -> Rows:
    """How far the predicted Dice of each method holds, by the reports of :func:`quality_report`."""
    is_learned = any(report["coverage"] is not None for report in reports.values())
    rows = []
    for method, report in reports.items():
        row: dict[str, Any] = {"method": method, "MAE predicted": report["MAE predicted"]}
        if is_learned:
            row["coverage"] = _coverage_cell(report)
            row["mean width"] = report["width"]
        row["rho"] = report["rho"]
        rows.append(row)
    return rows


def _coverage_cell(report: QualityReport) -> tuple[float, str]:
    """Share of the true values in their intervals, and its text."""
    coverage = report["coverage"]
    if coverage is None:
        return math.nan, "-"
    if not coverage.n:
        return coverage.share, "-"
    return coverage.share, f"{100 * coverage.share:.0f} % of {coverage.n}"


def workload_rows(reports: Mapping[str, QualityReport]) -> Rows:
    """What a look at some cases finds, by method and order, by the reports of
    :func:`quality_report`."""
    rows = []
    for method, report in reports.items():
        limit = report["threshold"]
        below = f"{limit:g}" if isinstance(limit, float) else "their thresholds"
        bad_cases = (report["n_bad"], f"{report['n_bad']} of {report['n_cases']}")
        for order, looks in report["workload"].items():
            row: dict[str, Any] = {
                "method": method,
                "order": order,
                f"cases below {below}": bad_cases,
            }
            for look in looks:
                caught = look["caught"]
                text = "-" if math.isnan(caught) else f"{100 * caught:.0f} %"
                row[f"look at {100 * look['looked_at']:g} %"] = (caught, text)
            rows.append(row)
    return rows


def detected_rows(detected: Mapping[str, Mapping[str, Detected]], names: Mapping[str, str]) -> Rows:
    """What is found, by structure and method, of structures that some method misses or invents.

    Args:
        detected: By method and nnU-Net's key of each structure.
        names: Of the structures, by nnU-Net's key.
    """
    rows = []
    for key, name in names.items():
        of_methods = {method: by_structure[key] for method, by_structure in detected.items()}
        if not any(found.missed or found.invented for found in of_methods.values()):
            continue
        for method, found in of_methods.items():
            rows.append(
                {
                    "structure": name,
                    "method": method,
                    _DICE: found.dice,
                    "missed": (found.missed, f"{found.missed} of {found.n_there}"),
                    "invented": (found.invented, f"{found.invented} of {found.n_absent}"),
                }
            )
    return rows


def quality_text(table: pd.DataFrame, bad: Mapping[str, float] | None) -> str:
    """How far predicted Dice holds, each number on a line, and what a look at some cases finds, if
    any are called bad.

    The arguments are those of :func:`~nnunet_nacl.calibration.quality_report.quality_report`.
    """
    reports = {"": quality_report(table, bad)}
    quality = _texts(quality_rows(reports))
    heading = (
        f"quality as the probabilities say (MAE of predicted Dice: {PREDICTED_DICE_ERROR_MEANING})"
    )
    lines = [wrap_text(heading), quality.T.to_string(header=False)]
    workload = workload_rows(reports)
    if workload:
        lines += ["bad cases found by looking at some, in an order:", text_of(_texts(workload))]
    else:
        lines.append(WITHOUT_BAD)
    return "\n".join(lines)


def detected_text(detected: Mapping[str, Detected], names: Mapping[str, str]) -> str:
    """What the segmentations find of each structure, or of the ten worst; empty where nothing is
    missed or invented."""
    shown, more = ten_worst(
        detected_rows({"": detected}, names), "structure", lambda row: row[_DICE]
    )
    if not shown:
        return ""
    return "\n".join([text_of(_texts(shown)), *more])


def _texts(rows: Rows) -> pd.DataFrame:
    """The texts of rows of one method, which needs no name."""
    _, texts = frames(rows)
    return texts.drop(columns="method")


def presence_text(presence: LearnedPresence, names: Mapping[str, str]) -> str:
    """How far the probability holds that a structure is in the scan, of the ten worst, and why
    nothing is said."""
    rows = []
    for key, name in names.items():
        check = presence.checks.get(key) if key in presence.listed else None
        if check is None:
            continue
        rows.append(
            {
                _PRESENT: name,
                "Brier": check.brier,
                "Brier of a constant": check.brier_of_constant,
                "AUROC": check.auroc,
                "ECE": check.ece,
                "cases": str(check.n),
            }
        )
    lines = []
    shown, more = ten_worst(rows, _PRESENT, lambda row: -row["Brier"])
    if shown:
        lines += [text_of(shown), *more]
    why_not = {names[key]: why for key, why in presence.why_not.items()}
    lines += [wrap_text(f"nothing is said of {line}") for line in named_together(why_not)]
    return "\n".join(lines)
