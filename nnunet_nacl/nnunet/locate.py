"""Finds models, folds, dataset.json, plans.json and ground truth in nnU-Net's folders."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.case.record import RECORDS
from nnunet_nacl.errors import UserError, first_line, some
from nnunet_nacl.files import is_file_name
from nnunet_nacl.json_files import decode, read_dict, read_json

PREDICT_ARGUMENTS = "predict_from_raw_data_args.json"
"""What nnUNetv2_predict was asked to do, beside its predictions."""
_FOLD = re.compile("all|0|[1-9][0-9]*")  # nnU-Net takes int("0_1") and int("²") for numbers, too


class _Dataset(TypedDict):  # what is read of dataset.json
    labels: dict[str, Any]
    file_ending: str
    channel_names: NotRequired[dict[str, Any]]
    modality: NotRequired[dict[str, Any]]


class _Plans(TypedDict):  # what is read of plans.json
    dataset_name: NotRequired[str]
    image_reader_writer: NotRequired[str]
    configurations: NotRequired[dict[str, dict[str, Any]]]


class Split(TypedDict):
    """Of a fold, the cases to train on and those to validate on."""

    train: list[str]
    val: list[str]


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
    decode(_Dataset, content := read_dict(path), path)
    ending = content["file_ending"]
    if not ending.startswith(".") or not is_file_name(ending) or ending == ".npz":
        raise UserError(f"{path} has the file_ending {ending!r}; nnU-Net's is like '.nii.gz'.")
    return content


def read_plans(path: Path) -> dict[str, Any]:
    """The content of plans.json; UserError where what this package reads of it has another type."""
    decode(_Plans, plans := read_dict(path), path)
    if not is_file_name(name := plans.get("dataset_name", "unnamed")):
        raise UserError(f"{path}: dataset_name is {name!r}, which names no folder; give nnU-Net's own file.")
    return plans


def find_references(dataset_name: str | None, folder: Path) -> Path:
    """nnU-Net's own ground truth of a data set, for the predictions in ``folder``; UserError if there is none."""
    if not dataset_name:
        raise UserError(f"plans.json of {folder} names no data set; give the ground-truth folder too.")
    places = [
        Path(os.environ.get(variable) or f"{variable} (not set)", dataset_name, sub)
        for variable, sub in (("nnUNet_preprocessed", "gt_segmentations"), ("nnUNet_raw", "labelsTr"))
    ]
    if place := next(filter(Path.is_dir, places), None):
        return place
    raise UserError(f"no ground truth of {dataset_name} for {folder}: looked in {' and '.join(map(str, places))}.")


def splits_of(dataset_name: str | None) -> list[Split]:
    """The splits of a preprocessed data set by fold, of splits_final.json; none where there is no such file.

    UserError where it is damaged, or names a case that no file can be called.
    """
    preprocessed = os.environ.get("nnUNet_preprocessed") or os.devnull
    path = Path(preprocessed, dataset_name or os.devnull, "splits_final.json")
    splits = decode(list[Split], read_json(path), path, fix="restore it") if path.is_file() else []
    for case in (case for split in splits for case in (*split["train"], *split["val"])):
        if not is_file_name(case):
            raise UserError(f"{path}: {case!r} cannot be the name of a case; restore it.")
    return splits


def model_folder(dataset: str | int, trainer: str, plans: str, configuration: str) -> Path:
    """nnU-Net's folder of a trained model; UserError if it is not there."""
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    if not os.environ.get("nnUNet_results"):
        raise UserError("the environment variable nnUNet_results is not set; nnU-Net's documentation says what it is.")
    try:
        folder = Path(get_output_folder(dataset, trainer, plans, configuration))
    except OSError:
        raise
    except Exception as error:  # RuntimeError, ValueError: unknown or ambiguous data set, in several sentences
        present = some(sorted(path.name for path in Path(os.environ["nnUNet_results"]).glob("Dataset*"))) or "none"
        problem = first_line(error).partition(". ")[0]
        raise UserError(f"data set {dataset!r}: {problem}; nnUNet_results has {present}. Give one of these.") from None
    if not folder.is_dir():
        present = ", ".join(sorted(entry.name for entry in folder.parent.glob("*__*"))) or "none"
        raise UserError(f"{folder}: no such model; there are {present} in {folder.parent}.")
    return folder


def calibrate_command(model: Path, configuration: str) -> str:
    """What calibrates a model on its validation cases, as it is typed."""
    trainer, _, rest = model.name.partition("__")
    plans = rest.rpartition("__")[0]
    words = ["nnunet_nacl", "calibrate", "-d", model.resolve().parent.name, "-tr", trainer, "-c", configuration]
    return shlex.join(words + (["-p", plans] if plans not in ("", "nnUNetPlans") else []))


def fold_of(folder: Path) -> str | None:
    """The fold that a folder is of, by its name; None for one that nnU-Net does not name so, such as a copy."""
    name = folder.name.removeprefix("fold_")
    return name if name != folder.name and _FOLD.fullmatch(name) else None


def validated_fold(folder: Path) -> str:
    """The fold that a folder is the validation of, by its place; empty for any other folder."""
    place = Path(os.path.abspath(folder))
    return (place.name == "validation" and fold_of(place.parent)) or ""


def fold_folders(model: Path) -> dict[str, Path]:
    """The folders of a model's folds by fold, in the order of their names; OSError if the model cannot be read.

    Others whose names begin like those are left out, which is said on standard error, once.
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


def folds_with(model: Path, name: str) -> list[str]:
    """A model's folds that have a file or folder of this name, in order; UserError if it is a path, not a name."""
    if name in ("", ".", "..") or os.path.basename(name) != name:
        raise UserError(f"-chk {name}: give the name of a file in the folds' folders, such as checkpoint_final.pth.")
    return [fold for fold, folder in fold_folders(model).items() if (folder / name).exists()]


def trained_folds(model: Path, checkpoint: str, folds: Sequence[str | int] | None = None) -> tuple[str, ...]:
    """The folds that are asked for, each once; else every numbered one with the checkpoint, or fold_all.

    UserError if there is none, or one that is asked for is no fold's name or has no such checkpoint.
    """
    present = folds_with(model, checkpoint)
    chosen = folds_asked_for(folds or [fold for fold in present if fold != "all"] or present)
    if not chosen:
        raise UserError(f"{model} has no fold with a {checkpoint}; finish a training, or name another with -chk.")
    if absent := [fold for fold in chosen if fold not in present]:
        raise UserError(
            f"{model / f'fold_{absent[0]}'} has no {checkpoint}; there are the folds {', '.join(present) or '(none)'}. "
            "Train it, choose others with -f, or name another checkpoint with -chk."
        )
    return chosen


def predicted_folder(fold: Path, checkpoint: str) -> Path:
    """Where `nnunet_nacl evaluate --predict` puts what a checkpoint of a fold predicts."""
    return fold / f"validation_{checkpoint.removesuffix('.pth')}"


def validation_folder(fold: Path) -> Path:
    """nnU-Net's validation folder, unless only `nnunet_nacl evaluate --predict` has measured this fold."""
    own, predicted = fold / "validation", predicted_folder(fold, "checkpoint_final.pth")
    return predicted if is_measured(predicted) and not is_measured(own) else own


def is_measured(folder: Path) -> bool:
    """Whether predictions can be measured, or were."""
    return any(folder.glob("*.npz")) or any(records_in(folder).glob("*.npz"))


def records_in(folder: Path) -> Path:
    """Where the records of predictions lie that are measured beside a ground truth: not where a run keeps its own."""
    return folder / ("evaluation_records" if (folder / "prediction.json").is_file() else RECORDS)
