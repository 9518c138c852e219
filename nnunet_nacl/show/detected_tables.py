"""What labels find of structures that are missed or invented: Dice where it is there, missed, invented."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nnunet_nacl.documents.results import detected_in
from nnunet_nacl.json_files import one_line
from nnunet_nacl.metrics.detection import Detected
from nnunet_nacl.show.text_table import Cell, Table, aligned, number, texts_of

if TYPE_CHECKING:  # it loads pandas, which `evaluate` does without
    from nnunet_nacl.comparison.comparison import Comparison

DETECTED = "detected"  # with this its ids begin
LABELS = {"argmax": "nnU-Net's labels", "decided": "decided (-decide dice)", "fbeta": "decided for F-beta"}
"""Kinds of labels, for people."""
_HEADER = ["Dice where it is there", "missed", "invented"]
_CAPTION = (
    "What is found, on {}: for structures that a method misses or invents, the mean Dice of the scans "
    "whose truth has them, a missed one counting 0; in how many of these the segmentation lacks it; and in how many of "
    "the others it has it."
)


def detected_text(found: Mapping[str, Mapping[str, Detected]], names: Mapping[str, str]) -> str:
    """The table of one method for the terminal; empty where nothing is missed or invented.

    Args:
        found: By kind of labels and structure.
        names: Name of each structure by nnU-Net's key.
    """
    rows = [
        [one_line(name), kind, *_cells(by_key[key])]
        for key, name in names.items()
        if any(_shown(by_key[key]) for by_key in found.values())
        for kind, by_key in found.items()
    ]
    if not rows:
        return ""
    lines = aligned([["structure", "labels", *_HEADER], *texts_of(rows)], indent="")
    return "\n".join([*lines, *_found_by_decision(found, names)])


def detected_tables(comparison: Comparison) -> list[Table]:
    """The table of each data set; none where no method misses or invents a structure."""
    tables = []
    for dataset in comparison.datasets:
        found = {entry.label: detected_in(dataset.results[entry.name]) for entry in comparison.entries}
        shown = [key for key in dataset.structures if any(_shown(by_key[key]) for by_key in found.values())]
        rows: list[list[Cell | str]] = [
            [dataset.structures[key], label, *_cells(by_key[key])] for key in shown for label, by_key in found.items()
        ]
        if rows:
            suffix = f"_{dataset.name}" if len(comparison.datasets) > 1 else ""
            header, caption = ["structure", "method", *_HEADER], _CAPTION.format(dataset.where)
            tables.append(Table(f"{DETECTED}{suffix}", "What is found", caption, header, rows, dataset.name))
    return tables


def _shown(one: Detected) -> bool:
    return bool(one.missed or one.invented)


def _cells(one: Detected) -> list[Cell | str]:
    counts = (one.missed, one.n_there), (one.invented, one.n_absent)
    return [Cell(number(one.dice), one.dice), *(Cell(f"{n} of {all_}", n) for n, all_ in counts)]


def _found_by_decision(found: Mapping[str, Mapping[str, Detected]], names: Mapping[str, str]) -> list[str]:
    """A line for each structure that decided labels find where nnU-Net's do not: nobody would look there."""
    lines = []
    both = [found.get(LABELS[kind], {}) for kind in ("argmax", "decided")]
    for key, name in names.items() if all(both) else ():
        old, new = (by_key[key] for by_key in both)
        if new.missed < old.missed and new.dice > old.dice:
            shares = (f"{one.n_there - one.missed} of {one.n_there}" for one in (new, old))
            line = "The decision finds {} in {} scans, nnU-Net's labels in {}".format(one_line(name), *shares)
            more = new.invented - old.invented
            lines.append(f"{line}, and invents it in {more} more of {new.n_absent}." if more > 0 else f"{line}.")
    return lines
