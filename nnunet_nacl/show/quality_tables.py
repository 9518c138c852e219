"""What the quality that the probabilities promise is worth, as tables: expected and predicted against the true Dice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nnunet_nacl.calibration.quality_report import FOLDS, ORDERS, Coverage, QualityReport, QualityRows, quality_report
from nnunet_nacl.show.text_table import Cell, Table, aligned, mark, number, texts_of

if TYPE_CHECKING:  # it loads pandas, which `evaluate` does without
    from nnunet_nacl.comparison.comparison import Comparison

QUALITY, WORKLOAD = "quality", "workload"  # with these their ids begin
_EXPECTED = (
    "MAE: mean absolute difference to the true Dice over all structures of all cases that the segmentation has; "
    "expected Dice follows from the probabilities alone"
)
_PREDICTED = ", predicted Dice from what other cases taught, with the share of its intervals that hold"
_ORDERS = (
    ". rho: Spearman's rank correlation of a case's lowest expected Dice with its lowest Dice. AURC: area under the "
    "risk-coverage curve (Geifman and El-Yaniv 2017), risk 1 less the lowest Dice, of the cases in the order of their "
    "lowest expected Dice, of mean entropy and confidence over the predicted foreground, of how unusual the expected "
    "volumes are among the cases (volume), of the lowest Dice between two folds where several predicted (folds), of "
    "the truth (oracle) and at random. Lower is better, of rho higher."
)


def quality_tables(
    comparison: Comparison,
    quality: Mapping[str, Mapping[str, QualityRows]],
    threshold: float | Mapping[str, Sequence[float]],
) -> list[Table]:
    """The tables ``quality`` and ``workload`` of each data set; none where no method's documents tell.

    Args:
        comparison: What was computed.
        quality: By data set and name of an entry.
        threshold: Of Dice, in [0, 1]: one, or by data set one for each structure.
    """
    tables = []
    for dataset in comparison.datasets:
        found = quality[dataset.name]
        entries = [entry for entry in comparison.entries if entry.name in found]
        if not entries:
            continue
        without = ", ".join(entry.label for entry in comparison.entries if entry not in entries)
        missing = f" Missing in the documents of {without}: evaluate again, with the probabilities." if without else ""
        notes = "".join(f" {entry.label}: {text}." for entry in entries for text in found[entry.name].reservations)
        limits = threshold[dataset.name] if isinstance(threshold, Mapping) else threshold
        reports = {entry.label: quality_report(found[entry.name], limits) for entry in entries}
        below = next(iter(reports.values())).threshold
        words = f"{below:g}" if isinstance(below, float) else _listed(below, dataset.structures)
        predicted = _PREDICTED if any(report.coverage for report in reports.values()) else ""
        suffix = f"_{dataset.name}" if len(comparison.datasets) > 1 else ""
        caption = (
            f"Quality as promised, on {dataset.where}. {_EXPECTED}{predicted}{_ORDERS} "
            "Best bold, second underlined: of AURC nothing is marked, for each method has cases of its own difficulty."
        )
        header, rows = _quality(reports, [entry.ranked for entry in entries])
        tables.append(
            Table(f"{QUALITY}{suffix}", "Quality as promised", caption + notes + missing, header, rows, dataset.name)
        )
        caption = (
            f"Work and yield on {dataset.where}: a case is bad where the Dice of some structure is below "
            f"{words}. Of the bad cases, the share that is found by looking at so many percent (so many cases), "
            "in the order that is named. At random, as many are found as are looked at."
        )
        header, rows = _workload(reports)
        tables.append(Table(f"{WORKLOAD}{suffix}", "Cases to look at", caption + missing, header, rows, dataset.name))
    return tables


def quality_text(rows: QualityRows, threshold: float | Sequence[float]) -> str:
    """The numbers of one method for the terminal, each on a line.

    Args:
        rows: Its cases.
        threshold: Of Dice, in [0, 1]: one, or one for each structure.
    """
    reports = {"": quality_report(rows, threshold)}
    lines = ["quality as promised by the probabilities (MAE: mean absolute difference to the true Dice)"]
    header, rows_of_one = _quality(reports)
    lines += [f"  {name:<22} {text}" for name, text in list(zip(header, *texts_of(rows_of_one)))[1:]]
    header, found = _workload(reports)
    plain = [row[1:] for row in (header, *texts_of(found))]
    return "\n".join([*lines, "bad cases found by looking at some, in an order:", *aligned(plain, indent="  ")])


def _quality(
    reports: Mapping[str, QualityReport], ranked: Sequence[bool] | None = None
) -> tuple[list[str], list[list[Cell | str]]]:
    """Header, and a row for each method, of which the ranked ones can be best."""

    def marked(values: list[float], better: str) -> list[Cell]:
        return mark(values, [number(value) for value in values], better, ranked)

    rows = list(reports.values())
    columns: dict[str, list[Cell]] = {"MAE expected": marked([row.error_of_expected for row in rows], "lower")}
    if any(row.coverage for row in rows):
        columns["MAE predicted"] = marked([row.error_of_predicted for row in rows], "lower")
        columns["coverage"] = [_coverage(row.coverage) for row in rows]
    columns["rho"] = marked([row.orders["expected Dice"]["rho"] for row in rows], "higher")
    folds = [FOLDS] if any(FOLDS in row.orders for row in rows) else []
    for order in (*ORDERS, *folds, "oracle", "random"):
        values = [row.orders[order]["AURC"] if order in row.orders else math.nan for row in rows]
        columns[f"AURC {order}"] = [Cell(number(value, 3), value) for value in values]
    return ["method", *columns], [[label, *cells] for label, *cells in zip(reports, *columns.values())]


def _listed(thresholds: Mapping[str, float], structures: Mapping[str, str]) -> str:
    return ", ".join(f"{value:g} ({structures[key]})" for key, value in thresholds.items())


def _coverage(found: Coverage | None) -> Cell:
    if found is None or not found.n:
        return Cell("-", math.nan)
    return Cell(f"{100 * found.share:.0f} % of {found.n}", found.share)


def _workload(reports: Mapping[str, QualityReport]) -> tuple[list[str], list[list[Cell | str]]]:
    """Header, and a row for each method and order."""
    rows: list[list[Cell | str]] = []
    for label, report in reports.items():
        for order, found in report.workload.items():
            shares = [Cell("-" if math.isnan(r.caught) else f"{100 * r.caught:.0f} %", r.caught) for r in found]
            rows.append([label, order, Cell(f"{report.n_bad} of {report.n_cases}", report.n_bad), *shares])
    report = next(iter(reports.values()))
    header = [f"look at {100 * row.looked_at:g} % ({row.n_cases})" for row in report.workload[ORDERS[0]]]
    below = "their thresholds" if isinstance(report.threshold, dict) else f"{report.threshold:g}"
    return ["method", "order", f"cases below {below}", *header], rows
