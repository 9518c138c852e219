"""Tables of predicted against true Dice, of bad cases found, of missed and invented structures, and of presence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import pandas as pd

from nnunet_nacl.numbers.overlap import Detected
from nnunet_nacl.numbers.presence import CONSTANT, LearnedPresence
from nnunet_nacl.numbers.quality_report import FOLDS, ORDERS, QualityReport, quality_report
from nnunet_nacl.show.tables import Rows, frames, named_together, ten_worst, text_of

_ORDERS = (*ORDERS, FOLDS, "oracle", "random")
MAE = "mean absolute difference to the true Dice over all structures of all cases that the segmentation has"
DICE, PROBABILITY = "Dice where it is there", "probability that"


def quality_rows(reports: Mapping[str, QualityReport]) -> Rows:
    """How far the predicted Dice of each method holds."""
    learned = any(report.coverage for report in reports.values())
    orders = [order for order in _ORDERS if any(order in report.orders for report in reports.values())]
    rows = []
    for method, report in reports.items():
        row: dict[str, Any] = {"method": method, "MAE predicted": report.error}
        if learned:
            share, n = (report.coverage.share, report.coverage.n) if report.coverage else (math.nan, 0)
            row |= {"coverage": (share, f"{100 * share:.0f} % of {n}" if n else "-"), "mean width": report.width}
        row["rho"] = report.orders[ORDERS[0]]["rho"]
        rows.append(row | {f"AURC {order}": report.orders.get(order, {"AURC": math.nan})["AURC"] for order in orders})
    return rows


def workload_rows(reports: Mapping[str, QualityReport]) -> Rows:
    """What a look at some cases finds, by method and order."""
    rows = []
    for method, report in reports.items():
        below = "their thresholds" if isinstance(report.threshold, dict) else f"{report.threshold:g}"
        bad = {f"cases below {below}": (report.n_bad, f"{report.n_bad} of {report.n_cases}")}
        for order, looks in report.workload.items():
            names = [f"look at {100 * look.looked_at:g} % ({look.n_cases})" for look in looks]
            found = [(x.caught, "-" if math.isnan(x.caught) else f"{100 * x.caught:.0f} %") for x in looks]
            rows.append({"method": method, "order": order, **bad, **dict(zip(names, found))})
    return rows


def detected_rows(detected: Mapping[str, Mapping[str, Detected]], names: Mapping[str, str]) -> Rows:
    """What is found, by structure and method, of structures that some method misses or invents."""
    rows = []
    for key, name in names.items():
        of_methods = {method: by_key[key] for method, by_key in detected.items()}
        for method, seen in of_methods.items() if any(s.missed or s.invented for s in of_methods.values()) else ():
            counts = {"missed": (seen.missed, f"{seen.missed} of {seen.n_there}")}
            counts["invented"] = (seen.invented, f"{seen.invented} of {seen.n_absent}")
            rows.append({"structure": name, "method": method, DICE: seen.dice, **counts})
    return rows


def presence_rows(presence: Mapping[str, LearnedPresence], names: Mapping[str, str]) -> Rows:
    """How far the probability that a structure is in the scan holds, by method and structure."""
    rows = []
    for method, learned in presence.items():
        for key, name in names.items():
            if key in learned.listed and (kinds := learned.checks.get(key)):
                check = kinds["learned"]
                row: dict[str, Any] = {"method": method, PROBABILITY: f"{name} is in the scan"}
                row |= {"Brier": check.brier, "of a constant": kinds[CONSTANT].brier, "AUROC": check.auroc}
                rows.append(row | {"ECE": check.ece, "n": check.n})
    return rows


def by_brier(row: Mapping[str, Any]) -> float:
    """The higher the worse."""
    return -row["Brier"]


def quality_text(table: pd.DataFrame, bad: Mapping[str, float]) -> str:
    """How far the predicted Dice of one method holds, each number on a line, and what a look at some cases finds.

    Args:
        table: Its cases, see :func:`~nnunet_nacl.numbers.quality_report.quality_report`.
        bad: By nnU-Net's key, the Dice below which a structure is bad.
    """
    reports = {"": quality_report(table, bad)}
    quality, looks = (frames(make(reports))[1].drop(columns="method") for make in (quality_rows, workload_rows))
    return (
        f"quality as promised by the probabilities (MAE of predicted Dice: {MAE})\n"
        f"{quality.T.to_string(header=False)}\nbad cases found by looking at some, in an order:\n{text_of(looks)}"
    )


def detected_text(detected: Mapping[str, Detected], names: Mapping[str, str], *, every: bool = False) -> str:
    """What the segmentations find of each structure, or of the ten worst; empty where nothing is missed or invented."""
    rows, more = ten_worst(detected_rows({"": detected}, names), "structure", itemgetter(DICE), every)
    return "\n".join([text_of(frames(rows)[1].drop(columns="method")), *more]) if rows else ""


def presence_text(presence: LearnedPresence, names: Mapping[str, str], *, every: bool = False) -> str:
    """How far the probability holds that a structure is in the scan, of the ten worst or of every one, and why not."""
    rows, more = ten_worst(presence_rows({"": presence}, names), PROBABILITY, by_brier, every)
    lines = [text_of(frames(rows)[1].drop(columns="method")), *more] if rows else []
    why_not = {names[key]: why for key, why in presence.why_not.items()}
    return "\n".join([*lines, *(f"nothing is said of {line}" for line in named_together(why_not))])
