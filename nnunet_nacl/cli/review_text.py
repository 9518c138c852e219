"""What `predict` and `review` say: the cases to look at first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_nacl.errors import one_line, some
from nnunet_nacl.show.tables import number, text_of

if TYPE_CHECKING:
    from nnunet_nacl.review.review_list import ReviewList
    from nnunet_nacl.review.row import CaseReview

_SHOWN = 10  # lines
_WORST = 3  # structures


def print_list(listed: ReviewList, output: Path, name: str = "scans") -> None:
    """Prints the cases to look at first and why, the notes, and where the whole list is.

    Args:
        listed: The list.
        output: Folder that it was written to.
        name: The cases are called.
    """
    from nnunet_nacl.case.findings import FINDINGS
    from nnunet_nacl.review.review_list import PAGE, RESEARCH, REVIEW, SCANS, STRUCTURES

    rows, shown = listed.rows, min(_SHOWN, len(listed.rows))
    if rows:
        order = "score" if listed.scored else "predicted Dice"
        print(f"{listed.summary}\n{len(rows)} {name}, lowest {order} first ({shown} of {len(rows)}):")
        print(table_text(rows[:shown], listed.quality is not None, listed.scored))
    if any(not math.isnan(structure.dice_interval[0]) for row in rows for structure in row.structures):
        print("In brackets: 90 % intervals, for patients like those that the map was learned from.")
    if any(row.unlike for row in rows[:shown]):
        print("!: not supported, the scan is unlike those.")
    for case in [row.case for row in rows if listed.reasons[row.case]][:_SHOWN]:
        print(f"  {one_line(case)}: {one_line('; '.join(listed.reasons[case]))}")
    if listed.drawn:
        print(f"Drawn by chance, to be looked at too: {one_line(some(listed.drawn, _SHOWN))}")
    for note in listed.notes:
        print(f"note: {note}")
    print(f"\nlist: {output / PAGE}" + "".join(f"\n      {output / each}" for each in (REVIEW, STRUCTURES, SCANS)))
    if any(listed.findings.values()):
        print(f"findings: {output / FINDINGS}")
    print(f"{listed.reservation} {RESEARCH}")


def table_text(rows: Sequence[CaseReview], predicts_dice: bool, scored: bool) -> str:
    """Rows of the list, with or without score; of each structure the volume, or predicted Dice where a map learned it.

    Behind it stands how probably the structure is in the scan, where that is known. Of more than three structures a row
    names the worst three, and says how many more there are.
    """
    from nnunet_nacl.review.row import volume_text

    shown, more = "predicted Dice" if predicts_dice else rows[0].unit, len(rows[0].structures) - _WORST
    lines = []
    for rank, row in enumerate(rows, 1):
        line = {"rank": rank, "case": row.case} | ({"score": row.score} if scored else {})
        line["lowest predicted Dice"] = row.lowest_predicted_dice
        for i, structure in enumerate(row.worst_first[:_WORST] if more > 0 else row.structures, 1):
            (low, high), cell = structure.dice_interval, volume_text(structure.volume, 4)
            if predicts_dice:
                interval = "" if math.isnan(low) else f" ({low:.2f}-{high:.2f})" + "!" * bool(row.unlike)
                cell = f"{number(structure.predicted_dice, 2)}{interval}"
            cell = cell if math.isnan(structure.present) else f"{cell}, there {structure.present:.2f}"
            name = f"worst {i}" if more > 0 else structure.name
            line[f"{name} ({shown})"] = f"{structure.name} {cell}" if more > 0 else cell
        lines.append(line | ({f"and {more} more": ""} if more > 0 else {}))
    return text_of(lines, keys=2)
