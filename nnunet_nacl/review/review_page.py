"""index.html: the review list with a picture of every case, a file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from nnunet_nacl.review.reasons import dice_text
from nnunet_nacl.review.review_list import PAGE, ReviewList, page_of
from nnunet_nacl.review.row import CaseReview, StructureReview, volume_text
from nnunet_nacl.show.rendering import render_page

LARGEST_PAGE = 10_000_000
"""Characters of a page that shows all cases."""
ROWS_OF_A_PAGE = 100

_UNITS = {"mm2": "mm²"}
_MOST_STRUCTURES, _SHOWN = 4, 3  # of more, those with a reason and the worst are shown, the rest folds open


def review_page(listed: ReviewList) -> dict[str, str]:
    """The page of a list, with a picture of every case that has one, by the name of its file.

    Above ``LARGEST_PAGE`` it is one page for every ``ROWS_OF_A_PAGE`` cases, linked: ``index_2.html`` and so on.
    """
    rows = [_row(rank, row, listed) for rank, row in enumerate(listed.rows, 1)]
    if len(text := _render(listed, rows)) <= LARGEST_PAGE:
        return {PAGE: text}
    parts = [rows[start : start + ROWS_OF_A_PAGE] for start in range(0, len(rows), ROWS_OF_A_PAGE)]
    names = [PAGE, *(f"index_{number}.html" for number in range(2, len(parts) + 1))]
    return {name: _render(listed, part, names, name) for name, part in zip(names, parts)}


def _render(listed: ReviewList, rows: Sequence[dict[str, Any]], pages: Sequence[str] = (), here: str = PAGE) -> str:
    """A page with some of the rows, and links to the others."""
    several = len(listed.members) > 1
    return render_page(
        "review.html",
        ("marks.js", "page.js", "list.js"),
        list=listed,
        rows=rows,
        pages=pages,
        here=here,
        date=f"{datetime.now():%Y-%m-%d}",
        columns=_columns(listed),
        several=several,
        scored=listed.scored,
        learned=listed.quality is not None,
        present=any(not math.isnan(structure.present) for row in listed.rows for structure in row.structures),
        no_intervals=why_no_intervals(listed),
    )


def _row(rank: int, review: CaseReview, listed: ReviewList) -> dict[str, Any]:
    finished = listed.finished[review.case]
    cells = [_cell(review.score, f"{review.score:.2g}")] if listed.scored else []
    reasons, more = listed.reasons[review.case], list[str]()
    if len(review.structures) > _MOST_STRUCTURES:
        worst = review.worst_first
        named = {name for names in reasons.values() for name in names} | {each.name for each in worst[:_SHOWN]}
        lines = {each.name: f"{each.name} {', '.join(structure_lines(each, review, listed))}" for each in worst}
        more = [line for name, line in lines.items() if name not in named]
        cells.append({"lines": [line for name, line in lines.items() if name in named], "value": None})
    else:
        cells += [_cell(each.predicted_dice, *structure_lines(each, review, listed)) for each in review.structures]
    return {
        "rank": rank,
        "case": review.case,
        "page": quote(page_of(review.case)) if review.case in listed.paged else "",
        "reasons": listed.why(review.case),
        "more": more,
        "place": finished.place,
        "picture": f"data:image/png;base64,{finished.picture}",
        "size": finished.size,
        "cells": cells,
    }


def _columns(listed: ReviewList) -> list[str]:
    names = listed.structures
    return [*(["score"] if listed.scored else []), *(names if len(names) <= _MOST_STRUCTURES else ["worst structures"])]


def structure_lines(structure: StructureReview, review: CaseReview, listed: ReviewList) -> list[str]:
    """What is said of a structure in a scan: predicted Dice, volume, both with intervals, what the map has learned."""
    known = not math.isnan(structure.dice_interval[0])
    lines = ["not segmented" if math.isnan(structure.predicted_dice) else dice_text(structure)]
    lines += ["interval not supported"] if review.unlike and known else []
    lines += ["predicted Dice no better than a constant"] if structure.says_nothing else []
    low, high = map(volume_text, structure.volume_interval)
    predicted = f" (predicted {volume_text(structure.predicted_volume)}, {low} to {high})"
    known = not math.isnan(structure.volume_interval[0])
    lines.append(f"{volume_text(structure.volume)} {_UNITS.get(review.unit, review.unit)}{predicted if known else ''}")
    return lines if math.isnan(structure.present) else [*lines, f"in the scan: {structure.present:.2f}"]


def why_no_intervals(listed: ReviewList) -> str:
    """Why volumes have no interval, in words; empty where they have."""
    if not listed.rows or any(not math.isnan(s.volume_interval[0]) for row in listed.rows for s in row.structures):
        return ""
    if listed.quality is None:
        return "no calibration map knows such segmentations (nnunet_nacl calibrate learns one)"
    known, unit = listed.quality.of_map.unit, listed.rows[0].unit
    if known != unit:
        return f"the calibration map learned volumes in {known}, these are in {unit}"
    return "the calibration map learned from fewer than nine patients"


def _cell(value: float, *lines: str) -> dict[str, Any]:
    known = not math.isnan(value)
    return {"lines": [line if known or i else "-" for i, line in enumerate(lines)], "value": value if known else None}
