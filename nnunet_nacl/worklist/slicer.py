"""Writes the files that SegmentationReview, an extension of 3D Slicer, opens, and reads its ratings
and masks.

By its source (https://github.com/zapaishchykova/SegmentationReview, SegmentationReview.py of commit
e3c6b52) the extension reads ``mapping.csv`` in the folder that is opened, by pandas: commas, a
header with ``img_path`` and ``mask_path``, absolute paths or such as start from the folder, files
that end with .nii, .nii.gz or .nrrd. It appends rows to ``annotations.csv``, without a header:
image (its name behind a separator), rating, comment, mask and what became of it. An edited mask
gets the path of its image up to the first dot and ``_mask_DATE.nii.gz``. By its description pull
request 20 names it ``_edited_mask_DATE`` and moves the mask that was there into a folder of
backups: so the extension is given copies.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_ours, from_csv_cell, regular_only, replacing, write_atomically
from nnunet_nacl.nnunet.places import list_folder
from nnunet_nacl.worklist.list_files import PAGES

MAPPING = "mapping.csv"
TO_EDIT = "to_edit"
"""Folder of the copies."""
RATINGS = {
    "Acceptable with no changes": "ok",
    "Acceptable with minor changes": "correct",
    "Unacceptable with major changes": "correct",
    "Unacceptable and not visible": "reject",
    "Bad images": "reject",
}
"""The mark that each rating means."""

_MARKS = RATINGS | {mark: mark for mark in ("", *RATINGS.values())}
_ENDINGS = (".nii.gz", ".nii", ".nrrd")
_EDITED = re.compile(r"(.+?)(?:_edited)?_mask_(\d[\d_:-]*)\.nii\.gz")


def check_images(images: Iterable[Path], output: Path) -> None:
    """UserError for images that the extension cannot read or tell apart, and for a mapping that no
    run wrote."""
    check_ours([output / PAGES / MAPPING])
    by_name: dict[str, str] = {}
    for image in map(os.path.abspath, images):
        ending = next(filter(image.endswith, _ENDINGS), "")
        if not ending:
            raise UserError(
                f"--slicer: {image}: SegmentationReview reads {', '.join(_ENDINGS)} alone."
            )
        if "." in image.removesuffix(ending):
            raise UserError(
                f"--slicer: {image}: SegmentationReview names edited masks by the path up to its"
                " first dot; give a path without other dots, such as that of a link."
            )
        if (other := by_name.setdefault(_name(image), image)) != image:
            raise UserError(
                f"--slicer: {other} and {image} are rated by the same name; rename one."
            )


def write_mapping(folder: Path, output: Path, images: Mapping[str, Path], ending: str) -> list[str]:
    """Write into the folder to be opened the mapping, and copies of the output's segmentations to
    edit.

    ``images`` are the first channels, in the order of the list. A copy that lies in the folder
    already may have been edited, and is left alone: the cases of such are returned.
    """
    kept, text = [], io.StringIO()
    # no apostrophes before what looks like a formula: these are paths
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("img_path", "mask_path"))
    for case, image in images.items():
        mask = folder / TO_EDIT / f"{case}{ending}"
        if mask.exists():
            kept.append(case)
        else:
            with replacing(mask) as temporary:
                shutil.copyfile(output / mask.name, temporary)
        table.writerow((os.path.abspath(image), os.path.abspath(mask)))
    write_atomically(folder / MAPPING, text.getvalue())
    return kept


def cases_of_images(folder: Path, cases: Collection[str], ending: str) -> dict[str, str]:
    """Case of each image by the image's name: as mapping.csv in the folder has it, else
    CASE_0000."""
    case_of_image = {f"{case}_0000{ending}": case for case in cases}
    path = folder / MAPPING
    if not path.is_file():
        return case_of_image
    for row in _by_column(_read_csv(path), ("img_path", "mask_path"), path):
        for column in ("img_path", "mask_path"):
            if column not in row:
                raise UserError(
                    f"{path}: a row has no {column}; restore its columns, or remove the file."
                )
        case_of_image[_name(row["img_path"])] = _name(row["mask_path"]).removesuffix(ending)
    return case_of_image


def read_marks(
    files: Sequence[Path], cases: Collection[str], images: Mapping[str, str], run: str | None
) -> dict[str, str]:
    """Mark of each case: ok, correct or reject. The last row of the last file counts; an empty mark
    takes it back.

    A file has the columns run, case, mark, note, time; or is annotations.csv of the extension,
    which names ``images``. UserError for one that cannot be read, or has marks of another run than
    the list's, an unknown case or mark.
    """
    marks: dict[str, str] = {}
    for path in files:
        for entry in _read_entries(path, images):
            marks[entry.case] = _check_mark(entry, path, cases, run)
    return {case: mark for case, mark in marks.items() if mark}


class _Entry(NamedTuple):
    """A row of a file of marks; ``run`` is empty where the file does not say it."""

    run: str
    case: str
    mark: str


def _read_entries(path: Path, images: Mapping[str, str]) -> list[_Entry]:
    """The rows of a file of marks, or of ratings of the extension, which has no header."""
    lines = _read_csv(path)
    entries = []
    if lines and {"case", "mark"} <= set(lines[0].cells):
        for row in _by_column(lines, _Entry._fields, path):
            # as before to_csv_text
            texts = [from_csv_cell(row.get(column, "")) for column in _Entry._fields]
            entries.append(_Entry(*texts))
        return entries

    for line in lines:
        image, *others = line.cells
        rating = others[0] if others else ""
        entries.append(_Entry("", images.get(_name(image), image), rating))
    return entries


def _check_mark(entry: _Entry, path: Path, cases: Collection[str], run: str | None) -> str:
    """The mark that an entry gives to its case; UserError where it is not of this list, or no
    mark."""
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


def corrected_files(
    folder: Path, cases: Collection[str], images: Mapping[str, str], ending: str
) -> dict[str, Path]:
    """Corrected labels by case: CASE, or the last mask that the extension wrote of its image;
    UserError for none."""
    names = list_folder(folder)
    stems = {name.partition(".")[0]: case for name, case in images.items()} | {
        case: case for case in cases
    }
    corrected = {case: folder / f"{case}{ending}" for case in cases if f"{case}{ending}" in names}
    edited = [match for match in map(_EDITED.fullmatch, names) if match and match[1] in stems]
    for match in sorted(edited, key=lambda match: re.sub(r"\D", "", match[2])):
        corrected[stems[match[1]]] = folder / match[0]
    if not corrected:
        wanted = f"SCAN{ending} or SCAN_0000_edited_mask_DATE.nii.gz, of scans of the list"
        raise UserError(f"-corrected {folder}: holds no corrected labels ({wanted}).")
    return corrected


def _name(path: str) -> str:
    """The last part of a path of any system."""
    return re.split(r"[\\/]", path)[-1]


class _Line(NamedTuple):
    """A row of a CSV file, and the number of the line where it begins, from 1."""

    number: int
    cells: list[str]


def _read_csv(path: Path) -> list[_Line]:
    """The rows of a CSV file that hold something, as our pages, the extension or a spreadsheet
    saved it.

    Spreadsheets save tables with the separator of their country, some with a first line ``sep=;``
    that says it, and some as UTF-16 with tabs. UserError, with the line, where it is no CSV file.
    """
    file = io.StringIO(_read_text(path), newline="")
    delimiter = ","
    number = 1
    first = file.readline()
    stated = re.fullmatch(r'"?sep=(.)"?\s*', first)
    of_our_table = re.match(
        "(?:img_path|mask_path|run|rank|case|mark)([;\t])", first.replace('"', "")
    )
    if stated:
        delimiter = stated[1]
        number = 2
    else:
        file.seek(0)
        if of_our_table:
            delimiter = of_our_table[1]

    lines = []
    number_of_first = number
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                lines.append(_Line(number, cells))
            number = number_of_first + reader.line_num
    except csv.Error as error:
        why = f"{error}; is a quote not closed?"
        raise UserError(
            f"{path}: line {number} cannot be read as CSV ({why}); correct it."
        ) from None
    return lines


def _read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 that says so by its first bytes; UserError for
    others."""
    fix = "save it as CSV in UTF-8, or give the file as it was exported"
    try:
        with open(path, "rb", opener=regular_only) as file:
            content = file.read()
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give the file as it was exported."
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as text ({error.reason}); {fix}.") from None
    if "\0" in text:  # UTF-16 that does not say so, or no text at all
        raise UserError(f"{path}: cannot be read as text (it holds zero bytes); {fix}.")
    return text


def _by_column(lines: Sequence[_Line], columns: Iterable[str], path: Path) -> list[dict[str, str]]:
    """Rows below a header by column; UserError where one of ``columns`` stands twice in it."""
    if not lines:
        return []
    header = lines[0]
    for column in columns:
        if header.cells.count(column) > 1:
            raise UserError(
                f"{path}: line {header.number}: the column {column} stands twice; remove or rename"
                " one."
            )
    return [dict(zip(header.cells, line.cells)) for line in lines[1:]]
