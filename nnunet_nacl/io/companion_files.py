"""Finds what belongs to a folder of predictions: dataset.json, plans.json, the images and the ground truth."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_nacl.errors import UserError
from nnunet_nacl.io.image_files import read_images
from nnunet_nacl.json_files import read_dict

if TYPE_CHECKING:
    from nnunet_nacl.io.prediction_folder import PredictionFolder

_FOLD = re.compile("all|0|[1-9][0-9]*")  # nnU-Net takes int("0_1") and int("²") for numbers, too
_noted: set[Path] = set()

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


def find_references(dataset_name: str | None, folder: Path) -> Path:
    """nnU-Net's own ground truth of a data set, for the predictions in ``folder``; UserError if there is none."""
    if not dataset_name:
        raise UserError(f"plans.json of {folder} names no data set; give the ground-truth folder too.")
    looked = []
    for variable, sub in (("nnUNet_preprocessed", "gt_segmentations"), ("nnUNet_raw", "labelsTr")):
        root = os.environ.get(variable)
        if not root:
            looked.append(f"{variable} (not set)")
            continue
        candidate = Path(root) / dataset_name / sub
        if candidate.is_dir():
            return candidate
        looked.append(str(candidate))
    raise UserError(f"no ground truth of {dataset_name} for {folder}: looked in {' and '.join(looked)}.")


def read_image(folder: PredictionFolder, case: str, channel: int, shape: Sequence[int]) -> np.ndarray:
    """One channel of the case's image through nnU-Net's reader.

    It lies in the input folder of nnUNetv2_predict, as recorded beside the predictions, else in nnUNet_raw.

    Raises:
        UserError: nnUNet_raw is not set, there is no such image or channel, or it does not fit the ground truth.
    """
    files = _image_files(folder, case)
    has_file = channel < len(files)  # a colour picture has several channels in its one file
    channels, _ = read_images(folder.reader, [files[channel]] if has_file else files)
    if not has_file and (len(files) > 1 or channel >= len(channels)):
        raise UserError(f"{files[0].parent}: {case} has no channel {channel}; choose another -channel.")
    array = channels[0 if has_file else channel]
    if array.shape != tuple(shape):
        raise UserError(f"{files[0]}: shape {array.shape}, the ground truth has {tuple(shape)}.")
    return array


def _image_files(folder: PredictionFolder, case: str) -> list[Path]:
    """The files of a case's channels: dataset.json may list them, else they are numbered."""
    root, name = os.environ.get("nnUNet_raw"), str(folder.plans.get("dataset_name", ""))
    listed: Any = folder.dataset_json.get("dataset")
    entry = listed.get(case) if isinstance(listed, dict) else None
    images = entry.get("images") if isinstance(entry, dict) else None
    if root and images and isinstance(images, list) and all(isinstance(image, str) for image in images):
        files = [Path(root) / name / os.path.expandvars(image) for image in images]
        if missing := [file for file in files if not file.is_file()]:
            raise UserError(f"{missing[0]}: no such image.")
        return files
    places = [Path(root) / name / sub for sub in ("imagesTr", "imagesTs")] if root else []
    with contextlib.suppress(UserError, KeyError, TypeError):  # given a list, or not nnUNetv2_predict's
        places.insert(0, Path(read_dict(folder.folder / PREDICT_ARGUMENTS)["list_of_lists_or_source_folder"]))
    for place in places:
        files = []
        while (file := place / f"{case}_{len(files):04d}{folder.file_ending}").is_file():
            files.append(file)
        if files:
            return files
    if not root:
        raise UserError("the environment variable nnUNet_raw is not set; the images lie there.")
    raise UserError(f"{places[0] / case}_0000{folder.file_ending}: no such image.")


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
