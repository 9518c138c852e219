"""Reads the marks that readers gave to scans, from our pages or from the extension of 3D Slicer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nnunet_nacl.utilities.csv_text import from_csv_cell
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.worklist.csv_tables import read_csv, rows_by_column
from nnunet_nacl.worklist.slicer import RATINGS, name_of_path

_MARKS = RATINGS | {mark: mark for mark in ("", *RATINGS.values())}
"""The mark that each text of a file of marks or ratings means."""


def read_marks(
    files: Sequence[Path], cases: Collection[str], images: Mapping[str, str], run: str | None
) -> dict[str, str]:
    """Mark of each case that a file names: ok, correct, reject, or empty for none.

    The last row of the last file counts; an empty mark takes it back.

    Args:
        files: With the columns run, case, mark, note and time, in any case of letters; or
            annotations.csv of the extension, which names images.
        cases: Of the list.
        images: Case of each image, by the image's name.
        run: Of the list; None where it does not say it.

    Raises:
        UserError: A file cannot be read, or has no row, marks of another run than the list's, an
            unknown case or mark.
    """
    marks: dict[str, str] = {}
    for path in files:
        for entry in _read_entries(path, images, cases):
            marks[entry.case] = _check_mark(entry, path, cases, run)
    return marks


class _Entry(NamedTuple):
    """A row of a file of marks; ``run`` is empty where the file does not say it."""

    run: str
    case: str
    mark: str


def _read_entries(path: Path, images: Mapping[str, str], cases: Collection[str]) -> list[_Entry]:
    """The rows of a file of marks, or of ratings of the extension, which has no header."""
    lines = read_csv(path)
    entries = []
    header = [cell.strip().lower() for cell in lines[0].cells] if lines else []
    if {"case", "mark"} <= set(header):
        lines[0] = lines[0]._replace(cells=header)
        for row in rows_by_column(lines, _Entry._fields, path):
            # without the apostrophes that to_csv_text puts before what looks like a formula
            texts = [from_csv_cell(row.get(column, "")) for column in _Entry._fields]
            entries.append(_Entry(*texts))
    else:
        for line in lines:
            image, *others = line.cells
            rating = others[0] if others else ""
            entries.append(_Entry("", images.get(name_of_path(image), image), rating))
        if entries and entries[0].case not in cases:
            raise UserError(
                f"{path}: its first line, {','.join(lines[0].cells):.80}, is neither a header with"
                " the columns case and mark, nor of a scan of the list; give the file as the page"
                " saves it."
            )
    if not entries:
        raise UserError(f"{path} holds no marks; mark scans on the pages, and save them there.")
    return entries


def _check_mark(entry: _Entry, path: Path, cases: Collection[str], run: str | None) -> str:
    """The mark that an entry gives to its case; UserError where it is no mark of this list."""
    if run and entry.run not in ("", run):
        raise UserError(
            f"{path}: marks of run {entry.run}, the folder is of run {run}; give its marks."
        )
    if entry.case not in cases:
        raise UserError(
            f"{path}: {entry.case} is no scan of the list; give the marks of this list."
        )
    if entry.mark not in _MARKS:
        known = "ok, correct and reject, or the ratings of SegmentationReview"
        raise UserError(f"{path}: {entry.case} has the mark {entry.mark!r}; there are {known}.")
    return _MARKS[entry.mark]
