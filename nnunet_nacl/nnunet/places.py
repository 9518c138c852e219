"""Where nnU-Net keeps models, folds, splits and ground truth, and what its dataset.json and
plans.json say."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.cases.record import RECORDS
from nnunet_nacl.errors import UserError, first_line, some
from nnunet_nacl.json_files import decode, read_dict, read_json

PREDICT_ARGUMENTS = "predict_from_raw_data_args.json"
"""What nnUNetv2_predict was asked to do, beside its predictions."""
FINAL = "checkpoint_final.pth"
_FOLD = re.compile("all|0|[1-9][0-9]*")  # nnU-Net takes int("0_1") and int("²") for numbers, too


class Dataset(TypedDict):
    """What is read of dataset.json."""

    labels: dict[str, Any]
    file_ending: str
    channel_names: NotRequired[dict[str, Any]]
    modality: NotRequired[dict[str, Any]]


class Plans(TypedDict):
    """What is read of plans.json."""

    dataset_name: NotRequired[str]
    image_reader_writer: NotRequired[str]
    configurations: NotRequired[dict[str, dict[str, Any]]]
    original_median_spacing_after_transp: NotRequired[list[float]]


class Split(TypedDict):
    """Of a fold, names of the cases."""

    train: list[str]
    val: list[str]


def list_folder(folder: Path) -> list[str]:
    """Names of what is in a folder but for folders, in order."""
    try:
        return sorted(name for name in os.listdir(folder) if not os.path.isdir(folder / name))
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be listed ({error.strerror}); change its permissions."
        ) from None


def read_above(
    folder: Path, name: str, given: str | os.PathLike | None, flag: str, kind: type
) -> dict[str, Any]:
    """A JSON file that is given, else of the folder or up to two levels above, as a dictionary of a
    kind; UserError."""
    found = (
        [Path(given)]
        if given
        else [place / name for place in (folder, *folder.resolve().parents[:2])]
    )
    if not given and not (found := list(filter(Path.is_file, found))):
        raise UserError(
            f"{folder}: no {name} there or up to two levels above; give it with {flag}."
        )
    decode(kind, content := read_dict(found[0]), found[0])
    return content


def find_references(dataset_name: str | None, folder: Path) -> Path:
    """nnU-Net's ground truth of a data set, for the predictions in ``folder``; UserError if there
    is none."""
    if not dataset_name:
        raise UserError(
            f"plans.json of {folder} names no data set; give the ground-truth folder too."
        )
    root = os.environ.get("nnUNet_preprocessed") or "nnUNet_preprocessed (not set)"
    if (place := Path(root, dataset_name, "gt_segmentations")).is_dir():
        return place
    raise UserError(
        f"no ground truth of {dataset_name} for {folder}: there is no {place}; give its folder."
    )


def splits_of(dataset_name: str | None) -> list[Split]:
    """The splits of splits_final.json by fold; none without it, UserError where it is damaged."""
    preprocessed = os.environ.get("nnUNet_preprocessed") or os.devnull
    path = Path(preprocessed, dataset_name or os.devnull, "splits_final.json")
    return decode(list[Split], read_json(path), path, fix="restore it") if path.is_file() else []


def model_folder(dataset: str | int, trainer: str, plans: str, configuration: str) -> Path:
    """nnU-Net's folder of a trained model; UserError if it is not there."""
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    if not (results := os.environ.get("nnUNet_results")):
        raise UserError(
            "the environment variable nnUNet_results is not set; nnU-Net's documentation says what"
            " it is."
        )
    try:
        folder = Path(get_output_folder(dataset, trainer, plans, configuration))
    except (RuntimeError, ValueError, AssertionError) as error:
        # unknown or ambiguous data set, in several sentences
        present = some(sorted(path.name for path in Path(results).glob("Dataset*"))) or "none"
        problem = first_line(error).partition(". ")[0]
        raise UserError(
            f"data set {dataset!r}: {problem}; nnUNet_results has {present}. Give one of these."
        ) from None
    if not folder.is_dir():
        present = ", ".join(sorted(entry.name for entry in folder.parent.glob("*__*"))) or "none"
        raise UserError(f"{folder}: no such model; there are {present} in {folder.parent}.")
    return folder


def calibrate_command(model: Path) -> str:
    """The command that calibrates a model on its validation cases."""
    trainer, plans, configuration, *_ = [*model.resolve().name.split("__"), "", ""]
    words = [
        "nnunet_nacl",
        "calibrate",
        "-d",
        model.resolve().parent.name,
        "-tr",
        trainer,
        "-c",
        configuration,
    ]
    return shlex.join(words + (["-p", plans] if plans not in ("", "nnUNetPlans") else []))


def fold_of(folder: Path) -> str | None:
    """The fold that a folder is named for; None for other names, such as those of copies."""
    name = folder.name.removeprefix("fold_")
    return name if name != folder.name and _FOLD.fullmatch(name) else None


def validated_fold(folder: Path) -> str:
    """The fold whose validation folder this is, by its place; empty for other folders."""
    place = Path(os.path.abspath(folder))
    return (place.name == "validation" and fold_of(place.parent)) or ""


def fold_folders(model: Path) -> dict[str, Path]:
    """The folders of a model's folds by fold, in order; others named like them are left out."""
    return {
        fold: folder
        for folder in sorted(model.iterdir())
        if (fold := fold_of(folder)) and folder.is_dir()
    }


def choose_folds(
    model: Path, has: Callable[[Path], bool], what: str, asked: Sequence[str | int] | None = None
) -> tuple[str, ...]:
    """The folds asked for, else every numbered one that ``has`` what is needed, or fold_all;
    UserError without it."""
    present = sorted(
        (f for f, folder in fold_folders(model).items() if has(folder)), key=lambda f: (len(f), f)
    )
    # fold_all holds the same cases as the folds: only on its own
    chosen = tuple(
        dict.fromkeys(map(str, asked or [fold for fold in present if fold != "all"] or present))
    )
    if not chosen:
        raise UserError(
            f"{model} has no fold with a {what}; finish a training, or name another checkpoint with"
            " -chk."
        )
    if absent := [fold for fold in chosen if fold not in present]:
        others = (
            f"there are the folds {', '.join(present) or '(none)'}. Train it, or choose others with"
            " -f or -chk."
        )
        raise UserError(f"{model / f'fold_{absent[0]}'} has no {what}; {others}")
    return chosen


def predicted_folder(fold: Path, checkpoint: str) -> Path:
    """Where a fold's checkpoint predicts validation cases to."""
    return fold / f"validation_{checkpoint.removesuffix('.pth')}"


def validation_folder(fold: Path, checkpoint: str = FINAL) -> Path:
    """nnU-Net's validation folder, unless only this package has predicted with this checkpoint."""
    validation, predicted = fold / "validation", predicted_folder(fold, checkpoint)
    is_nnunets = checkpoint == FINAL and (is_measured(validation) or not is_measured(predicted))
    return validation if is_nnunets else predicted


def is_measured(folder: Path) -> bool:
    """Whether predictions can be measured, or were."""
    return any(folder.glob("*.npz")) or any(records_in(folder).glob("*.npz"))


def records_in(folder: Path) -> Path:
    """Where the records of predictions lie that are measured beside a ground truth: not where a run
    keeps its own."""
    return folder / ("evaluation_records" if (folder / "prediction.json").is_file() else RECORDS)
