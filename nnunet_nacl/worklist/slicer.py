"""Writes the files that SegmentationReview, an extension of 3D Slicer, opens, and reads its ratings and masks.

By its source (https://github.com/zapaishchykova/SegmentationReview, SegmentationReview.py of commit e3c6b52) the
extension reads ``mapping.csv`` in the folder that is opened, by pandas: commas, a header with ``img_path`` and
``mask_path``, absolute paths or such as start from the folder, files that end with .nii, .nii.gz or .nrrd. It appends
rows to ``annotations.csv``, without a header: image (its name behind a separator), rating, comment, mask and what
became of it. An edited mask gets the path of its image up to the first dot and ``_mask_DATE.nii.gz``. By its
description pull request 20 names it ``_edited_mask_DATE`` and moves the mask that was there into a folder of backups:
so the extension is given copies.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_ours, from_csv_cell, replacing, write_atomically
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
    """UserError for images that the extension cannot read or tell apart, and for a mapping that no run wrote."""
    check_ours([output / PAGES / MAPPING])
    by_name: dict[str, str] = {}
    for image in map(os.path.abspath, images):
        ending = next(filter(image.endswith, _ENDINGS), "")
        if not ending:
            raise UserError(f"--slicer: {image}: SegmentationReview reads {', '.join(_ENDINGS)} alone.")
        if "." in image.removesuffix(ending):
            raise UserError(
                f"--slicer: {image}: SegmentationReview names edited masks by the path up to its first dot; give a "
                "path without other dots, such as that of a link."
            )
        if (other := by_name.setdefault(_name(image), image)) != image:
            raise UserError(f"--slicer: {other} and {image} are rated by the same name; rename one.")


def write_mapping(folder: Path, output: Path, images: Mapping[str, Path], ending: str) -> list[str]:
    """Write into the folder to be opened the mapping, and copies of the output's segmentations to edit.

    ``images`` are the first channels, in the order of the list. A copy that lies in the folder already may have been
    edited, and is left alone: the cases of such are returned.
    """
    kept, text = [], io.StringIO()
    table = csv.writer(text, lineterminator="\n")  # no apostrophes before what looks like a formula: these are paths
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
    """Case of each image by the image's name: as mapping.csv in the folder has it, else CASE_0000."""
    path, named = folder / MAPPING, {f"{case}_0000{ending}": case for case in cases}
    header, *rows = (path.is_file() and _rows(path)) or [[]]
    try:
        for row in (dict(zip(header, row)) for row in rows):
            named[_name(row["img_path"])] = _name(row["mask_path"]).removesuffix(ending)
    except KeyError as error:
        raise UserError(f"{path}: a row has no {error.args[0]}; restore its columns, or remove the file.") from None
    return named


def read_marks(
    files: Sequence[Path], cases: Collection[str], images: Mapping[str, str], run: str | None
) -> dict[str, str]:
    """Mark of each case: ok, correct or reject. The last row of the last file counts; an empty mark takes it back.

    A file has the columns run, case, mark, note, time; or is annotations.csv of the extension, which names ``images``.
    UserError for one that cannot be read, or has marks of another run than the list's, an unknown case or mark.
    """
    marks: dict[str, str] = {}
    for path in files:
        header, *rows = table = _rows(path) or [["case", "mark"]]
        if {"case", "mark"} <= set(header):  # texts as they were before to_csv_text
            entries = [dict(zip(header, map(from_csv_cell, row))) for row in rows]
        else:
            pairs = ((row[0], "".join(row[1:2])) for row in table)
            entries = [{"case": images.get(_name(image), image), "mark": rating} for image, rating in pairs]
        for entry in entries:
            case, mark = entry.get("case", ""), _MARKS.get(entry.get("mark", ""))
            if run and entry.get("run", run) not in ("", run):
                raise UserError(f"{path}: marks of run {entry['run']}, the folder is of run {run}; give its marks.")
            if case not in cases:
                raise UserError(f"{path}: {case} is no scan of the list; give the marks of this list.")
            if mark is None:
                marks_there_are = "ok, correct and reject, or the ratings of SegmentationReview"
                raise UserError(f"{path}: {case} has the mark {entry['mark']!r}; there are {marks_there_are}.")
            marks[case] = mark
    return {case: mark for case, mark in marks.items() if mark}


def corrected_files(folder: Path, cases: Collection[str], images: Mapping[str, str], ending: str) -> dict[str, Path]:
    """Corrected labels by case: CASE, or the last mask that the extension wrote of its image; UserError for none."""
    names = list_folder(folder)
    stems = {name.partition(".")[0]: case for name, case in images.items()} | {case: case for case in cases}
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


def _rows(path: Path) -> list[list[str]]:
    """Of a CSV file, those that hold something."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            # a spreadsheet may have saved our table with its country's separator
            other = re.match("(?:img_path|mask_path|run|rank|case|mark)([;\t])", file.readline().replace('"', ""))
            file.seek(0)
            return [row for row in csv.reader(file, delimiter=other[1] if other else ",") if row]
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); give the file as it was exported.") from None
