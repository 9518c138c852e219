"""The review list on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_nacl.json_files import one_line
from nnunet_nacl.show.text_table import aligned

if TYPE_CHECKING:
    from nnunet_nacl.review.review_list import ReviewList
    from nnunet_nacl.review.row import CaseReview, StructureReview

_SHOWN = 10  # lines


def print_list(listed: ReviewList, output: Path, name: str = "scans") -> None:
    """Prints the cases to look at first and why, the notes, and where the whole list is.

    Args:
        listed: The list.
        output: Folder that it was written to.
        name: The cases are called.
    """
    from nnunet_nacl.documents.finding_list import FINDINGS
    from nnunet_nacl.review.review_list import DETAILS, PAGE, REVIEW

    rows, shown = listed.rows, min(_SHOWN, len(listed.rows))
    need = f"{listed.n_to_look_at} need{'s' * (listed.n_to_look_at == 1)} a look"
    if rows:
        print(f"{len(rows)} {name}, {need}; lowest predicted Dice first ({shown} of {len(rows)}):")
        print(*table_lines(rows[:shown], listed.predicts_dice), sep="\n")
    if any(not math.isnan(structure.dice_interval[0]) for row in rows for structure in row.structures):
        print("In brackets: 90 % intervals, for patients like those that the map was learned from.")
    if listed.thresholds:
        print(f"{listed.thresholds.explanation}; -threshold changes it.")
    for case in [row.case for row in rows if listed.reasons[row.case]][:_SHOWN]:
        print(f"  {one_line(case)}: {one_line('; '.join(listed.reasons[case]))}")
    for note in listed.notes:
        print(f"note: {note}")
    print(f"\nlist: {output / PAGE}\n      {output / REVIEW}\n      {output / DETAILS}")
    if any(listed.findings.values()):
        print(f"findings: {output / FINDINGS}")
    print("The order is a ranking, no threshold is validated. Research software, not for clinical use.")


def table_lines(rows: Sequence[CaseReview], predicts_dice: bool) -> list[str]:
    """Rows of the list for the terminal.

    Predicted Dice, where a map has learned of it, stands with its interval in the place of the volumes; behind it how
    probably the structure is in the scan, for structures of which that is known.
    """
    from nnunet_nacl.review.row import volume_text

    several = any(row.n_members > 1 for row in rows)
    header = ["rank", "case", "empty", "predicted Dice", "entropy", "confidence"]
    header += ["mutual information"] if several else []
    shown = "predicted Dice" if predicts_dice else rows[0].unit
    known = [not all(math.isnan(each.present) for each in column) for column in zip(*(row.structures for row in rows))]
    lines = [header]
    for structure, has_presence in zip(rows[0].structures, known):
        lines[0] = [*lines[0], f"{structure.name} ({shown})", *(["there"] if has_presence else [])]
    for rank, row in enumerate(rows, 1):
        numbers = [row.lowest_predicted_dice, row.mean_foreground_entropy, row.mean_foreground_confidence]
        numbers += [row.mean_foreground_mutual_information] if several else []
        empty = "yes" if row.empty else ", ".join(row.empty_structures) or "-"
        lines.append([str(rank), row.case, empty])
        lines[-1] += ["-" if math.isnan(x) else f"{x:.3f}" for x in numbers]
        for structure, has_presence in zip(row.structures, known):
            if predicts_dice:
                lines[-1].append(_with_interval(structure))
            else:
                spread = "" if structure.volume_sd is None else f" +- {volume_text(structure.volume_sd, 2)}"
                lines[-1].append(volume_text(structure.volume, 4) + spread)
            if has_presence:
                lines[-1].append("-" if math.isnan(structure.present) else f"{structure.present:.2f}")
    return aligned(lines, (1, 2), "")


def _with_interval(structure: StructureReview) -> str:
    low, high = structure.dice_interval
    if math.isnan(structure.predicted_dice):
        return "-"
    return f"{structure.predicted_dice:.2f}" + ("" if math.isnan(low) else f" ({low:.2f}-{high:.2f})")
