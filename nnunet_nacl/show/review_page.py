"""index.html: the review list with a picture of every case, a file that needs nothing else; and these pictures."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from nnunet_nacl.documents.finding_list import StructureFindings
from nnunet_nacl.errors import UserError
from nnunet_nacl.io.companion_files import read_image
from nnunet_nacl.io.geometry import slicing_axis
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.prediction.preprocessed_case import CompactImage
from nnunet_nacl.review.reasons import dice_text
from nnunet_nacl.review.review_list import PAGE, ReviewList
from nnunet_nacl.review.reviewed_case import FinishedCase, ReviewedCase
from nnunet_nacl.review.row import CaseReview, StructureReview, volume_text
from nnunet_nacl.show.drawing import draw_labels
from nnunet_nacl.show.page import render_page
from nnunet_nacl.show.slices import View

LARGEST_PAGE = 10_000_000
"""Characters of a page that shows all cases."""
ROWS_OF_A_PAGE = 100

_UNITS = {"mm2": "mm²"}
_MOST_FINDINGS = 10
_LONG_SIDE = (180, 240)  # pixels of a picture
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
        list=listed,
        rows=rows,
        pages=pages,
        here=here,
        date=f"{datetime.now():%Y-%m-%d}",
        columns=_columns(listed, several),
        several=several,
        scored=listed.scored,
        learned=listed.predicts_dice,
        present=any(not math.isnan(structure.present) for row in listed.rows for structure in row.structures),
        findings=any(listed.findings.values()),
    )


def _row(rank: int, review: CaseReview, listed: ReviewList) -> dict[str, Any]:
    finished, unit = listed.finished[review.case], _UNITS.get(review.unit, review.unit)
    cells = [_cell(review.score, f"{review.score:.2g}")] if listed.scored else []
    cells.append(_cell(lowest := review.lowest_predicted_dice, f"{lowest:.2f}"))
    if review.n_members > 1:
        members = [s.members_dice for s in review.structures if not math.isnan(s.members_dice)]
        cells.append(_cell(dice := min(members, default=math.nan), f"{dice:.2f}"))
    reasons, more = listed.reasons[review.case], list[str]()
    if len(review.structures) > _MOST_STRUCTURES:
        worst = review.worst_first
        named = {name for names in reasons.values() for name in names} | {each.name for each in worst[:_SHOWN]}
        lines = {
            each.name: f"{each.name} {', '.join(_lines(each, listed, unit, bool(review.unlike)))}" for each in worst
        }
        more = [line for name, line in lines.items() if name not in named]
        cells.append({"lines": [line for name, line in lines.items() if name in named], "value": None})
    else:
        cells += [
            _cell(each.predicted_dice, *_lines(each, listed, unit, bool(review.unlike))) for each in review.structures
        ]
    return {
        "rank": rank,
        "case": review.case,
        "reasons": listed.why(review.case),
        "more": more,
        "place": finished.place,
        "picture": f"data:image/png;base64,{finished.picture}",
        "size": finished.size,
        "cells": cells,
        "findings": _findings(listed.findings[review.case], unit),
    }


def _findings(structures: Sequence[StructureFindings], unit: str) -> list[str]:
    """A line for each finding, the most probable first, and what is not shown."""
    length = "pixels" if unit == "pixels" else "mm"
    all_of_them = [(structure.name, finding) for structure in structures for finding in structure.found]
    all_of_them.sort(key=lambda item: -item[1].real_probability if item[1].real_probability >= 0 else 1.0)
    lines = []
    for name, finding in all_of_them[:_MOST_FINDINGS]:
        known = not math.isnan(finding.real_probability)
        real = f"real with a probability of {finding.real_probability:.2f}, " if known else ""
        place = ", ".join(f"{value:.0f}" for value in finding.centre_mm)
        size = f"{volume_text(finding.volume)} {unit}, diameter {volume_text(finding.diameter_mm)} {length}"
        lines.append(f"{name}: {real}{size}, centre ({place}) {length}")
    more = len(all_of_them) - len(lines) + sum(structure.n_more for structure in structures)
    return [*lines, f"and {more} more in findings.csv"] if more else lines


def _columns(listed: ReviewList, several: bool) -> list[str]:
    names = listed.structures
    columns = [*(["score"] if listed.scored else []), "lowest predicted Dice"]
    columns += ["lowest Dice between folds"] if several else []
    return [*columns, *(names if len(names) <= _MOST_STRUCTURES else ["worst structures"])]


def _lines(structure: StructureReview, listed: ReviewList, unit: str, unlike: bool) -> list[str]:
    """What is said of a structure in a row: predicted Dice, volume, what the map has learned."""
    known = not math.isnan(structure.dice_interval[0])
    lines = ["-" if math.isnan(structure.predicted_dice) else dice_text(structure)]
    lines += ["interval not supported"] if unlike and known else []
    lines += ["predicted Dice no better than a constant"] if structure.says_nothing else []
    lines.append(f"{volume_text(structure.volume)} {unit}")
    if listed.quality:
        low, high = structure.volume_interval
        interval = "" if math.isnan(low) else f" ({volume_text(low)} to {volume_text(high)})"
        lines.append(f"predicted {volume_text(structure.predicted_volume)}{interval}")
    return lines if math.isnan(structure.present) else [*lines, f"in the scan: {structure.present:.2f}"]


def _cell(value: float, *lines: str) -> dict[str, Any]:
    known = not math.isnan(value)
    return {"lines": [line if known or i else "-" for i, line in enumerate(lines)], "value": value if known else None}


def draw_thumbnail(folder: PredictionFolder, reviewed: ReviewedCase, image: CompactImage | None = None) -> FinishedCase:
    """What is kept of a case: the first channel with the segmentation over it, a ring around the least certain voxel.

    Args:
        folder: Of the data set, on whose plans the direction of the slice depends.
        reviewed: The case, its segmentation and row.
        image: Of the case; None reads it. Where it is not where nnU-Net's files say, there is no picture.
    """
    if image is None:
        try:
            channel = read_image(folder, reviewed.case.name, 0, reviewed.case.segmentation.shape)
        except UserError:
            return reviewed.finished
        image = CompactImage(channel[None])
    geometry, labels, index = reviewed.case.geometry, reviewed.case.labels, reviewed.place.index
    axis = slicing_axis(geometry.spacing_mm, folder.plans)
    where = np.zeros([n for i, n in enumerate(image.shape) if i != axis], bool)
    where[tuple(value for i, value in enumerate(index) if i != axis)] = True
    occupied = (np.take(reviewed.case.segmentation, index[axis], axis) != 0) | where
    view = View.around(occupied, axis, index[axis], geometry, _LONG_SIDE)
    masks = [labels.mask(view(reviewed.case.segmentation), channel) for channel in labels.foreground]
    [[row, column]] = np.argwhere(view.flat(where)).tolist()
    grey = view.flat(image.slice(axis, index[axis]))
    png = draw_labels(grey, masks, view.grid, edges=view.edges, mark=(row, column))
    height, width = view.grid.pixels
    where_shown = [view.name(image.shape[axis]), f"at {labels.names[reviewed.place.channel]}"]
    picture = base64.b64encode(png).decode()
    return replace(reviewed.finished, place=", ".join(filter(None, where_shown)), picture=picture, size=(width, height))
