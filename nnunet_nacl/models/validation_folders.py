"""Where a model's held-out validation cases lie; what is lacking of them is predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.io.checkpoints import check_original
from nnunet_nacl.io.locate import find_fold_folders, predicted_folder, trained_folds
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.prediction.trained_model import FINAL
from nnunet_nacl.prediction.validation_prediction import (
    INFERENCE,
    check_checkpoint,
    inference_of,
    predict_lost,
    predict_validation,
)
from nnunet_nacl.runs.sample_files import read_sample, sample_path


def validation_folders(
    model: Path,
    folds: Sequence[str] | None,
    checkpoint: str,
    network: Mapping[str, Any],
    *,
    num_processes: int,
    log: Callable[[str], None],
) -> dict[str, PredictionFolder]:
    """The folds' validation cases; of folds that kept neither probabilities nor samples they are predicted.

    Args:
        model: The model folder.
        folds: Which; None takes every numbered fold that is trained.
        checkpoint: File in each. nnU-Net's ``validation/`` is that of checkpoint_final.pth; others predict.
        network: Arguments of :func:`~nnunet_nacl.prediction.network.build_predictor` beside the model.
        num_processes: Cases exported at the same time.
        log: Takes a line that says what is predicted.

    Raises:
        UserError: A fold is not trained, was trained on every case, is calibrated already, or was predicted otherwise
            than the others: a map is fitted to predictions of one kind.
    """
    asked = folds or trained_folds(model, checkpoint)
    if "all" in asked:
        raise UserError(
            "fold all was trained on every case, its validation cases too: nothing is held out. Give trained folds "
            "(-f 0 1 2 3 4), or cases of your own (-i IMAGES -gt LABELS -d ... -c ...)."
        )
    chosen = trained_folds(model, checkpoint, asked)
    check_original(model, chosen, checkpoint)  # before hours of prediction
    folders = {fold: _kept(model, fold) if checkpoint == FINAL else None for fold in chosen}
    lacking = {fold: _lacking(folder) for fold, folder in folders.items() if folder}
    todo = [fold for fold in chosen if lacking.get(fold, True)]
    # of folds that lack some cases only, what is there stays: predicting these is less work than all again
    single = [
        fold
        for fold in todo
        if (folder := folders[fold])
        and folder.folder.name == "validation"
        and len(lacking[fold]) < len(folder.expected or ())
    ]
    as_asked = {name: network[name] for name in INFERENCE}
    inference = {
        fold: inference_of(folder.folder) if folder and (fold not in todo or fold in single) else as_asked
        for fold, folder in folders.items()
    }
    if other := next((fold for fold in chosen if inference[fold] != inference[chosen[0]]), None):
        first, second = (
            ", ".join(f"{name} {value}" for name, value in inference[fold].items()) for fold in (chosen[0], other)
        )
        raise UserError(
            f"fold {chosen[0]} is predicted with {first} and fold {other} with {second}: a map is fitted to "
            "predictions of one kind. Give -step_size and --disable_tta so that they are the same, or remove "
            f"validation_{checkpoint.removesuffix('.pth')}/ of one of them."
        )
    if todo:
        log(
            f"folds {', '.join(todo)}: not all validation cases have probabilities or samples of this version by "
            f"{checkpoint}. Those not predicted by an earlier run are predicted on {network['device']}; the bar shows "
            "the time left."
        )
    result = {}
    for fold, folder in folders.items():
        options = {**network, **inference[fold]}
        if folder and fold in single:
            predict_lost(folder, fold, checkpoint, lacking[fold], options, progress=True)
        if folder and (fold in single or fold not in todo):
            result[fold] = folder
        else:
            settings: Any = {"num_processes": num_processes, "progress": True}
            result[fold] = predict_validation(model, fold, checkpoint, options, **settings)
    return result


def _kept(model: Path, fold: str) -> PredictionFolder | None:
    """The validation of a fold; None where there is none, or an earlier network predicted it."""
    try:
        folder = find_fold_folders(model, [fold])[fold]
        if folder.folder == predicted_folder(model / f"fold_{fold}", FINAL):
            check_checkpoint(folder.folder)
        return folder
    except UserError:
        return None


def _lacking(folder: PredictionFolder) -> list[str]:
    """Cases of a fold with neither probabilities nor a sample that this version can read."""
    lacking = []
    for case in folder.expected or ():
        files = folder.files(case)
        if not files.probabilities.is_file():
            try:
                if files.segmentation is None:  # which a sample alone does not tell
                    raise UserError(f"{case}{folder.file_ending} is missing.")
                read_sample(sample_path(files), folder.labels)
            except UserError:
                lacking.append(case)
    return lacking
