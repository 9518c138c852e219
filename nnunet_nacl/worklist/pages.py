"""Writes the pages of a review list: index.html with all scans, and a page for each scan."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup

from nnunet_nacl.cases.record import RECORDS, PlacePicture, read_pictures, record_path
from nnunet_nacl.files import write_atomically
from nnunet_nacl.reports.rendering import render_page, write_page
from nnunet_nacl.worklist.editors import editor_lines
from nnunet_nacl.worklist.list_files import PAGE, page_of, remove_list
from nnunet_nacl.worklist.list_tables import csv_texts
from nnunet_nacl.worklist.pictures import PlaceOnPage
from nnunet_nacl.worklist.reasons import dice_text, volume_text, volumes_text, worst_first
from nnunet_nacl.worklist.review_list import ReviewList
from nnunet_nacl.worklist.strip import make_strip

LARGEST_PICTURES = 8_500_000
"""Characters of the pictures on the list: with texts, the page of some hundred scans stays below 10
MB."""

_MOST_STRUCTURES = 4  # of more, the worst are shown
_FOR_SCRIPT = ("slices", "of", "axis")  # what scan.js reads of the pictures, beside the place


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
        # once more: their neighbours led to those that are not there
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


class _Row(NamedTuple):
    """What the list shows of a scan.

    Attributes:
        rank: From 1.
        scan: Row of the list.
        structures: Rows of the structures that are shown, the worst where there are many.
        more: How many structures are left out; not above 0 for none.
        place: Where the picture is, in words; empty where there is none.
        picture: None for no picture.
    """

    rank: int
    scan: Any
    structures: pd.DataFrame
    more: int
    place: str
    picture: PlacePicture | None


def _structure_of_place(listed: ReviewList, case: str) -> str | None:
    """The structure whose least certain place list and page show.

    It is the one that needs a look most; None where there is no picture.
    """
    drawn = listed.records[case].places
    return next((name for name in listed.structures_to_look_at(case) if name in drawn), None)


def review_page(listed: ReviewList) -> str:
    """The page of a list.

    Scans have pictures from the first ranks on, until these take ``LARGEST_PICTURES`` characters.
    """
    rows = []
    n_characters = 0
    for rank, scan in enumerate(listed.scans.itertuples(), 1):
        case = str(scan.Index)
        record = listed.records[case]
        structures = listed.structures.loc[[case]]
        more = len(structures) - _MOST_STRUCTURES
        if more > 0:
            structures = worst_first(structures)[:_MOST_STRUCTURES]
        place = ""
        picture = None
        structure = _structure_of_place(listed, case)
        if structure is not None:
            picture = record.places[structure]
            texts = (picture.slice_name, f"at {structure}")
            place = ", ".join(text for text in texts if text)
            n_characters += len(picture.png)
            if n_characters > LARGEST_PICTURES:
                picture = None
        rows.append(_Row(rank, scan, structures, more, place, picture))
    return _render(
        "review.html",
        ("marks.js", "page.js", "list.js"),
        listed,
        rows=rows,
        date=f"{datetime.now():%Y-%m-%d}",
        strip=make_strip(listed),
        page_of=page_of,
    )


def scan_page(listed: ReviewList, case: str, output: Path) -> str:
    """The page of a scan.

    Args:
        listed: The list, which gives its neighbours.
        case: The scan.
        output: Folder of the list; the record of the scan in it holds the pictures.
    """
    scan = listed.scans.loc[case]
    record = listed.records[case]
    pictures = read_pictures(record_path(output / RECORDS, case))
    structure = _structure_of_place(listed, case)
    place: PlaceOnPage | None = None
    content_for_script: dict[str, Any] = {}
    if pictures:
        place = PlaceOnPage(*pictures["places"][structure])
        content_for_script = {key: pictures[key] for key in _FOR_SCRIPT}
        content_for_script |= {"first": place.number, "ring": place.ring}
    json_for_script = json.dumps(content_for_script).replace("<", "\\u003c")
    return _render(
        "scan.html",
        ("marks.js", "scan.js"),
        listed,
        case=case,
        rank=listed.scans.index.get_loc(case) + 1,
        back=f"../{PAGE}",
        beside=_link_neighbours(listed, case),
        scan=scan,
        structures=listed.structures.loc[[case]],
        record=record,
        pictures=pictures,
        structure_of_place=structure,
        place=place,
        data=Markup(json_for_script),
        editors=editor_lines(record.image, output / f"{case}{listed.about.file_ending}"),
    )


def _link_neighbours(listed: ReviewList, case: str) -> dict[str, str]:
    """Links to the pages of the scan before (``prev``) and behind (``next``), as far as there are
    any."""
    cases = listed.cases("has_page")
    position = cases.index(case)
    links = {}
    if position > 0:
        links["prev"] = f"{quote(cases[position - 1])}.html"
    if position + 1 < len(cases):
        links["next"] = f"{quote(cases[position + 1])}.html"
    return links


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
        volumes_text=volumes_text,
        **values,
    )
