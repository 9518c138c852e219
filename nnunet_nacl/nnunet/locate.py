"""Finds what belongs together in nnU-Net's folders: models, their folds and cases, images of predictions."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from typing_extensions import TypedDict

from nnunet_nacl.case.document import FILE_NAME
from nnunet_nacl.errors import UserError, first_line, some
from nnunet_nacl.files import is_file_name
from nnunet_nacl.json_files import decode, read_dict, read_json
from nnunet_nacl.nnunet.companion_files import PREDICT_ARGUMENTS, fold_folders, folds_asked_for, list_folder
from nnunet_nacl.nnunet.npz import RERUN
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder

SPLITS = "splits_final.json"


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
        there = some(sorted(path.name for path in Path(os.environ["nnUNet_results"]).glob("Dataset*"))) or "none"
        problem = first_line(error).partition(". ")[0]
        raise UserError(f"data set {dataset!r}: {problem}; nnUNet_results has {there}. Give one of these.") from None
    if not folder.is_dir():
        present = sorted(entry.name for entry in folder.parent.glob("*__*")) if folder.parent.is_dir() else []
        raise UserError(f"{folder}: no such model; there are {', '.join(present) or 'none'} in {folder.parent}.")
    return folder


def calibrate_command(model: Path, configuration: str) -> str:
    """What calibrates a model on its validation cases, as it is typed."""
    trainer, _, rest = model.name.partition("__")
    plans = rest.rpartition("__")[0]
    words = ["nnunet_nacl", "calibrate", "-d", model.resolve().parent.name, "-tr", trainer, "-c", configuration]
    return shlex.join(words + (["-p", plans] if plans not in ("", "nnUNetPlans") else []))


def folds_with(model: Path, name: str) -> list[str]:
    """Names of a model's folds that have a file or folder of this name, in order; ``all`` is nnU-Net's fold_all.

    UserError if it is a path, not a name.
    """
    if name in ("", ".", "..") or os.path.basename(name) != name:
        raise UserError(f"-chk {name}: give the name of a file in the folds' folders, such as checkpoint_final.pth.")
    return [fold for fold, folder in fold_folders(model).items() if (folder / name).exists()]


def trained_folds(model: Path, checkpoint: str, folds: Sequence[str | int] | None = None) -> tuple[str, ...]:
    """The folds that are asked for, each once; else every numbered one with the checkpoint, or fold_all.

    Raises:
        UserError: There is none, or one that is asked for is no fold's name or has no such checkpoint.
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
    return predicted if (predicted / FILE_NAME).is_file() and not is_measured(own) else own


def is_measured(folder: Path) -> bool:
    """Whether predictions can be measured, or were."""
    return (folder / FILE_NAME).is_file() or any(folder.glob("*.npz"))


def find_fold_folders(model: Path, folds: Sequence[str | int] | None = None) -> dict[str, PredictionFolder]:
    """The validation folders of a model's folds.

    Args:
        model: The model folder.
        folds: Folds 0, 1, ... or ``all`` (nnU-Net's fold_all); None takes every numbered fold that has a validation
            folder, or fold_all where there is none.

    Returns:
        Folders by fold name, in order.

    Raises:
        UserError: One that is asked for is no fold's name, a fold has no validation folder, or there is none at all.
    """
    if folds is None:
        present = [fold for fold, folder in fold_folders(model).items() if validation_folder(folder).is_dir()]
        # fold_all holds the same cases as the folds: only on its own
        folds = sorted((fold for fold in present if fold != "all"), key=int) or present
        if not folds:
            raise UserError(f"{model} has no fold with a validation folder; finish a training first.")
    result = {}
    for fold in folds_asked_for(folds):
        folder = validation_folder(model / f"fold_{fold}")
        if not folder.is_dir():
            there = ", ".join(folds_with(model, "validation"))
            raise UserError(f"{folder}: no such folder (folds there: {there or 'none'}); train this fold or {RERUN}.")
        result[fold] = with_expected(PredictionFolder.open(folder), fold)
    return result


def with_expected(folder: PredictionFolder, fold: str = "all") -> PredictionFolder:
    """A folder that knows which cases should be there: every one of the ground truth, or those of a fold's split.

    Of folds beyond splits_final.json, for which nnU-Net makes a random split, nothing is known. UserError for ``all``
    where there is no ground truth.
    """
    if fold != "all":
        splits, number = splits_of(folder.plans.get("dataset_name")), int(fold)
        return replace(folder, expected=tuple(sorted(splits[number]["val"])) if number < len(splits) else None)
    ending = folder.file_ending
    names = list_folder(folder.reference_folder)[0] if folder.reference_folder else ()
    expected = tuple(sorted(name[: -len(ending)] for name in names if name.endswith(ending)))
    if not expected:
        none = f"{folder.reference_folder} holds no ground truth (no *{ending}, as dataset.json has it)"
        raise UserError(f"{none}; give the right folder.")
    return replace(folder, expected=expected)


class Split(TypedDict):
    """Of a fold, the cases to train on and those to validate on."""

    train: list[str]
    val: list[str]


def splits_of(dataset_name: str | None) -> list[Split]:
    """The splits of a preprocessed data set by fold, of splits_final.json; none where there is no such file.

    UserError where it is damaged, or names a case that no file can be called.
    """
    path = Path(os.environ.get("nnUNet_preprocessed") or os.devnull) / (dataset_name or os.devnull) / SPLITS
    splits = decode(list[Split], read_json(path), path, fix="restore it") if path.is_file() else []
    for case in (case for split in splits for case in (*split["train"], *split["val"])):
        if not is_file_name(case):
            raise UserError(f"{path}: {case!r} cannot be the name of a case; restore it.")
    return splits


def image_files(folder: PredictionFolder, case: str) -> list[Path]:
    """The files of a case's channels; UserError without any.

    dataset.json may list them; else they are numbered, in the input folder of nnUNetv2_predict, as recorded beside the
    predictions, or in nnUNet_raw.
    """
    root = os.environ.get("nnUNet_raw")
    dataset = Path(root or os.devnull) / folder.plans.get("dataset_name", "")
    with contextlib.suppress(KeyError, TypeError):  # it lists none, or something else
        images = [os.path.expandvars(image) for image in folder.dataset_json["dataset"][case]["images"]]
        if root and images:
            return [dataset / image for image in images]
    places = [dataset / "imagesTr", dataset / "imagesTs"]
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
