"""Writes what SegmentationReview, an extension of 3D Slicer, opens, and finds the masks it saved.

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

import csv
import io
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from nnunet_nacl.nnunet.folders import list_folder
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import check_ours, replacing, write_atomically
from nnunet_nacl.worklist.csv_tables import read_csv, rows_by_column
from nnunet_nacl.worklist.list_files import PAGES_FOLDER

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

_ENDINGS = (".nii.gz", ".nii", ".nrrd")
_EDITED = re.compile(r"(?P<image>.+?)(?:_edited)?_mask_(?P<date>\d[\d_:-]*)\.nii\.gz")
"""Name of a mask that the extension saved; ``image`` is the name of the image up to the first
dot."""


def check_images(images: Iterable[Path], output: Path) -> None:
    """Check images, and whether the mapping can be written, before anything is written.

    Raises:
        UserError: The extension cannot read an image, or tell two of them apart, or a mapping lies
            in the output folder that no run wrote.
    """
    check_ours([output / PAGES_FOLDER / MAPPING])
    image_of_name: dict[str, str] = {}
    for image in map(os.path.abspath, images):
        ending = next(filter(image.endswith, _ENDINGS), "")
        if not ending:
            raise UserError(
                f"[[slicer=True]]: {image}: SegmentationReview reads {', '.join(_ENDINGS)} alone."
            )
        if "." in image.removesuffix(ending):
            raise UserError(
                f"[[slicer=True]]: {image}: SegmentationReview names edited masks by the"
                " path up to its"
                " first dot; give a path without other dots, such as that of a link."
            )
        other = image_of_name.setdefault(name_of_path(image), image)
        if other != image:
            raise UserError(
                f"[[slicer=True]]: {other} and {image} are rated by the same name; rename one."
            )


def write_mapping(output: Path, images: Mapping[str, Path], ending: str) -> list[str]:
    """Write the mapping, and copies of the segmentations that can be edited.

    Args:
        output: Folder of the segmentations; the extension opens its ``review``.
        images: First channel of each case, in the order of the list.
        ending: Of the segmentations' files.

    Returns:
        Cases whose copy lay in the folder already: it may have been edited, and is left alone.
    """
    folder = output / PAGES_FOLDER
    kept = []
    text = io.StringIO()
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
    """Case of each image by the image's name.

    As mapping.csv in the folder has it; without one images are named CASE_0000. UserError where
    that file has lost a column.
    """
    case_of_image = {f"{case}_0000{ending}": case for case in cases}
    path = folder / MAPPING
    if not path.is_file():
        return case_of_image
    columns = ("img_path", "mask_path")
    for row in rows_by_column(read_csv(path), columns, path):
        for column in columns:
            if column not in row:
                raise UserError(
                    f"{path}: a row has no {column}; restore its columns, or move the file away."
                )
        mask = name_of_path(row["mask_path"])
        case_of_image[name_of_path(row["img_path"])] = mask.removesuffix(ending)
    return case_of_image


def corrected_files(
    folder: Path, cases: Collection[str], images: Mapping[str, str], ending: str
) -> dict[str, Path]:
    """File of corrected labels of each case that has one: the last mask of its image, else CASE.

    Args:
        folder: Of corrected labels.
        cases: Of the list.
        images: Case of each image, by the image's name.
        ending: Of the segmentations' files.

    Raises:
        UserError: There are none.
    """
    names = list_folder(folder)
    corrected = {case: folder / f"{case}{ending}" for case in cases if f"{case}{ending}" in names}

    case_of_stem = {image.partition(".")[0]: case for image, case in images.items()}
    case_of_stem |= {case: case for case in cases}
    edited_masks = []
    for name in names:
        match = _EDITED.fullmatch(name)
        if match and match["image"] in case_of_stem:
            edited_masks.append(match)
    for match in sorted(edited_masks, key=_digits_of_date):  # the last one stays
        corrected[case_of_stem[match["image"]]] = folder / match[0]

    if not corrected:
        wanted = f"SCAN{ending} or SCAN_0000_edited_mask_DATE.nii.gz, of scans of the list"
        raise UserError(f"[[corrected]] {folder}: holds no corrected labels ({wanted}).")
    return corrected


def _digits_of_date(edited_mask: re.Match[str]) -> str:
    return re.sub(r"\D", "", edited_mask["date"])


def name_of_path(path: str) -> str:
    """The last part of a path of any system."""
    return re.split(r"[\\/]", path)[-1]
