"""The review list on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_nacl.prediction.review_lists import ReviewList

__all__ = ["print_list"]

_SHOWN = 10  # lines


def print_list(found: ReviewList, output: Path, what: str = "scans") -> None:
    """Prints the cases to look at first and why, the notes, and where the whole list is.

    Args:
        found: The list.
        output: Folder that it was written to.
        what: The cases are called.
    """
    from nnunet_nacl.documents.review_list import has_intervals, table_text
    from nnunet_nacl.json_files import one_line
    from nnunet_nacl.prediction.review_lists import PAGE, REVIEW

    rows, shown = found.rows, min(_SHOWN, len(found.rows))
    print(f"{len(rows)} {what}, {found.n_to_look_at} need a look; lowest expected Dice first ({shown} of {len(rows)}):")
    print(table_text(rows, rows=shown, predicted=found.predicted))
    if has_intervals(found.predicted):
        print("In brackets: 90 % intervals, for patients like those that the map was learned from.")
    for case in [row.case for row in rows if found.reasons[row.case]][:_SHOWN]:
        print(f"  {one_line(case)}: {one_line('; '.join(found.reasons[case]))}")
    for note in found.notes:
        print(f"note: {note}")
    print(f"\nlist: {output / PAGE}\n      {output / REVIEW}")
    print("The order is a ranking, no threshold is validated. Research software, not for clinical use.")
