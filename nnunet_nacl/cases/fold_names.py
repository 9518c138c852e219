"""The folders of a model's folds, named as nnU-Net names them: ``fold_0``, ``fold_1``, ... and ``fold_all``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunet_nacl.errors import UserError

_FOLD = re.compile("all|0|[1-9][0-9]*")  # nnU-Net takes int("0_1") and int("²") for numbers, too
_noted: set[Path] = set()


def fold_of(folder: Path) -> str | None:
    """The fold that a folder is of, by its name; None for one that nnU-Net does not name so, such as a copy."""
    name = folder.name.removeprefix("fold_")
    return name if name != folder.name and _FOLD.fullmatch(name) else None


def fold_folders(model: Path) -> dict[str, Path]:
    """The folders of a model's folds by fold, in nnU-Net's order: that of their names.

    Others whose names begin like those are left out, which is said on standard error, once.

    Raises:
        OSError: The model folder cannot be read.
    """
    found = {}
    for folder in sorted(entry for entry in model.iterdir() if entry.name.startswith("fold_") and entry.is_dir()):
        if fold := fold_of(folder):
            found[fold] = folder
        elif folder not in _noted:
            _noted.add(folder)
            print(f"note: {folder} is left out: folds are named fold_0, fold_1, ... or fold_all.", file=sys.stderr)
    return found


def folds_asked_for(folds: Sequence[str | int]) -> tuple[str, ...]:
    """Folds that the user named, each once; UserError for what is no fold's name."""
    asked = tuple(dict.fromkeys(map(str, folds)))
    if odd := [fold for fold in asked if not _FOLD.fullmatch(fold)]:
        raise UserError(f"-f {odd[0]}: folds are 0, 1, 2, ... or all (nnU-Net's fold_all).")
    return asked
