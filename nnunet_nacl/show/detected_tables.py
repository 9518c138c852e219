"""What labels find of structures that some scans lack, or that they miss: Dice where it is there, missed, invented."""

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
ARGMAX, DECIDED = "nnU-Net's labels", "decided (-decide dice)"
_HEADER = ["Dice where it is there", "missed", "invented"]
_CAPTION = (
    "What is found, on {}: for structures that some scans lack, or that a method misses, the mean Dice of the scans "
    "whose truth has them, a missed one counting 0; in how many of these the segmentation lacks it; and in how many of "
    "the others it has it."
)


def detected_text(found: Mapping[str, Mapping[str, Detected]], names: Mapping[str, str]) -> str:
    """The table of one method for the terminal; empty where every scan has every structure and none is missed.

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
    """The table of each data set; none where all scans have all structures and no method misses one."""
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
    return bool(one.n_absent or one.missed)


def _cells(one: Detected) -> list[Cell | str]:
    counts = (one.missed, one.n_there), (one.invented, one.n_absent)
    return [Cell(number(one.dice), one.dice), *(Cell(f"{n} of {all_}", n) for n, all_ in counts)]


def _found_by_decision(found: Mapping[str, Mapping[str, Detected]], names: Mapping[str, str]) -> list[str]:
    """A line for each structure that decided labels find where nnU-Net's do not: nobody would look there."""
    lines = []
    for key, name in names.items() if found.keys() >= {ARGMAX, DECIDED} else ():
        old, new = found[ARGMAX][key], found[DECIDED][key]
        if new.missed < old.missed and new.dice > old.dice:
            shares = (f"{one.n_there - one.missed} of {one.n_there}" for one in (new, old))
            lines.append("The decision finds {} in {} scans, nnU-Net's labels in {}.".format(one_line(name), *shares))
    return lines
