"""What is said about what is there, against the truth: is a structure in the scan, is a finding real."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nnunet_nacl.cases.held_out_presence import CONSTANT, HeldOutPresence
from nnunet_nacl.json_files import one_line
from nnunet_nacl.show.text_table import Cell, Table, aligned, number, texts_of

if TYPE_CHECKING:  # it loads pandas, which `evaluate` does without
    from nnunet_nacl.comparison.comparison import Comparison

PRESENCE = "presence"  # with this its ids begin
_TITLE = "Is it there, is it real"
_SHARES = ("0.5", "0.7", "0.8")
_FROC = "alarms at {} %"
_ALARMS = "false alarms a scan where so many percent of the truth's parts are found (FROC)"
_CAPTION = (
    "Is it there, is it real, on {}: for structures that some scans lack, or that are in pieces in most, how probably "
    "one is in the scan, and how probably a connected part of it (a finding) overlaps the truth, learned from other "
    "patients. Brier score, beside that of a constant (the share of the other patients), AUROC and "
    f"ECE; alarms: {_ALARMS}, findings taken from the most probable downwards."
)


def presence_text(found: HeldOutPresence, *, every_kind: bool = False) -> str:
    """The table of one method for the terminal; empty where there is nothing to say.

    Args:
        found: What was learned, and how it does.
        every_kind: Also probabilities that are not learned, such as the largest of the voxels.
    """
    rows = _rows(found, every_kind)
    lines = []
    if rows:
        lines = [*aligned([_header(), *texts_of(rows)], indent=""), f"alarms: {_ALARMS}"]
    nothing = [f"{found.names[key]} ({why})" for key, why in found.why_not.items()]
    return "\n".join([*lines, *([f"nothing is said of {one_line('; '.join(nothing))}"] if nothing else [])])


def presence_tables(comparison: Comparison, presence: Mapping[str, Mapping[str, HeldOutPresence]]) -> list[Table]:
    """The table of each data set; none where no method's documents tell.

    Args:
        comparison: What was computed.
        presence: By data set and name of an entry.
    """
    tables = []
    for dataset in comparison.datasets:
        rows = [[one.label, *row] for one in comparison.entries for row in _rows(presence[dataset.name][one.name])]
        if rows:
            suffix = f"_{dataset.name}" if len(comparison.datasets) > 1 else ""
            header = ["method", *_header()]
            caption = _CAPTION.format(dataset.where)
            tables.append(Table(f"{PRESENCE}{suffix}", _TITLE, caption, header, rows, dataset.name))
    return tables


def _header() -> list[str]:
    shares = [_FROC.format(f"{100 * float(share):g}") for share in _SHARES]
    return ["probability that", "Brier", "of a constant", "AUROC", "ECE", *shares, "n"]


def _rows(found: HeldOutPresence, every_kind: bool = False) -> list[list[Cell | str]]:
    """A row for each question about each listed structure, and kind of probability."""
    rows: list[list[Cell | str]] = []
    listed = found.learned.listed if found.learned else []
    for question, checks in (("{} is in the scan", found.present), ("a finding of {} is real", found.real)):
        for key, by_kind in checks.items():
            for kind, check in by_kind.items() if key in listed else ():
                if kind == CONSTANT or kind != "learned" and not every_kind:
                    continue
                numbers = [check.brier, by_kind[CONSTANT].brier, check.auroc, check.ece]
                reached = found.alarms.get(key, {}).get(kind, {}) if checks is found.real else {}
                cells = [Cell(number(value), value) for value in numbers]
                cells += [Cell(number(value, 2), value) for value in (reached.get(one, math.nan) for one in _SHARES)]
                what = question.format(found.names[key]) + (f", {kind}" if every_kind else "")
                rows.append([what, *cells, Cell(str(check.n), check.n)])
    return rows
