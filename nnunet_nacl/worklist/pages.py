"""Writes the pages of a review list: index.html with a picture of each scan, and a page for each
scan."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from nnunet_nacl.cases.record import RECORDS, read_pictures, record_path
from nnunet_nacl.files import write_atomically
from nnunet_nacl.reports.rendering import render_page, write_page
from nnunet_nacl.worklist.list_files import PAGE, page_of, remove_list
from nnunet_nacl.worklist.list_tables import csv_texts
from nnunet_nacl.worklist.reasons import dice_text, volume_text, worst_first
from nnunet_nacl.worklist.review_list import ReviewList

LARGEST_PICTURES = 8_500_000
"""Characters of the pictures on the list: with texts, the page of some hundred scans stays below 10
MB."""

_MOST_STRUCTURES = 4  # of more, the worst are shown
# bins from 0 to 1; pixels of the dots on each other, and of one
_STRIP_BINS, _STRIP_HEIGHT, _DOT = 80, 120, 9
_FOR_SCRIPT = ("slices", "first", "of", "axis")


def write_list(listed: ReviewList, output: Path) -> dict[str, str]:
    """Write the tables and pages of a list in place of those of an earlier run.

    Tables come first. A page that cannot be made costs itself alone: it is left out, and no other
    page leads to it.

    Args:
        listed: The list.
        output: Folder that it is written to.

    Returns:
        By place in the output folder why a page could not be made; empty where all are there.

    Raises:
        UserError: A table cannot be written.
    """
    remove_list(output)  # another part may have written one
    for name, text in csv_texts(listed).items():
        write_atomically(output / name, text)
    problems = _write_scan_pages(listed, output)
    if problems:
        listed = _without_pages(listed, problems)
        # anew: their neighbours led to those that are not there
        problems |= _write_scan_pages(listed, output)
        listed = _without_pages(listed, problems)
    reason = write_page(output / PAGE, partial(review_page, listed))
    if reason is not None:
        problems[PAGE] = reason
    return problems


def _write_scan_pages(listed: ReviewList, output: Path) -> dict[str, str]:
    """Write the page of each scan that has one; by place why one could not be made."""
    problems = {}
    for case in listed.cases("has_page"):
        place = page_of(case)
        reason = write_page(output / place, partial(scan_page, listed, case, output))
        if reason is not None:
            problems[place] = reason
    return problems


def _without_pages(listed: ReviewList, places: Collection[str]) -> ReviewList:
    """The list in which scans have no page at these places."""
    is_left_out = np.array([page_of(case) in places for case in listed.scans.index])
    return replace(listed, scans=listed.scans.assign(has_page=listed.scans.has_page & ~is_left_out))


def review_page(listed: ReviewList) -> str:
    """The page of a list; from the first ranks on with pictures, until these take
    ``LARGEST_PICTURES`` characters."""
    scans, rows, total = listed.scans, [], 0
    for rank, scan in enumerate(scans.itertuples(), 1):
        structures, record = listed.structures.loc[[scan.Index]], listed.records[str(scan.Index)]
        more, total = len(structures) - _MOST_STRUCTURES, total + len(record.picture)
        shown = worst_first(structures)[:_MOST_STRUCTURES] if more > 0 else structures
        picture = record if record.place and total <= LARGEST_PICTURES else None
        rows.append(
            {"rank": rank, "scan": scan, "picture": picture, "structures": shown, "more": more}
        )
    date, scripts = f"{datetime.now():%Y-%m-%d}", ("marks.js", "page.js", "list.js")
    return _render(
        "review.html", scripts, listed, rows=rows, date=date, strip=_strip(listed), page_of=page_of
    )


def scan_page(listed: ReviewList, case: str, output: Path) -> str:
    """The page of a scan, with the pictures that its record in the output folder holds, and links
    to its neighbours."""
    paged = listed.cases("has_page")
    place = paged.index(case)
    beside = {}
    if place > 0:
        beside["prev"] = f"{quote(paged[place - 1])}.html"
    if place + 1 < len(paged):
        beside["next"] = f"{quote(paged[place + 1])}.html"
    scan = listed.scans.loc[case]
    record = listed.records[case]
    pictures = read_pictures(record_path(output / RECORDS, case))
    if pictures and scan.worst_structure in pictures["least_certain"]:
        wanted = pictures["least_certain"][scan.worst_structure]  # which may be left out
        numbers = [number for number, *_ in pictures["slices"]]
        pictures["first"] = min(numbers, key=lambda number: abs(number - wanted))
    for_script = json.dumps({key: pictures[key] for key in _FOR_SCRIPT if pictures})
    return _render(
        "scan.html",
        ("marks.js", "scan.js"),
        listed,
        case=case,
        rank=listed.scans.index.get_loc(case) + 1,
        back=f"../{PAGE}",
        beside=beside,
        scan=scan,
        structures=listed.structures.loc[[case]],
        record=record,
        pictures=pictures,
        data=Markup(for_script.replace("<", "\\u003c")),
        editors=editor_lines(record.image, output / f"{case}{listed.about.file_ending}"),
    )


def _render(template: str, scripts: tuple[str, ...], listed: ReviewList, **values: Any) -> str:
    """A page of a list, whose template writes the rows of its frames."""
    names = listed.structures["name"].unique().tolist()
    return render_page(
        template,
        scripts,
        list=listed,
        names=names,
        dice_text=dice_text,
        volume_text=volume_text,
        **values,
    )


def _strip(listed: ReviewList) -> dict[str, Any]:
    """All scans as dots by their score, those of one bin on each other; across in percent of the
    width, up in pixels.

    A score is shown as a predicted Dice where one Dice is bad for all structures. The limit is the
    edge of a bin.
    """
    flags, scans = (
        listed.aims.flags,
        listed.scans.sort_values(["is_flagged", "is_random"], ascending=False),
    )
    bad = set(flags.bad.values()) if flags else {0.0}
    low, above = (0.0, min(bad)) if len(bad) == 1 else (-1.0, 0.0)
    edge = flags.threshold or 0.0 if flags else 0.0
    places = (np.ceil((scans.score - edge) * _STRIP_BINS) - 0.5) / _STRIP_BINS + edge
    below = scans.groupby(places.fillna(math.inf)).cumcount()
    step = min(_DOT, _STRIP_HEIGHT / max(below.max(), 1))

    def across(dice: Any) -> Any:
        return 4 + 92 * (dice - low) / (1 - low)

    return {
        "dots": list(
            zip(
                scans.itertuples(),
                scans.score + above,
                across(places + above).fillna(1.5),
                below * step,
            )
        ),
        "limit": (edge + above, across(edge + above)) if listed.has_limit else None,
        "ticks": {f"{tick:g}": across(tick) for tick in np.linspace(low, 1, 6).round(1).tolist()},
        "height": step * below.max() + 2 * _DOT,
        "is_less_bad": len(bad) > 1,
    }


def editor_lines(image: str, segmentation: Path) -> dict[str, str]:
    """By editor the line that opens a scan with its segmentation, quoted for a POSIX shell and for
    Python.

    Where the file of the image is not known, and empty, the segmentation is opened alone.
    """
    path = os.path.abspath(segmentation)
    paths = {"loadVolume": image, "loadSegmentation": path}
    calls = [
        f"slicer.util.{call}({json.dumps(text, ensure_ascii=False)})"
        for call, text in paths.items()
        if text
    ]
    # a JSON string is Python's, and in double quotes stays legible in the shell's
    python = "; ".join(calls)
    lines = {"3D Slicer": shlex.join(["Slicer", "--python-code", python])}
    # of a DICOM series it has another grid
    if not image or Path(image).suffix == segmentation.suffix:
        lines = {
            "ITK-SNAP": shlex.join(["itksnap", "-g", *([image, "-s"] if image else []), path]),
            **lines,
        }
    return lines
