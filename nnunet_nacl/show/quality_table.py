"""What the quality that the probabilities promise is worth: expected and predicted Dice against the true Dice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_nacl.cases.quality_block import CaseQuality
from nnunet_nacl.comparison.alignment import Dataset
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.comparison.learned_dice import PredictedDice
from nnunet_nacl.comparison.quality_report import ORDERS, quality_report
from nnunet_nacl.show.table_formats import Cell, Table, mark, number

__all__ = ["QUALITY", "WORKLOAD", "quality_tables"]

QUALITY, WORKLOAD = "quality", "workload"  # with these their ids begin


def quality_tables(
    comparison: Comparison,
    predicted: Mapping[str, Mapping[str, PredictedDice]],
    threshold: float,
) -> list[Table]:
    """The tables ``quality`` and ``workload`` of each data set; none where no method's documents tell.

    Args:
        comparison: What was computed.
        predicted: By data set and method, what `calibrate` learned of its cases, where it did.
        threshold: Of Dice, in [0, 1].
    """
    tables, several = [], len(comparison.datasets) > 1
    for dataset in comparison.datasets:
        reports = {
            entry.label: quality_report(cases, threshold, _columns(predicted.get(dataset.name, {}).get(entry.name)))
            for entry in comparison.entries
            if (cases := _known(dataset, entry.name)) is not None
        }
        if reports:
            suffix = f"_{dataset.name}" if several else ""
            found = predicted.get(dataset.name, {})
            said = "".join(
                f" {entry.label}: {text}."
                for entry in comparison.entries
                if entry.name in found
                for text in found[entry.name].reservations
            )
            without = [entry.label for entry in comparison.entries if entry.label not in reports]
            tables += [
                _quality(dataset, reports, said + _without(without), suffix),
                _workload(dataset, reports, _without(without), threshold, suffix),
            ]
    return tables


def _columns(found: PredictedDice | None) -> tuple[Mapping[str, Any], ...] | None:
    return None if found is None else (found.estimate, found.low, found.high)


def _known(dataset: Dataset, name: str) -> list[CaseQuality] | None:
    cases = [quality for case in dataset.results[name] if (quality := CaseQuality.of(case))]
    return cases if len(cases) == len(dataset.results[name]) else None


def _quality(dataset: Dataset, reports: Mapping[str, Mapping[str, Any]], said: str, suffix: str) -> Table:
    rows = list(reports.values())
    columns: dict[str, tuple[list[float], str]] = {"MAE expected": ([row["MAE expected"] for row in rows], "lower")}
    learned = any("MAE predicted" in row for row in rows)
    if learned:
        columns["MAE predicted"] = ([row.get("MAE predicted", math.nan) for row in rows], "lower")
    columns["rho"] = ([row["orders"]["expected Dice"]["rho"] for row in rows], "higher")
    cells = [mark(values, [number(v, 3) for v in values], better) for values, better in columns.values()]
    header = ["method", *columns]
    if learned:
        cells.insert(2, [_coverage(row) for row in rows])
        header.insert(3, "coverage")
    for order in (*ORDERS, "oracle", "random"):
        values = [row["orders"][order]["AURC"] for row in rows]
        cells.append([Cell(number(value, 3), value) for value in values])
        header.append(f"AURC {order}")
    caption = (
        f"Quality as promised, on {dataset.where}. MAE: mean absolute difference to the true Dice over all structures "
        "of all cases that the segmentation has; expected Dice follows from the probabilities alone"
        + (
            ", predicted Dice from what other cases taught, with the share of its intervals that hold"
            if learned
            else ""
        )
        + ". rho: Spearman's rank correlation of a case's lowest expected Dice with its lowest Dice. AURC: area under "
        "the risk-coverage curve (Geifman and El-Yaniv 2017), risk 1 less the lowest Dice, of the cases in the order "
        "of their lowest expected Dice, of mean entropy and confidence over the predicted foreground, of the truth "
        "(oracle) and at random. Lower is better, of rho higher. Best bold, second underlined: of AURC nothing is "
        f"marked, for each method has cases of its own difficulty.{said}"
    )
    table: list[list[Cell | str]] = [[label, *(column[i] for column in cells)] for i, label in enumerate(reports)]
    return Table(f"{QUALITY}{suffix}", "Quality as promised", caption, header, table, dataset.name)


def _coverage(row: Mapping[str, Any]) -> Cell:
    found = row.get("coverage")
    if found is None or not found.n:
        return Cell("-", math.nan)
    return Cell(f"{100 * found.share:.0f} % of {found.n}", found.share)


def _workload(
    dataset: Dataset, reports: Mapping[str, Mapping[str, Any]], said: str, threshold: float, suffix: str
) -> Table:
    rows: list[list[Cell | str]] = []
    for label, report in reports.items():
        found = [Cell("-" if math.isnan(r.caught) else f"{100 * r.caught:.0f} %", r.caught) for r in report["workload"]]
        bad = Cell(f"{report['n_bad']} of {report['n_cases']}", report["n_bad"])
        rows.append([label, bad, *found])
    some_report = next(iter(reports.values()))
    shares = [f"look at {100 * row.looked_at:g} % ({row.n_cases})" for row in some_report["workload"]]
    caption = (
        f"Work and yield on {dataset.where}: a case is bad where the Dice of some structure is below {threshold:g}. Of "
        "the bad cases, the share that is found by looking at so many percent (so many cases), those of the lowest "
        f"expected Dice first. At random, as many are found as are looked at.{said}"
    )
    header = ["method", f"cases below {threshold:g}", *shares]
    return Table(f"{WORKLOAD}{suffix}", "Cases to look at", caption, header, rows, dataset.name)


def _without(labels: Sequence[str]) -> str:
    if not labels:
        return ""
    return f" Not told by the documents of {', '.join(labels)}: evaluate again, with the probabilities."
