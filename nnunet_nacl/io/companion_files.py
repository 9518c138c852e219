"""Finds what belongs to a folder of predictions: dataset.json, plans.json, the images and the ground truth."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import is_file_name
from nnunet_nacl.io.image_files import read_images
from nnunet_nacl.json_files import read_dict

if TYPE_CHECKING:
    from nnunet_nacl.io.prediction_folder import PredictionFolder

_DATASET = {"labels": dict, "file_ending": str, "channel_names": dict, "modality": dict}
_PLANS = {"dataset_name": str, "image_reader_writer": str, "configurations": dict}
"""What is read of dataset.json and plans.json, and of what type it must be."""
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
    content = _typed(read_dict(path), _DATASET, path)
    for key in {"labels", "file_ending"} - content.keys():
        raise UserError(f"{path}: it has no {key!r}; give nnU-Net's own file.")
    ending = content["file_ending"]
    if not ending.startswith(".") or not is_file_name(ending) or ending == ".npz":
        raise UserError(f"{path} has the file_ending {ending!r}; nnU-Net's is like '.nii.gz'.")
    return content


def read_plans(path: Path) -> dict[str, Any]:
    """The content of plans.json; UserError where what this package reads of it has another type."""
    plans = _typed(read_dict(path), _PLANS, path)
    if not is_file_name(name := plans.get("dataset_name", "unnamed")):
        raise UserError(f"{path}: dataset_name is {name!r}, which names no folder; give nnU-Net's own file.")
    configurations = plans.get("configurations", {})
    _typed(configurations, dict.fromkeys(configurations, dict), f"{path}: configurations")
    return plans


def _typed(content: dict[str, Any], kinds: Mapping[str, type], source: object) -> dict[str, Any]:
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


def read_image(folder: PredictionFolder, case: str, channel: int, shape: Sequence[int]) -> np.ndarray:
    """One channel of the case's image through nnU-Net's reader.

    It lies in the input folder of nnUNetv2_predict, as recorded beside the predictions, else in nnUNet_raw.

    Raises:
        UserError: nnUNet_raw is not set, there is no such image or channel, or it does not fit the ground truth.
    """
    files = image_files(folder, case)
    has_file = channel < len(files)  # a colour picture has several channels in its one file
    channels, _ = read_images(folder.reader, [files[channel]] if has_file else files)
    if not has_file and (len(files) > 1 or channel >= len(channels)):
        raise UserError(f"{files[0].parent}: {case} has no channel {channel}.")
    array = channels[0 if has_file else channel]
    if array.shape != tuple(shape):
        raise UserError(f"{files[0]}: shape {array.shape}, the ground truth has {tuple(shape)}.")
    return array


def image_files(folder: PredictionFolder, case: str) -> list[Path]:
    """The files of a case's channels: dataset.json may list them, else they are numbered; UserError without any."""
    root, name = os.environ.get("nnUNet_raw"), str(folder.plans.get("dataset_name", ""))
    places = [Path(root) / name / sub for sub in ("imagesTr", "imagesTs")] if root else []
    with contextlib.suppress(KeyError, TypeError):  # it lists none, or something else
        images = [os.path.expandvars(image) for image in folder.dataset_json["dataset"][case]["images"]]
        if places and images:
            return [Path(str(root)) / name / image for image in images]
    with contextlib.suppress(UserError, KeyError, TypeError):  # given a list, or not nnUNetv2_predict's
        places.insert(0, Path(read_dict(folder.folder / PREDICT_ARGUMENTS)["list_of_lists_or_source_folder"]))
    for place in places:
        files: list[Path] = []
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
