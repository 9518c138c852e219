"""comparison.json and the folder around it: what may be written over, and what of an earlier comparison goes.

What its keys mean stands in docs/reference/files.md.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import lies_inside, remove_leftovers, to_json_text, write_atomically
from nnunet_nacl.json_files import read_json

COMPARISON_FILE, PAGE_NAME = "comparison.json", "report.html"
TABLES, FIGURES = "tables", "figures"  # folders beside it
SCHEMA_VERSION = 4  # keys may be added within a version
_KEYS = {"schema_version", "trainers", "datasets", "tables", "figures"}  # of every version


def check_output_folder(folder: Path) -> None:
    """Fail before the work rather than after it: UserError unless a comparison can be written there. Makes nothing."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"-o {folder} is a file; give a folder.")
    earlier = _earlier(folder / COMPARISON_FILE)
    if earlier is not None and not (isinstance(earlier, dict) and earlier.keys() >= _KEYS):
        raise UserError(
            f"{folder / COMPARISON_FILE} is not a comparison of this package and would be lost; choose another -o."
        )
    for place in (folder, folder / TABLES, folder / FIGURES):
        while not place.exists():  # nothing is made yet: a comparison that fails leaves no empty folder
            place = place.parent
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise UserError(
                f"-o {folder}: no file can be written in {place} ({error.strerror}); choose another."
            ) from None


def remove_temporaries(folder: Path) -> None:
    """Remove what killed runs left in an output folder: unfinished tables, figures and pages."""
    for place in (folder, folder / TABLES, folder / FIGURES):
        remove_leftovers(place)


def write_comparison(document: dict[str, Any], folder: Path) -> Path:
    """Write comparison.json, last of all, and remove files that only the one before it lists."""
    path = folder / COMPARISON_FILE
    before = _listed(_earlier(path))
    if before:  # which its page shows
        (folder / PAGE_NAME).unlink(missing_ok=True)
    write_atomically(path, to_json_text(document))
    for name in before - _listed(document):
        place = folder / name
        # only what lies where this package puts it: the old file may have been edited by hand
        if place.parent in (folder / TABLES, folder / FIGURES) and lies_inside(place, folder):
            place.unlink()
    return path


def _earlier(path: Path) -> Any:
    """What is there already; None where nothing is, or nothing of worth: a damaged file."""
    try:
        return read_json(path)
    except UserError:
        return None


def _listed(document: Any) -> set[str]:
    """Files that a comparison.json names; none where it is damaged or something else."""
    try:
        return {str(name) for entry in (*document["tables"], *document["figures"]) for name in entry["files"]}
    except (KeyError, TypeError):
        return set()
