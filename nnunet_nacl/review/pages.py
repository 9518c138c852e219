"""Writes the pages of a review list: index.html with a picture of each scan, and a page for each scan."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup

from nnunet_nacl.case.findings import StructureFindings
from nnunet_nacl.case.record import RECORDS, read_pictures, record_path
from nnunet_nacl.files import write_atomically
from nnunet_nacl.review.list_files import PAGE, csv_texts, page_of, remove_list
from nnunet_nacl.review.reasons import dice_text, volume_text, worst_first
from nnunet_nacl.review.review_list import ReviewList
from nnunet_nacl.show.rendering import render_page

LARGEST_PAGE = 10_000_000
"""Characters of a page that shows all cases."""
ROWS_OF_A_PAGE = 100
MOST_FINDINGS = 5
"""Of a structure on a page."""

_UNITS = {"mm2": "mm²"}
_MOST_STRUCTURES = 4  # of more, the worst are shown
_STRIP_BINS, _STRIP_HEIGHT, _DOT = 80, 120, 9  # bins from 0 to 1; pixels of the dots on each other, and of one
_FOR_SCRIPT = ("slices", "first", "of", "axis")


def write_list(listed: ReviewList, output: Path) -> None:
    """Write the tables and pages of a list in place of those of an earlier run; UserError if one cannot be written."""
    remove_list(output)  # another part may have written one
    for name, text in csv_texts(listed).items():
        write_atomically(output / name, text)
    for name, text in all_pages(listed, output):
        write_atomically(output / name, text)


def all_pages(listed: ReviewList, output: Path) -> Iterator[tuple[str, str]]:
    """Place in the output folder and text of the list's pages, then of each scan's, one at a time."""
    yield from review_page(listed).items()
    paged = listed.cases("has_page")
    for place, case in enumerate(paged):
        beside = {"prev": paged[place - 1 : place] if place else [], "next": paged[place + 1 : place + 2]}
        links = {way: f"{quote(name)}.html" for way, names in beside.items() for name in names}
        yield page_of(case), _scan_page(listed, case, links, output)


def review_page(listed: ReviewList) -> dict[str, str]:
    """The page of a list, with a picture of every case that has one, by the name of its file.

    Above ``LARGEST_PAGE`` it is one page for every ``ROWS_OF_A_PAGE`` cases, linked: ``index_2.html`` and so on.
    """
    rows = [_row(rank, scan, listed) for rank, scan in enumerate(listed.scans.itertuples(), 1)]
    if len(text := _render_list(listed, rows)) <= LARGEST_PAGE:
        return {PAGE: text}
    parts = [rows[start : start + ROWS_OF_A_PAGE] for start in range(0, len(rows), ROWS_OF_A_PAGE)]
    names = [PAGE, *(f"index_{number}.html" for number in range(2, len(parts) + 1))]
    return {name: _render_list(listed, part, names, name) for name, part in zip(names, parts)}


def _render_list(
    listed: ReviewList, rows: Sequence[dict[str, Any]], pages: Sequence[str] = (), page: str = PAGE
) -> str:
    """A page with some of the rows, and links to the others."""
    return render_page(
        "review.html",
        ("marks.js", "page.js", "list.js"),
        list=listed,
        rows=rows,
        pages=pages,
        this_page=page,
        date=f"{datetime.now():%Y-%m-%d}",
        strip=_strip(listed),
        learned=listed.quality and listed.quality.learned,
        page_of=page_of,
    )


def _row(rank: int, scan: Any, listed: ReviewList) -> dict[str, Any]:
    """What the page says of a scan."""
    structures = listed.structures.loc[[scan.Index]]
    more = len(structures) - _MOST_STRUCTURES
    shown = _structures(listed, worst_first(structures)[:_MOST_STRUCTURES] if more > 0 else structures)
    return {"rank": rank, "scan": scan, "record": listed.records[scan.Index], "structures": shown, "more": more}


def _strip(listed: ReviewList) -> dict[str, Any]:
    """All scans as dots by their score, those of one bin on each other; across in percent of the width, up in pixels.

    A score is shown as a predicted Dice where one Dice is bad for all structures. The limit is the edge of a bin.
    """
    flags, scans = listed.aims.flags, listed.scans.sort_values(["is_flagged", "is_drawn"], ascending=False)
    bad = set(flags.bad.values()) if flags else {0.0}
    low, above = (0.0, min(bad)) if len(bad) == 1 else (-1.0, 0.0)
    edge = flags.threshold or 0.0 if flags else 0.0
    places = (np.ceil((scans.score - edge) * _STRIP_BINS) - 0.5) / _STRIP_BINS + edge
    below = scans.groupby(places.fillna(math.inf)).cumcount()
    step = min(_DOT, _STRIP_HEIGHT / max(below.max(), 1))

    def across(dice: Any) -> Any:
        return 4 + 92 * (dice - low) / (1 - low)

    return {
        "dots": list(zip(scans.itertuples(), scans.score + above, across(places + above).fillna(1.5), below * step)),
        "limit": (edge + above, across(edge + above)) if listed.has_limit else None,
        "ticks": {f"{tick:g}": across(tick) for tick in np.linspace(low, 1, 6).round(1).tolist()},
        "height": step * below.max() + 2 * _DOT,
        "is_less_bad": len(bad) > 1,
    }


def _scan_page(listed: ReviewList, case: str, beside: dict[str, str], output: Path) -> str:
    """The page of a scan, from what the list says of it and from the pictures that were drawn of it."""
    scan, record = listed.scans.loc[case], listed.records[case]
    pictures = read_pictures(record_path(output / RECORDS, case))
    if pictures and scan.worst_structure in pictures["least_certain"]:
        wanted = pictures["least_certain"][scan.worst_structure]  # of many slices, and large ones, some are left out
        pictures["first"] = min((number for number, *_ in pictures["slices"]), key=lambda number: abs(number - wanted))
    return render_page(
        "scan.html",
        ("marks.js", "scan.js"),
        list=listed,
        case=case,
        rank=listed.scans.index.get_loc(case) + 1,
        back=f"../{PAGE}",
        beside=beside,
        scan=scan,
        structures=_structures(listed, listed.structures.loc[[case]]),
        findings=_findings(record.findings, scan.unit),
        place=record.place,
        pictures=pictures,
        data=Markup(json.dumps({key: pictures[key] for key in _FOR_SCRIPT if pictures}).replace("<", "\\u003c")),
        editors=editor_lines(record.image, output / f"{case}{listed.about.file_ending}"),
    )


def _structures(listed: ReviewList, rows: pd.DataFrame) -> list[tuple[Any, int, list[str]]]:
    """Rows of structures, the number of the colour of each, and what is said of it."""
    names, unlike = listed.structures.name.unique().tolist(), listed.scans.unlike
    return [(row, names.index(row.name), _structure_lines(row, bool(unlike[row.Index]))) for row in rows.itertuples()]


def _structure_lines(row: Any, is_unlike: bool) -> list[str]:
    """What is said of a structure in a scan: predicted Dice, volume, both with intervals, what the map has learned."""
    lines = [dice_text(row)]
    lines += ["interval not supported"] if is_unlike and not math.isnan(row.dice_low) else []
    ends = f"{volume_text(row.volume_low)} to {volume_text(row.volume_high)}"
    predicted = "" if math.isnan(row.volume_low) else f" (predicted {volume_text(row.predicted_volume)}, {ends})"
    lines.append(f"{volume_text(row.volume)} {_UNITS.get(row.unit, row.unit)}{predicted}")
    lines += [] if math.isnan(row.present) else [f"present: {row.present:.2f}"]
    return lines if math.isnan(row.members_dice) else [*lines, f"Dice between folds {row.members_dice:.2f}"]


def editor_lines(image: str, segmentation: Path) -> dict[str, str]:
    """By editor the line that opens a scan with its segmentation, quoted for a POSIX shell and for Python.

    Where the file of the image is not known, and empty, the segmentation is opened alone.
    """
    path = os.path.abspath(segmentation)
    paths = {"loadVolume": image, "loadSegmentation": path}
    calls = [f"slicer.util.{call}({json.dumps(text, ensure_ascii=False)})" for call, text in paths.items() if text]
    python = "; ".join(calls)  # a JSON string is Python's, and in double quotes stays legible in the shell's
    lines = {"3D Slicer": shlex.join(["Slicer", "--python-code", python])}
    if not image or Path(image).suffix == segmentation.suffix:  # of a DICOM series it has another grid
        lines = {"ITK-SNAP": shlex.join(["itksnap", "-g", *([image, "-s"] if image else []), path]), **lines}
    return lines


def _findings(structures: Sequence[StructureFindings], unit: str) -> list[str]:
    """A line for each finding that is shown, the largest of each structure, and what is not shown."""
    length, lines = "pixels" if unit == "pixels" else "mm", list[str]()
    for structure in structures:
        for found in structure.found[:MOST_FINDINGS]:
            place = ", ".join(f"{value:.0f}" for value in found.centre_mm)
            probability = f"probability {found.mean_probability:.2f}, at most {found.max_probability:.2f}"
            size = f"{volume_text(found.volume)} {unit}, {probability}"
            lines.append(f"{structure.name}: {size}, centre ({place}) {length}")
        if (more := len(structure.found) - MOST_FINDINGS + structure.n_more) > 0:
            lines.append(f"and {more} more of {structure.name} in findings.csv")
    return lines
