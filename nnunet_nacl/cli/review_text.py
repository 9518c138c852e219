"""The text that `predict` and `review` print: the head of the list."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_nacl.errors import one_line, some
from nnunet_nacl.show.tables import number, text_of

if TYPE_CHECKING:
    from nnunet_nacl.review.review_list import ReviewList

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
    from nnunet_nacl.review.list_files import PAGE, RESEARCH, REVIEW, SCANS, STRUCTURES

    scans = listed.scans
    if len(scans):
        order = "score" if listed.is_scored else "predicted Dice"
        shown = f"({min(_SHOWN, len(scans))} of {len(scans)})"
        print(f"{listed.summary}\n{len(scans)} {name}, lowest {order} first {shown}:\n{_table_text(listed)}")
    if listed.structures.dice_low.notna().any():
        print("In brackets: 90 % intervals, for patients like those that the map was learned from.")
    if any(scans.unlike[:_SHOWN]):
        print("!: not supported, the scan is unlike those.")
    for case in listed.cases("is_flagged")[:_SHOWN]:
        print(f"  {one_line(case)}: {one_line(scans.why[case])}")
    if drawn := sorted(listed.cases("is_drawn")):
        print(f"Drawn by chance, to be looked at too: {one_line(some(drawn, _SHOWN))}")
    for note in listed.about.notes:
        print(f"note: {note}")
    print(f"\nlist: {output / PAGE}" + "".join(f"\n      {output / file}" for file in (REVIEW, STRUCTURES, SCANS)))
    if any(listed.records[case].findings for case in scans.index):
        print(f"findings: {output / FINDINGS}")
    print(f"{listed.reservation} {RESEARCH}")


def _table_text(listed: ReviewList) -> str:
    """The first rows of the list; of each structure the volume, or predicted Dice where a map learned it.

    Behind it stands how probably the structure is in the scan, where that is known. Of more than three structures a row
    names the worst three, and says how many more there are.
    """
    from nnunet_nacl.review.reasons import volume_text, worst_first

    predicts_dice, more = listed.quality is not None, listed.structures.key.nunique() - _WORST
    shown, lines = "predicted Dice" if predicts_dice else listed.scans.unit.iloc[0], []
    first: list[Any] = list(listed.scans[:_SHOWN].itertuples())
    for rank, scan in enumerate(first, 1):
        line = {"rank": rank, "case": scan.Index} | ({"score": scan.score} if listed.is_scored else {})
        line["lowest predicted Dice"] = scan.lowest_predicted_dice
        structures = listed.structures.loc[[scan.Index]]
        rows: list[Any] = list((worst_first(structures)[:_WORST] if more > 0 else structures).itertuples())
        for i, row in enumerate(rows, 1):
            cell = volume_text(row.volume, 4)
            if predicts_dice:
                known = not math.isnan(row.dice_low)
                interval = f" ({row.dice_low:.2f}-{row.dice_high:.2f})" + "!" * bool(scan.unlike) if known else ""
                cell = f"{number(row.predicted_dice, 2)}{interval}"
            cell = cell if math.isnan(row.present) else f"{cell}, there {row.present:.2f}"
            name = f"worst {i}" if more > 0 else row.name
            line[f"{name} ({shown})"] = f"{row.name} {cell}" if more > 0 else cell
        lines.append(line | ({f"and {more} more": ""} if more > 0 else {}))
    return text_of(lines, keys=2)
