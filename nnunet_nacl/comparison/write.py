"""Writes what a comparison found into a folder, and takes away what an earlier one left there."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_nacl.comparison.cells import Table
from nnunet_nacl.comparison.compare import Comparison
from nnunet_nacl.comparison.document import FIGURES, FILE_NAME, TABLES, to_document
from nnunet_nacl.comparison.formats import csv_text, markdown_text
from nnunet_nacl.comparison.latex import latex_text
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import read_dict

__all__ = ["check_output_folder", "write_comparison", "write_tables"]


def check_output_folder(folder: Path) -> None:
    """Fail before the work rather than after it: UserError unless files can be written there. Makes nothing."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"-o {folder} is a file; give a folder.")
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


def write_tables(tables: Sequence[Table], folder: Path, notes: Sequence[str] = ()) -> None:
    """``tables/<id>.csv``, ``.md`` and ``.tex`` of each."""
    for table in tables:
        place = folder / TABLES / table.id
        write_atomically(place.with_name(f"{table.id}.csv"), csv_text(table, notes))
        write_atomically(place.with_name(f"{table.id}.md"), markdown_text(table, notes))
        write_atomically(place.with_name(f"{table.id}.tex"), latex_text(table, notes))


def write_comparison(
    comparison: Comparison,
    tables: Sequence[Table],
    figures: Sequence[dict[str, Any]],
    folder: Path,
    *,
    command: str,
    allow_missing: bool,
) -> Path:
    """Write comparison.json, last of all, and remove files that only the one before it lists."""
    path = folder / FILE_NAME
    before = _listed(path)
    document = to_document(comparison, tables, figures, command=command, allow_missing=allow_missing)
    write_atomically(path, to_json_text(document))
    for name in before - _files(document):
        place = (folder / name).resolve()
        # only what lies where this package puts it: the old file may have been edited by hand
        if place.parent in ((folder / TABLES).resolve(), (folder / FIGURES).resolve()):
            place.unlink(missing_ok=True)
    return path


def _listed(path: Path) -> set[str]:
    """Files that an earlier comparison.json names; none where it is not there, damaged, or something else."""
    try:
        return _files(read_dict(path))
    except (UserError, KeyError, TypeError):
        return set()


def _files(document: dict[str, Any]) -> set[str]:
    return {str(name) for entry in (*document["tables"], *document["figures"]) for name in entry["files"]}
