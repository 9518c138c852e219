"""What is promised of single cases, against the truth: predicted Dice, what to look at, what is found, what is there.

Each has a table for the terminal, of one method, and one for a comparison, of all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnunet_nacl.calibration.presence import LearnedPresence
from nnunet_nacl.calibration.quality_report import FOLDS, ORDERS, QualityReport, QualityRows, quality_report
from nnunet_nacl.documents.results import detected_in
from nnunet_nacl.metrics.detection import Detected
from nnunet_nacl.runs.held_out_presence import CONSTANT
from nnunet_nacl.show.text_table import Cell, Table, aligned, mark, number, texts_of
from nnunet_nacl.show.worst_structures import named_together, worst_of

if TYPE_CHECKING:  # they load pandas, which `evaluate` does without
    from nnunet_nacl.comparison.comparison import Comparison

QUALITY, WORKLOAD, DETECTED, PRESENCE = "quality", "workload", "detected", "presence"
"""How the ids of these tables begin."""
MAIN_DIFFERENCES, PREDICTED_DICE = "main_differences", "predicted_dice"
"""How the ids of figures begin: of that which the page opens with, and of predicted Dice."""

_MAE = "mean absolute difference to the true Dice over all structures of all cases that the segmentation has"
_QUALITY = (
    "Quality as promised, on {}. Predicted Dice is what follows from the probabilities. MAE: "
    + _MAE
    + "{}. rho: Spearman's rank correlation of a case's lowest predicted Dice with its lowest Dice. AURC: area under "
    "the risk-coverage curve (Geifman and El-Yaniv 2017), risk 1 less the lowest Dice, of the cases in the order of "
    "their lowest predicted Dice, of mean entropy and confidence over the predicted foreground, of how unusual the "
    "predicted volumes are among the cases (volume), of the lowest Dice between two folds where several predicted "
    "(folds), of the truth (oracle) and at random. Lower is better, of rho higher. Best bold, second underlined: of "
    "AURC nothing is marked, for each method has cases of its own difficulty."
)
_INTERVALS = "; coverage: the share of the intervals, by what other cases taught, that hold; mean width: theirs"
_WORKLOAD = (
    "Work and yield on {}: a case is bad where the Dice of some structure is below {}. Of the bad cases, the share "
    "that is found by looking at so many percent (so many cases), in the order that is named. At random, as many are "
    "found as are looked at."
)
_DETECTED = (
    "What is found, on {}: for structures that a method misses or invents, the mean Dice of the scans whose truth has "
    "them, a missed one counting 0; in how many of these the segmentation lacks it; and in how many of the others it "
    "has it."
)
_DETECTED_HEADER = ["Dice where it is there", "missed", "invented"]
_PRESENCE = (
    "Is it there, on {}: for structures that some scans lack, how probably one is in the scan, learned from other "
    "patients. Brier score, beside that of a constant (the share of the other patients), AUROC and ECE."
)
_PRESENCE_HEADER = ["probability that", "Brier", "of a constant", "AUROC", "ECE", "n"]

Rows = list[list[Cell | str]]


def case_tables(
    comparison: Comparison,
    quality: Mapping[str, Mapping[str, QualityRows]],
    presence: Mapping[str, Mapping[str, LearnedPresence | None]],
    threshold: float | Mapping[str, Sequence[float]],
) -> list[Table]:
    """The tables of each data set; none of what no method's documents tell.

    Args:
        comparison: What was computed.
        quality: By data set and name of an entry.
        presence: In the same way.
        threshold: A case is bad where its Dice is below: one, or by data set one for each structure.
    """
    tables: list[Table] = []
    for dataset in comparison.datasets:

        def add(kind, title, caption, header, rows, bad=None, dataset=dataset) -> None:
            values = [[cell.value if isinstance(cell, Cell) else cell for cell in row] for row in rows]
            if bad and (chosen := worst_of(map(bad, rows)))[1]:
                rows = [row for row in rows if bad(row)[0] in chosen[0]]
                caption += " The ten worst are shown, all are in the CSV."
            if rows:
                name = comparison.id_of(kind, dataset)
                tables.append(Table(name, title, caption, header, rows, dataset.name, (header, values)))

        if rows := quality[dataset.name]:
            entries = [entry for entry in comparison.entries if entry.name in rows]
            without = ", ".join(entry.label for entry in comparison.entries if entry not in entries)
            missing = f" Missing in the documents of {without}: evaluate again, with the probabilities."
            missing = missing if without else ""
            limits = threshold[dataset.name] if isinstance(threshold, Mapping) else threshold
            reports = {entry.label: quality_report(rows[entry.name], limits) for entry in entries}
            below = next(iter(reports.values())).threshold
            by_structure = below if isinstance(below, dict) else {}
            words = ", ".join(f"{value:g} ({dataset.structures[key]})" for key, value in by_structure.items())
            intervals = _INTERVALS if any(report.coverage for report in reports.values()) else ""
            notes = "".join(f" {entry.label}: {text}." for entry in entries for text in rows[entry.name].caveats)
            caption = _QUALITY.format(dataset.where, intervals) + notes + missing
            add(QUALITY, "Quality as promised", caption, *_quality(reports, [entry.ranked for entry in entries]))
            add(
                WORKLOAD,
                "Cases to look at",
                _WORKLOAD.format(dataset.where, words or below) + missing,
                *_workload(reports),
            )
        detected = {entry.label: detected_in(dataset.results[entry.name]) for entry in comparison.entries}
        header, cells = ["structure", "method", *_DETECTED_HEADER], _detected(detected, dataset.structures)
        add(DETECTED, "What is found", _DETECTED.format(dataset.where), header, cells, _detection)
        checks = presence[dataset.name]
        cells = [
            [entry.label, *row]
            for entry in comparison.entries
            for row in _presence(checks[entry.name], dataset.structures)
        ]
        caption, header = _PRESENCE.format(dataset.where), ["method", *_PRESENCE_HEADER]
        add(PRESENCE, "Is it there", caption, header, cells, _brier)
    return tables


def quality_text(rows: QualityRows, threshold: float | Sequence[float]) -> str:
    """How far the predicted Dice of one method holds, and what a look at some cases finds, each number on a line.

    Args:
        rows: Its cases.
        threshold: Of Dice, in [0, 1]: one, or one for each structure.
    """
    reports = {"": quality_report(rows, threshold)}
    header, cells = _quality(reports)
    lines = [f"quality as promised by the probabilities (MAE of predicted Dice: {_MAE})"]
    lines += [f"  {name:<22} {text}" for name, text in list(zip(header, *texts_of(cells)))[1:]]
    header, cells = _workload(reports)
    looked_at = [row[1:] for row in (header, *texts_of(cells))]
    return "\n".join([*lines, "bad cases found by looking at some, in an order:", *aligned(looked_at)])


def detected_text(detected: Mapping[str, Detected], names: Mapping[str, str], *, every: bool = False) -> str:
    """What the labels of one method find; empty where nothing is missed or invented.

    Args:
        detected: By structure.
        names: Name of each structure by nnU-Net's key.
        every: Every structure, not the worst only.
    """
    rows = _detected({"": detected}, names)
    shown, more = worst_of(map(_detection, rows), every)
    rows = [["structure", *_DETECTED_HEADER], *([name, *cells] for name, _, *cells in rows if name in shown)]
    return "\n".join([*aligned(texts_of(rows), indent=""), *more]) if shown else ""


def presence_text(presence: LearnedPresence | None, names: Mapping[str, str], *, every_kind: bool = False) -> str:
    """How far the probabilities of one method hold that something is there; empty where there is nothing to say.

    Args:
        presence: What was learned, and how it does; None for nothing.
        names: Name of each structure by nnU-Net's key.
        every_kind: Every structure, and also probabilities that are not learned, such as the largest of the voxels.
    """
    lines, rows = [], _presence(presence, names, every_kind)
    shown, more = worst_of(map(_brier, rows), every_kind)
    if rows:
        rows = [row for row in rows if row[0] in shown]
        lines = [*aligned([_PRESENCE_HEADER, *texts_of(rows)], indent=""), *more]
    why_not = {names[key]: why for key, why in presence.why_not.items()} if presence else {}
    lines += [f"nothing is said of {line}" for line in named_together(why_not)]
    return "\n".join(lines)


def _quality(reports: Mapping[str, QualityReport], ranked: Sequence[bool] | None = None) -> tuple[list[str], Rows]:
    """Header, and a row for each method, of which the ranked ones can be best."""

    def marked(values: list[float], better: str) -> list[Cell]:
        return mark(values, [number(value) for value in values], better, ranked)

    rows = list(reports.values())
    columns = {"MAE predicted": marked([row.error for row in rows], "lower")}
    if any(row.coverage for row in rows):
        shares = [(row.coverage.share, row.coverage.n) if row.coverage else (math.nan, 0) for row in rows]
        columns["coverage"] = [Cell(f"{100 * share:.0f} % of {n}" if n else "-", share) for share, n in shares]
        columns["mean width"] = [Cell(number(row.width), row.width) for row in rows]
    columns["rho"] = marked([row.orders[ORDERS[0]]["rho"] for row in rows], "higher")
    folds = [FOLDS] if any(FOLDS in row.orders for row in rows) else []
    for order in (*ORDERS, *folds, "oracle", "random"):
        values = [row.orders[order]["AURC"] if order in row.orders else math.nan for row in rows]
        columns[f"AURC {order}"] = [Cell(number(value), value) for value in values]
    return ["method", *columns], [[label, *cells] for label, *cells in zip(reports, *columns.values())]


def _workload(reports: Mapping[str, QualityReport]) -> tuple[list[str], Rows]:
    """Header, and a row for each method and order."""
    rows: Rows = []
    for label, report in reports.items():
        for order, looks in report.workload.items():
            shares = [Cell("-" if math.isnan(r.caught) else f"{100 * r.caught:.0f} %", r.caught) for r in looks]
            rows.append([label, order, Cell(f"{report.n_bad} of {report.n_cases}", report.n_bad), *shares])
    report = next(iter(reports.values()))
    header = [f"look at {100 * row.looked_at:g} % ({row.n_cases})" for row in report.workload[ORDERS[0]]]
    below = "their thresholds" if isinstance(report.threshold, dict) else f"{report.threshold:g}"
    return ["method", "order", f"cases below {below}", *header], rows


def _detection(row: Sequence[Any]) -> tuple[str, float]:
    return row[0], row[2].value


def _brier(row: Sequence[Any]) -> tuple[str, float]:
    what, brier = row[-len(_PRESENCE_HEADER) :][:2]  # behind the method, in a comparison
    return what, -brier.value


def _detected(detected: Mapping[str, Mapping[str, Detected]], names: Mapping[str, str]) -> Rows:
    """A row for each structure that is missed or invented, and method."""
    rows: Rows = []
    for key, name in names.items():
        of_methods = {label: by_key[key] for label, by_key in detected.items()}
        for label, seen in of_methods.items() if any(s.missed or s.invented for s in of_methods.values()) else ():
            missed = Cell(f"{seen.missed} of {seen.n_there}", seen.missed)
            invented = Cell(f"{seen.invented} of {seen.n_absent}", seen.invented)
            rows.append([name, label, Cell(number(seen.dice), seen.dice), missed, invented])
    return rows


def _presence(presence: LearnedPresence | None, names: Mapping[str, str], every_kind: bool = False) -> Rows:
    """A row for each structure that some scans lack, and kind of probability."""
    rows: Rows = []
    for key, by_kind in presence.checks.items() if presence else ():
        kinds = [kind for kind in by_kind if kind != CONSTANT] if every_kind else ["learned"]
        for kind in kinds:
            check = by_kind[kind]
            scores = [check.brier, by_kind[CONSTANT].brier, check.auroc, check.ece]
            words = f"{names[key]} is in the scan" + (f", {kind}" if every_kind else "")
            rows.append([words, *(Cell(number(value), value) for value in scores), Cell(str(check.n), check.n)])
    return rows
