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
    plan: dict[str, tuple[PredictionFolder | None, list[str]]] = {}
    for fold in chosen:
        folder = _kept(model, fold) if checkpoint == FINAL else None
        lost = _lacking(folder) if folder else []
        # where nnU-Net's validation/ lacks some cases only, these are less work than all again
        if folder and lost and (folder.folder.name != "validation" or len(lost) == len(folder.expected or ())):
            folder = None
        plan[fold] = folder, lost
    asked_for = {name: network[name] for name in INFERENCE}
    inference = {fold: inference_of(folder.folder) if folder else asked_for for fold, (folder, _) in plan.items()}
    if other := next((fold for fold in chosen if inference[fold] != inference[chosen[0]]), None):
        first, second = (
            ", ".join(f"{name} {value}" for name, value in inference[fold].items()) for fold in (chosen[0], other)
        )
        raise UserError(
            f"fold {chosen[0]} is predicted with {first} and fold {other} with {second}: a map is fitted to "
            "predictions of one kind. Give -step_size and --disable_tta so that they are the same, or remove "
            f"validation_{checkpoint.removesuffix('.pth')}/ of one of them."
        )
    if todo := [fold for fold, (folder, lost) in plan.items() if lost or not folder]:
        log(
            f"folds {', '.join(todo)}: not all validation cases have probabilities or samples of this version by "
            f"{checkpoint}. Those not predicted by an earlier run are predicted on {network['device']}; the bar shows "
            "the time left."
        )
    result = {}
    for fold, (folder, lost) in plan.items():
        options = {**network, **inference[fold]}
        if folder is None:
            folder = predict_validation(model, fold, checkpoint, options, num_processes=num_processes)
        elif lost:
            predict_lost(folder, fold, checkpoint, lost, options)
        result[fold] = folder
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
