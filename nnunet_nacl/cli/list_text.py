"""The text that `predict` and `review` print: the cases to look at first, and where files are."""

from __future__ import annotations

import math
from typing import Any

from nnunet_nacl.cases.findings import FINDINGS
from nnunet_nacl.nnunet.output import MAPS_FOLDER, SENSITIVE
from nnunet_nacl.utilities.errors import one_line, shorten, some
from nnunet_nacl.utilities.tables import LONGEST_NAME, text_of
from nnunet_nacl.worklist.deliver import NOT_YET, DeliveredScans
from nnunet_nacl.worklist.list_files import PAGE, PAGES_FOLDER, REVIEW, SCANS, STRUCTURES
from nnunet_nacl.worklist.prediction_document import RESEARCH
from nnunet_nacl.worklist.reasons import dice_text, worst_first
from nnunet_nacl.worklist.review_list import ReviewList
from nnunet_nacl.worklist.slicer import TO_EDIT

_SHOWN = 10  # lines
_WORST = 3  # structures


def delivered_text(delivered: DeliveredScans, name: str, with_slicer: bool) -> str:
    """The list, and where it and other files are.

    Args:
        delivered: What was written.
        name: What a case is called, ``scan`` or ``case``.
        with_slicer: Whether files for 3D Slicer were written.
    """
    output = delivered.output
    lines = [*_list_lines(delivered, name)]
    if with_slicer:
        lines.append(f"3D Slicer: open {output / PAGES_FOLDER} in SegmentationReview")
    if delivered.kept_masks:
        folder = output / PAGES_FOLDER / TO_EDIT
        kept = f"{folder} keeps {len(delivered.kept_masks)} masks of an earlier run"
        lines.append(f"note: {kept}; remove it to have them made anew.")
    lines.append(f"segmentations: {output}")
    if delivered.review_list.run.aims.sensitive is not None:
        lines.append(delivered.review_list.run.aims.sensitive.text(str(output / SENSITIVE)))
    if delivered.maps:
        lines.append(
            f"maps: {output / MAPS_FOLDER}/{name.upper()}/   ({', '.join(delivered.maps)})"
        )
    n_waiting = list(delivered.review_list.run.problems.values()).count(NOT_YET)
    if n_waiting:
        lines.append(
            f"{n_waiting} {name}s of other parts are not done yet, or failed; their own run says"
            " why."
        )
    return "\n".join(lines)


def _list_lines(delivered: DeliveredScans, name: str) -> list[str]:
    """The cases to look at first and why, the notes, and where the list is."""
    listed = delivered.review_list
    output = delivered.output
    lines = []
    if len(listed.scans):
        shown = f"{min(_SHOWN, len(listed.scans))} of {len(listed.scans)} {name}s"
        if listed.unlike_batch is not None:
            lines.append(f"{listed.elsewhere_text} {listed.remedy_text}\n")
        lines.append(
            f"{listed.summary}\nPredicted Dice, the lowest first ({shown}):\n{_table_text(listed)}"
        )
    if listed.structures.dice_low.notna().any():
        lines.append(
            "In brackets: 90 % intervals, for patients like those that the map was learned from."
        )
    if not all(listed.is_supported(case) for case in listed.scans.index[:_SHOWN]):
        lines.append("!: not supported, the scan is unlike those.")
    for case in listed.cases("is_flagged")[:_SHOWN]:
        reasons = listed.reasons(case)
        if reasons:
            lines.append(f"  {one_line(case)}: {one_line('; '.join(reasons))}")
    chosen = sorted(listed.cases("is_random"))
    if chosen:
        lines.append(f"Chosen by chance, to be looked at too: {one_line(some(chosen, _SHOWN))}")
    lines += [f"note: {note}" for note in listed.run.notes]
    lines.append(f"\nlist: {output / PAGE}")
    lines += [f"      {output / table}" for table in (REVIEW, STRUCTURES, SCANS)]
    if any(listed.records[case].findings for case in listed.scans.index):
        lines.append(f"findings: {output / FINDINGS}")
    lines.append(RESEARCH)
    return lines


def _table_text(listed: ReviewList) -> str:
    """The first rows of the list: predicted Dice of each structure, of more than three the worst
    three."""
    is_many = listed.structures.key.nunique() > _WORST
    rows = []
    first: list[Any] = list(listed.scans[:_SHOWN].itertuples())
    for rank, scan in enumerate(first, 1):
        row = {"rank": rank, "case": scan.Index}
        structures = listed.structures.loc[[scan.Index]]
        if is_many:
            structures = worst_first(structures)[:_WORST]
        of_scan: list[Any] = list(structures.itertuples())
        for number, structure in enumerate(of_scan, 1):
            cell = _cell_text(structure, not listed.is_supported(str(scan.Index)))
            if is_many:
                row[f"worst {number}"] = f"{shorten(structure.name, LONGEST_NAME)} {cell}"
            else:
                row[structure.name] = cell
        rows.append(row)
    return text_of(rows, keys=2)


def _cell_text(structure: Any, is_unlike: bool) -> str:
    """Predicted Dice of a structure, a row of a frame, and how probably it is present where that is
    known."""
    text = dice_text(structure)
    if is_unlike and not math.isnan(structure.dice_low):
        text += "!"
    if not math.isnan(structure.present):
        text += f", present {structure.present:.2f}"
    return text
