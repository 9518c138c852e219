"""Finds and reads what lies beside predictions: dataset.json, plans.json, the ground truth; the folds of a model."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import is_file_name
from nnunet_nacl.json_files import read_dict

_FOLD = re.compile("all|0|[1-9][0-9]*")  # nnU-Net takes int("0_1") and int("²") for numbers, too
PREDICT_ARGUMENTS = "predict_from_raw_data_args.json"
"""What nnUNetv2_predict was asked to do, beside its predictions."""


def list_folder(folder: Path) -> tuple[list[str], set[str]]:
    """Names of the files in a folder, and those of everything else: folders, links that lead nowhere or in circles."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); change its permissions.") from None
    files = [name for name in names if os.path.isfile(folder / name)]
    return files, set(names).difference(files)


def find_above(folder: Path, name: str, given: str | os.PathLike | None, flag: str) -> Path:
    """A file that lies in the folder or up to two levels above, unless it is given; UserError if it is not there."""
    if given is not None:
        return Path(given)
    resolved = folder.resolve()
    for candidate in (folder, resolved.parent, resolved.parent.parent):
        if (candidate / name).is_file():
            return candidate / name
    raise UserError(f"{folder}: no {name} there or up to two levels above; give it with {flag}.")


def read_dataset(path: Path) -> dict[str, Any]:
    """The content of dataset.json; UserError where what this package reads of it is missing or of another type."""
    content = _typed(read_dict(path), path, labels=dict, file_ending=str, channel_names=dict, modality=dict)
    for key in {"labels", "file_ending"} - content.keys():
        raise UserError(f"{path}: it has no {key!r}; give nnU-Net's own file.")
    ending = content["file_ending"]
    if not ending.startswith(".") or not is_file_name(ending) or ending == ".npz":
        raise UserError(f"{path} has the file_ending {ending!r}; nnU-Net's is like '.nii.gz'.")
    return content


def read_plans(path: Path) -> dict[str, Any]:
    """The content of plans.json; UserError where what this package reads of it has another type."""
    plans = _typed(read_dict(path), path, dataset_name=str, image_reader_writer=str, configurations=dict)
    if not is_file_name(name := plans.get("dataset_name", "unnamed")):
        raise UserError(f"{path}: dataset_name is {name!r}, which names no folder; give nnU-Net's own file.")
    configurations = plans.get("configurations", {})
    _typed(configurations, f"{path}: configurations", **dict.fromkeys(configurations, dict))
    return plans


def _typed(content: dict[str, Any], source: object, /, **kinds: type) -> dict[str, Any]:
    """By hand: the package that decodes other documents takes as long to load as a small folder to review."""
    for key, kind in kinds.items():
        if not isinstance(content.get(key, kind()), kind):
            raise UserError(f"{source}: {key} is {type(content[key]).__name__}; give nnU-Net's own file.")
    return content


def find_references(dataset_name: str | None, folder: Path) -> Path:
    """nnU-Net's own ground truth of a data set, for the predictions in ``folder``; UserError if there is none."""
    if not dataset_name:
        raise UserError(f"plans.json of {folder} names no data set; give the ground-truth folder too.")
    places = [
        Path(os.environ.get(variable) or f"{variable} (not set)", dataset_name, sub)
        for variable, sub in (("nnUNet_preprocessed", "gt_segmentations"), ("nnUNet_raw", "labelsTr"))
    ]
    if there := [place for place in places if place.is_dir()]:
        return there[0]
    raise UserError(f"no ground truth of {dataset_name} for {folder}: looked in {' and '.join(map(str, places))}.")


def fold_of(folder: Path) -> str | None:
    """The fold that a folder is of, by its name; None for one that nnU-Net does not name so, such as a copy."""
    name = folder.name.removeprefix("fold_")
    return name if name != folder.name and _FOLD.fullmatch(name) else None


def validated_fold(folder: Path) -> str:
    """The fold that a folder is the validation of, by its place; empty for any other folder."""
    place = Path(os.path.abspath(folder))
    return (place.name == "validation" and fold_of(place.parent)) or ""


def fold_folders(model: Path) -> dict[str, Path]:
    """The folders of a model's folds by fold, in nnU-Net's order: that of their names.

    Others whose names begin like those are left out, which is said on standard error, once.

    Raises:
        OSError: The model folder cannot be read.
    """
    folds = {}
    for folder in sorted(entry for entry in model.iterdir() if entry.name.startswith("fold_") and entry.is_dir()):
        if fold := fold_of(folder):
            folds[fold] = folder
        else:
            _note_left_out(folder)
    return folds


@cache
def _note_left_out(folder: Path) -> None:
    print(f"note: {folder} is left out: folds are named fold_0, fold_1, ... or fold_all.", file=sys.stderr)


def folds_asked_for(folds: Sequence[str | int]) -> tuple[str, ...]:
    """Folds that the user named, each once; UserError for what is no fold's name."""
    asked = tuple(dict.fromkeys(map(str, folds)))
    if odd := [fold for fold in asked if not _FOLD.fullmatch(fold)]:
        raise UserError(f"-f {odd[0]}: folds are 0, 1, 2, ... or all (nnU-Net's fold_all).")
    return asked
