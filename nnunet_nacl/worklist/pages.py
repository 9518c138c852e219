"""Writes a review list: its tables, index.html and a page for each scan."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup

from nnunet_nacl.cases.record import PlacePicture, read_pictures, record_path
from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.utilities.command_lines import editor_lines
from nnunet_nacl.utilities.files import write_atomically
from nnunet_nacl.utilities.rendering import render_page, write_page
from nnunet_nacl.worklist.list_files import PAGE, csv_texts, page_of, remove_list
from nnunet_nacl.worklist.pictures import PlaceOnPage
from nnunet_nacl.worklist.reasons import dice_text, volume_text, volumes_text, worst_first
from nnunet_nacl.worklist.review_list import ReviewList

LARGEST_PICTURES_OF_LIST = 8_500_000
"""Characters of the pictures on the list: with texts, the page of some hundred scans stays below 10
MB."""

_MOST_STRUCTURES = 4  # of more, the worst are shown
_FOR_SCRIPT = ("slices", "of", "axis")  # what scan.js reads of the pictures, beside the place

# The strip of all scans as dots along their score.
_BINS = 80  # from 0 to 1; dots of one bin lie on each other
_HEIGHT = 120  # pixels of the highest pile of dots
_DOT = 9  # pixels from one dot to the next on it
_LEFT = 4  # where the axis begins, in percent of the width
_WIDTH = 92  # of the axis, likewise
_WITHOUT_SCORE = 1.5  # where dots of scans without a score are, likewise

_Dice = TypeVar("_Dice", float, pd.Series)


def write_list(listed: ReviewList) -> dict[str, str]:
    """Write the tables and pages of a list in place of those of an earlier run.

    Tables come first. A page that cannot be made costs itself alone: it is left out, and no other
    page leads to it.

    Returns:
        By file name in the output folder why a page could not be made; empty where all are there.

    Raises:
        UserError: A table cannot be written.
    """
    output = listed.run.output
    remove_list(output)  # another part may have written one
    tables = csv_texts(listed.scans, listed.structures, listed.records, listed.run.problems)
    for name, text in tables.items():
        write_atomically(output / name, text)
    problems = _write_scan_pages(listed)
    if problems:
        listed = _without_pages(listed, problems)
        # once more: their neighbours led to those that are not there
        problems |= _write_scan_pages(listed)
        listed = _without_pages(listed, problems)
    reason = write_page(output / PAGE, partial(review_page, listed))
    if reason is not None:
        problems[PAGE] = reason
    return problems


def _write_scan_pages(listed: ReviewList) -> dict[str, str]:
    """Write the page of each scan that has one; by file name why one could not be made."""
    problems = {}
    for case in listed.cases("has_page"):
        file_name = page_of(case)
        reason = write_page(listed.run.output / file_name, partial(scan_page, listed, case))
        if reason is not None:
            problems[file_name] = reason
    return problems


def _without_pages(listed: ReviewList, file_names: Collection[str]) -> ReviewList:
    """The list in which scans lack these pages."""
    is_left_out = np.array([page_of(case) in file_names for case in listed.scans.index])
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
    return next((name for name in listed.structures_by_need(case) if name in drawn), None)


def review_page(listed: ReviewList) -> str:
    """The page of a list.

    Scans have pictures from the first ranks on, until these take ``LARGEST_PICTURES_OF_LIST``
    characters.
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
            if n_characters > LARGEST_PICTURES_OF_LIST:
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


def scan_page(listed: ReviewList, case: str) -> str:
    """The page of a scan, with links to its neighbours in the list; its record in the output folder
    holds the pictures."""
    output = listed.run.output
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
        editors=editor_lines(record.image, output / f"{case}{listed.run.dataset.file_ending}"),
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


class Dot(NamedTuple):
    """A scan on the strip.

    Attributes:
        scan: Row of :attr:`~nnunet_nacl.worklist.review_list.ReviewList.scans`.
        value: What the axis says of it; NaN without a score.
        x: Place across, in percent of the width.
        up: Pixels above the lowest dot.
    """

    scan: Any
    value: float
    x: float
    up: float


@dataclass(frozen=True)
class Strip:
    """Places of all that is drawn; across in percent of the width, up in pixels.

    Attributes:
        dots: Of all scans, flagged ones first.
        limit: Value and place of the limit of predicted Dice that flags; None where there is none.
        bad: The same of the Dice below which a scan is bad.
        ticks: Place of each tick, by its text.
        height: Of all dots.
        is_less_bad: Whether values are predicted Dice minus the Dice below which it is bad, since
            that differs between structures.
    """

    dots: list[Dot]
    limit: tuple[float, float] | None
    bad: tuple[float, float] | None
    ticks: dict[str, float]
    height: float
    is_less_bad: bool


def make_strip(listed: ReviewList) -> Strip:
    """The strip of a list.

    A score is shown as a predicted Dice where one Dice is bad for all structures. The limit is the
    edge of a bin.
    """
    limits_of_bad = {0.0}
    limit_of_score = 0.0
    if listed.run.aims.flags is not None:
        limits_of_bad = set(listed.run.aims.flags.bad.values())
        limit_of_score = listed.run.aims.flags.threshold or 0.0
    lowest = -1.0
    dice_of_zero = 0.0  # the predicted Dice that a score of 0 stands for
    if len(limits_of_bad) == 1:
        lowest = 0.0
        dice_of_zero = min(limits_of_bad)

    scans = listed.scans.sort_values(["is_flagged", "is_random"], ascending=False)
    # bins begin at the limit, so that none lies on both sides of it
    bins = np.ceil((scans.score - limit_of_score) * _BINS)
    middles = (bins - 0.5) / _BINS + limit_of_score
    n_below = scans.groupby(middles.fillna(math.inf)).cumcount()
    step = min(_DOT, _HEIGHT / max(n_below.max(), 1))
    dots = map(
        Dot,
        scans.itertuples(),
        scans.score + dice_of_zero,
        _position_across(middles + dice_of_zero, lowest).fillna(_WITHOUT_SCORE),
        n_below * step,
    )
    limit = None
    bad = None
    if listed.has_limit:
        value = limit_of_score + dice_of_zero
        limit = (value, _position_across(value, lowest))
        bad = (dice_of_zero, _position_across(dice_of_zero, lowest))
    ticks = np.linspace(lowest, 1, 6).round(1).tolist()
    return Strip(
        dots=list(dots),
        limit=limit,
        bad=bad,
        ticks={f"{tick:g}": _position_across(tick, lowest) for tick in ticks},
        height=step * n_below.max() + 2 * _DOT,
        is_less_bad=len(limits_of_bad) > 1,
    )


def _position_across(dice: _Dice, lowest: float) -> _Dice:
    """Place on an axis from ``lowest`` to 1, in percent of the width."""
    return _LEFT + _WIDTH * (dice - lowest) / (1 - lowest)
