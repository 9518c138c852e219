"""What `predict` and `review` say: the cases to look at first, and what a decision changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_nacl.errors import some
from nnunet_nacl.json_files import one_line
from nnunet_nacl.show.text_table import aligned, effect_table, number
from nnunet_nacl.show.worst_structures import worst_of

if TYPE_CHECKING:
    from nnunet_nacl.documents.decision_json import DecidedCase
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
    from nnunet_nacl.review.review_list import PAGE, RESEARCH, REVIEW, SCANS, STRUCTURES
    from nnunet_nacl.runs.components import FINDINGS

    rows, shown = listed.rows, min(_SHOWN, len(listed.rows))
    if rows:
        order = "score" if listed.scored else "predicted Dice"
        print(f"{listed.summary}\n{len(rows)} {name}, lowest {order} first ({shown} of {len(rows)}):")
        print(*table_lines(rows[:shown], listed.predicts_dice, listed.scored), sep="\n")
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


def table_lines(rows: Sequence[CaseReview], predicts_dice: bool, scored: bool) -> list[str]:
    """Rows of the list, with or without score; of each structure the volume, or predicted Dice where a map learned it.

    Behind it stands how probably the structure is in the scan, where that is known. Of more than three structures a row
    names the worst three, and says how many more there are.
    """
    from nnunet_nacl.review.row import volume_text

    shown, more = "predicted Dice" if predicts_dice else rows[0].unit, len(rows[0].structures) - _WORST
    names = [f"{structure.name} ({shown})" for structure in rows[0].structures]
    names = [f"worst structures ({shown})", "", "", ""] if more > 0 else names
    lines = [["rank", "case", *["score"] * scored, "lowest predicted Dice", *names]]
    for rank, row in enumerate(rows, 1):
        lines.append([str(rank), row.case, *[number(row.score)] * scored, number(row.lowest_predicted_dice)])
        for structure in row.worst_first[:_WORST] if more > 0 else row.structures:
            (low, high), cell = structure.dice_interval, volume_text(structure.volume, 4)
            if predicts_dice:
                interval = "" if math.isnan(low) else f" ({low:.2f}-{high:.2f})" + "!" * bool(row.unlike)
                cell = f"{number(structure.predicted_dice, 2)}{interval}"
            cell = cell if math.isnan(structure.present) else f"{cell}, there {structure.present:.2f}"
            lines[-1].append(f"{structure.name} {cell}" if more > 0 else cell)
        lines[-1] += [f"and {more} more"] if more > 0 else []
    return aligned(lines, (1, *range(3 + scored, 6 + scored)) if more > 0 else (1,), "")


def decision_lines(
    cases: Sequence[DecidedCase],
    names: Mapping[str, str],
    groups: Mapping[str, str] | None = None,
    *,
    every: bool = False,
) -> list[str]:
    """What `review -decide` changed: voxels, expected and, where there is ground truth, true Dice of each structure.

    Expected Dice is a mean over the cases whose prediction has the structure; one that was removed counts 0. True Dice
    is a mean over the cases where it is defined before and after; its change has a 95 % bootstrap interval over cases,
    or over patients where these are known. The ten structures with the lowest expected Dice are shown, or every one.
    """
    lines = [f"{len(cases)} cases decided, {sum(case.n_changed for case in cases)} voxels have another label."]
    table = [["structure", "voxels gained", "lost", "expected Dice: predicted", "decided"]]
    expected = {}
    for key in names:
        rows = [case.structures[key] for case in cases]
        present = [(row.expected_dice_before, row.expected_dice_after) for row in rows if row.voxels_before]
        expected[key] = np.nan_to_num(present).mean(axis=0) if present else np.full(2, math.nan)
    shown, more = worst_of(((key, dice[1]) for key, dice in expected.items()), every)
    names = {key: names[key] for key in shown}
    for key, name in names.items():
        rows = [case.structures[key] for case in cases]
        voxels = [sum(row.gained for row in rows), sum(row.lost for row in rows)]
        table.append([name, *map(str, voxels), *(number(value, 4) for value in expected[key])])
    lines += [*aligned(table, indent=""), *more]
    measured = [case for case in cases if case.measured]
    if measured:
        from nnunet_nacl.calibration.effect import changes

        patients = [groups[case.case] for case in measured] if groups else None
        before = {f"Dice {key}": [case.structures[key].dice_before for case in measured] for key in names}
        after = {f"Dice {key}": [case.structures[key].dice_after for case in measured] for key in names}
        over = f" over {len(set(patients))} patients, each with all its cases" if patients else " over cases"
        lines += ["", f"true Dice as predicted and as decided, the interval{over}:"]
        lines.append(effect_table(changes(before, after, patients), names))
        if len(measured) < len(cases):
            lines.append(f"{len(cases) - len(measured)} cases have no ground truth and are not in the true Dice.")
    for key, name in names.items():
        for words, kind in (("removed altogether", "removed"), ("added", "added")):
            if changed := [case for case in cases if getattr(case.structures[key], kind)]:
                lines.append(f"{words}: {one_line(name)} in {', '.join(_named(case, key) for case in changed)}")
    of_all = [item for case in cases for item in case.structures.items()]
    if others := {key for key, row in of_all if row.removed or row.added} - names.keys():
        lines.append(f"{len(others)} of the other structures were removed or added in some cases (--verbose)")
    return lines


def _named(case: DecidedCase, key: str) -> str:
    """A case in which a structure was added or removed; true Dice leaves those out whose truth lacks it."""
    row = case.structures[key]
    lacks = case.measured and math.isnan(row.dice_before if row.added else row.dice_after)
    return one_line(case.case) + (" (not in the truth)" if lacks else "")
