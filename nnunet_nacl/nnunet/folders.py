"""Where nnU-Net keeps models, folds, splits and ground truth; what its JSON files hold."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.settings import FINAL
from nnunet_nacl.utilities.errors import UserError, describe, some
from nnunet_nacl.utilities.json_files import decode, read_dict, read_json

PREDICT_ARGUMENTS = "predict_from_raw_data_args.json"
"""What nnUNetv2_predict was asked to do, beside its predictions."""
_FOLD = re.compile("all|0|[1-9][0-9]*")  # nnU-Net takes int("0_1") and int("²") for numbers, too


class DatasetJson(TypedDict):
    """What is read of dataset.json."""

    labels: dict[str, object]
    file_ending: str
    channel_names: NotRequired[dict[str, object]]
    modality: NotRequired[dict[str, object]]


class PlansJson(TypedDict):
    """What is read of plans.json."""

    dataset_name: NotRequired[str]
    image_reader_writer: NotRequired[str]
    configurations: NotRequired[dict[str, dict[str, object]]]
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
        raise UserError(describe(error, folder)) from None


def read_above(
    folder: Path, name: str, given: str | os.PathLike | None, argument: str, kind: type
) -> dict[str, Any]:
    """The content of a JSON file: the one that is given, or one of a folder or above it.

    Args:
        folder: It is looked for there and up to two levels above.
        name: Of the file that is looked for.
        given: A file that is read instead.
        argument: That gives one, for the message.
        kind: The type that the content must have.

    Raises:
        UserError: There is no such file, or its content is of another type.
    """
    path = Path(given) if given else _find_above(folder, name, argument)
    content = read_dict(path)
    decode(kind, content, path)
    return content


def _find_above(folder: Path, name: str, argument: str) -> Path:
    for place in (folder, *folder.resolve().parents[:2]):
        if (place / name).is_file():
            return place / name
    raise UserError(
        f"{folder}: no {name} there or up to two levels above; give it with [[{argument}]]."
    )


def find_references(dataset_name: str | None, folder: Path) -> Path:
    """nnU-Net's ground truth of a data set, for predictions in ``folder``; UserError if absent."""
    if not dataset_name:
        raise UserError(
            f"plans.json of {folder} names no data set; give the ground-truth folder too."
        )
    root = os.environ.get("nnUNet_preprocessed") or "nnUNet_preprocessed (not set)"
    references = Path(root, dataset_name, "gt_segmentations")
    if not references.is_dir():
        raise UserError(
            f"no ground truth of {dataset_name} for {folder}: there is no {references}; give its"
            " folder."
        )
    return references


def splits_of(dataset_name: str | None) -> list[Split]:
    """The splits of splits_final.json by fold; none without it, UserError where it is damaged."""
    preprocessed = os.environ.get("nnUNet_preprocessed") or os.devnull
    path = Path(preprocessed, dataset_name or os.devnull, "splits_final.json")
    if not path.is_file():
        return []
    return decode(list[Split], read_json(path), path, fix="restore it")


def model_folder(
    dataset: str | int,
    trainer: str,
    plans: str,
    configuration: str,
    folder_argument: str = "[[model=FOLDER]]",
) -> Path:
    """nnU-Net's folder of a trained model.

    Args:
        dataset: Name or number of the data set.
        trainer: Name of the trainer.
        plans: Name of the plans.
        configuration: Name of the configuration.
        folder_argument: What takes a model's folder in place of all these, as a mark of a message.

    Raises:
        UserError: There is no such data set or model; the message names those that there are.
    """
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    results = os.environ.get("nnUNet_results")
    if not results:
        raise UserError(
            "the environment variable nnUNet_results is not set; type"
            " `export nnUNet_results=FOLDER`, with the folder that holds Dataset001_..., or give"
            f" {folder_argument}."
        )
    try:
        folder = Path(get_output_folder(dataset, trainer, plans, configuration))
    except (RuntimeError, ValueError, AssertionError) as error:  # unknown or ambiguous data set
        problem = f"there is no data set {dataset}"
        if "More than one" in str(error):
            problem = f"several data sets have the number {dataset}"
        raise UserError(f"{problem}; {_data_sets_in(results)}.") from None
    if not folder.parent.is_dir():
        raise UserError(f"{folder.parent}: no such data set; {_data_sets_in(results)}.")
    if not folder.is_dir():
        raise UserError(
            f"{folder.parent.name} has no model {folder.name};"
            f" {_models_in(folder, trainer, plans, configuration)}."
        )
    return folder


def _data_sets_in(results: str) -> str:
    """The data sets that have models, in words that end in what to type."""
    names = sorted(path.name for path in Path(results).glob("Dataset[0-9][0-9][0-9]_*"))
    if not names:
        return f"{results} has none: correct nnUNet_results, or train a model"
    given = [f"[[datasets={int(name[7:10])}]] ({name})" for name in names]
    return f"nnUNet_results has {some(given)}"


def _models_in(missing: Path, trainer: str, plans: str, configuration: str) -> str:
    """The models that a data set has in place of a missing one, in words that end in what to
    type."""
    models = []
    for path in sorted(missing.parent.glob("*__*__*")):
        parts = path.name.split("__")
        if len(parts) != 3:
            continue
        given = []
        for mark, part, asked in zip(
            ("methods:models", "plans", "configuration"), parts, (trainer, plans, configuration)
        ):
            if part != asked:
                given.append(f"[[{mark}={part}]]")
        models.append(" ".join(given))
    if not models:
        return f"{missing.parent} has none: train one with `nnUNetv2_train`"
    fewest_changes_first = sorted(models, key=lambda model: model.count("[["))
    return f"type {some(fewest_changes_first, separator=', or ')}"


def fold_of(folder: Path) -> str | None:
    """The fold that a folder is named for; None for other names, such as those of copies."""
    name = folder.name.removeprefix("fold_")
    if name == folder.name or not _FOLD.fullmatch(name):
        return None
    return name


def validated_fold(folder: Path) -> str:
    """The fold whose validation folder this is, of any checkpoint; empty for other folders."""
    path = Path(os.path.abspath(folder))
    if not re.fullmatch("validation(_checkpoint_.*)?", path.name):
        return ""
    return fold_of(path.parent) or ""


def fold_folders(model: Path) -> dict[str, Path]:
    """The folders of a model's folds by fold, in order; others named like them are left out."""
    folders = {}
    for folder in sorted(model.iterdir()):
        fold = fold_of(folder)
        if fold is not None and folder.is_dir():
            folders[fold] = folder
    return folders


def choose_folds(
    model: Path, has: Callable[[Path], bool], what: str, asked: Sequence[str | int] | None = None
) -> tuple[str, ...]:
    """The folds asked for; else every numbered one that ``has`` what is needed, or fold_all.

    Args:
        model: Its folder.
        has: Whether the folder of a fold has what is needed.
        what: What that is, for the message.
        asked: Folds; None chooses.

    Raises:
        UserError: A fold that is asked for has not what is needed, or none has it.
    """
    present = [fold for fold, folder in fold_folders(model).items() if has(folder)]
    present.sort(key=lambda fold: (len(fold), fold))
    if asked:
        chosen = list(dict.fromkeys(map(str, asked)))
    elif present == ["all"]:
        chosen = present
    else:  # fold_all holds the same cases as the folds
        chosen = [fold for fold in present if fold != "all"]
    if not chosen:
        raise UserError(f"{model} has no fold with a {what}; {_checkpoints_in(model)}.")
    for fold in chosen:
        if fold not in present:
            instead = _checkpoints_in(model)
            if present:
                instead = f"train it, or give [[folds={' '.join(present)}]]"
            raise UserError(f"{model / f'fold_{fold}'} has no {what}; {instead}.")
    return tuple(chosen)


def _checkpoints_in(model: Path) -> str:
    """The checkpoints of a model's folds, in words that end in what to type."""
    names = {path.name for folder in fold_folders(model).values() for path in folder.glob("*.pth")}
    if not names:
        return "train one, or name another model"
    given = [f"[[checkpoint={name}]]" for name in sorted(names)]
    return f"finish a training, or give {some(given, separator=' or ')}"


def predicted_folder(fold: Path, checkpoint: str) -> Path:
    """Where a fold's checkpoint predicts validation cases to."""
    return fold / f"validation_{checkpoint.removesuffix('.pth')}"


def validation_folder(fold: Path, checkpoint: str = FINAL) -> Path:
    """The folder with the validation predictions of a fold's checkpoint.

    nnU-Net's own is that of the final checkpoint. It is taken unless it cannot be measured, and
    what this package has predicted can. Other checkpoints have none but the latter.
    """
    validation = fold / "validation"
    predicted = predicted_folder(fold, checkpoint)
    if checkpoint != FINAL:
        return predicted
    if can_be_measured(predicted) and not can_be_measured(validation):
        return predicted
    return validation


def can_be_measured(folder: Path) -> bool:
    """Whether a folder of predictions has probabilities, or records of cases that had them."""
    return any(folder.glob("*.npz")) or any(records_in(folder).glob("*.npz"))


def records_in(folder: Path) -> Path:
    """Where the records of predictions lie that are measured beside a ground truth.

    That is not where a run keeps its own.
    """
    if (folder / "prediction.json").is_file():
        return folder / "evaluation_records"
    return folder / RECORDS
