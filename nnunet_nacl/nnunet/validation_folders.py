"""A trained model's held-out validation cases: where they lie, and how those are predicted of which nothing was kept.

They are predicted as nnU-Net's final validation does, also for stock models, and measured on the way. nnU-Net's
``validation/`` is not touched, but where it has lost single files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.calibrate.calibration_map import Inference
from nnunet_nacl.case.case import CaseFiles
from nnunet_nacl.case.document import FILE_NAME
from nnunet_nacl.case.results import EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import lies_inside, remove_leftovers, to_json_text, write_atomically
from nnunet_nacl.json_files import decode, read_dict
from nnunet_nacl.nnunet.held_out_prediction import PREDICTED_BY, Predicted, measure_predicted, unfinished
from nnunet_nacl.nnunet.locate import predicted_folder
from nnunet_nacl.nnunet.measured_export import MeasuredExport
from nnunet_nacl.nnunet.network import build_predictor, check_step_size
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.nnunet.preprocessed_case import preprocessed_cases, with_stage_before
from nnunet_nacl.nnunet.trained_model import FINAL, TrainedModel
from nnunet_nacl.runs.evaluate import ledger_folder
from nnunet_nacl.runs.ledger import Ledger, identify
from nnunet_nacl.runs.sample_files import SAMPLES_FOLDER, read_sample, sample_path


def check_held_out(folds: Sequence[str]) -> None:
    """UserError where fold all is among them."""
    if "all" in folds:
        raise UserError(
            "fold all was trained on every case, its validation cases too: nothing is held out. Give trained folds "
            "(-f 0 1 2 3 4), or cases of your own (-i IMAGES -gt LABELS -d ... -c ...)."
        )


def validation_folders(
    model: TrainedModel, network: Mapping[str, Any], *, num_processes: int, log: Callable[[str], None]
) -> dict[str, PredictionFolder]:
    """The validation cases of a model's folds; where neither probabilities nor samples were kept they are predicted.

    Where nnU-Net's ``validation/`` lacks those of some cases only, these alone are predicted, into the places of the
    lost files: probabilities, where others have them, and a sample. What is there stays.

    Args:
        model: The model. nnU-Net's ``validation/`` is that of checkpoint_final.pth; other checkpoints predict.
        network: Arguments of :func:`~nnunet_nacl.nnunet.network.build_predictor` beside the model.
        num_processes: Cases exported at the same time.
        log: Takes a line that says what is predicted.

    Raises:
        UserError: A fold was trained on every case, or was predicted otherwise than the others: a map is fitted to
            predictions of one kind.
    """
    check_held_out(chosen := model.folds)
    plan: dict[str, tuple[PredictionFolder | None, list[CaseFiles]]] = {}
    for fold in chosen:
        folder = _kept(model.folder, fold) if model.checkpoint == FINAL else None
        lost = _lacking(folder) if folder else []
        # where nnU-Net's validation/ lacks some cases only, these are less work than all again
        if folder and lost and (folder.folder.name != "validation" or len(lost) == len(folder.expected or ())):
            folder = None
        plan[fold] = folder, lost
    asked_for = inference_in(network)
    inference = {fold: inference_of(folder.folder) if folder else asked_for for fold, (folder, _) in plan.items()}
    if other := next((fold for fold in chosen if inference[fold] != inference[chosen[0]]), None):
        first, second = (
            ", ".join(f"{name} {value}" for name, value in inference[fold].items()) for fold in (chosen[0], other)
        )
        raise UserError(
            f"fold {chosen[0]} is predicted with {first} and fold {other} with {second}: a map is fitted to "
            "predictions of one kind. Give -step_size and --disable_tta so that they are the same, or remove "
            f"validation_{model.checkpoint.removesuffix('.pth')}/ of one of them."
        )
    if todo := [fold for fold, (folder, lost) in plan.items() if lost or not folder]:
        log(
            f"folds {', '.join(todo)}: not all validation cases have probabilities or samples of this version by "
            f"{model.checkpoint}. Those not predicted by an earlier run are predicted on {network['device']}; the bar "
            "shows the time left."
        )
    result = {}
    for fold, (folder, lost) in plan.items():
        options = {**network, **inference[fold]}
        if folder is None:
            folder = predict_validation(model, fold, options, num_processes=num_processes)
        elif lost:
            remove_leftovers(folder.folder)
            _predict(MeasuredExport(folder, replaces=False), model, fold, lost, options, num_processes)
        result[fold] = folder
    return result


def predict_validation(
    model: TrainedModel,
    fold: str,
    network: Mapping[str, Any],
    *,
    settings: EvaluationSettings = EvaluationSettings(),
    num_processes: int = 1,
) -> PredictionFolder:
    """Predict and measure the validation cases of a fold; what an earlier run has finished is not done again.

    A bar on stderr shows the progress.

    Args:
        model: The model.
        fold: One of its folds; ``all``: every case.
        network: Arguments of :func:`~nnunet_nacl.nnunet.network.build_predictor` beside the model.
        settings: What is measured.
        num_processes: Cases exported and measured at the same time, while the next is predicted; 1 starts no process.

    Returns:
        ``fold_X/validation_<checkpoint>``: segmentations, samples, and the measured cases, which an evaluation of the
        folder puts into its calibration.json; so it does with what went wrong with others.

    Raises:
        UserError: The split or the preprocessed cases are missing, or the folder is not one of these.
    """
    check_step_size(network["step_size"])
    path = model.folder / f"fold_{fold}" / model.checkpoint
    output = predicted_folder(path.parent, model.checkpoint)
    output.mkdir(exist_ok=True)
    folder = PredictionFolder.open(output).with_expected(fold)
    _prepare(output, path, folder.file_ending, inference_in(network))
    if not folder.expected:
        raise UserError(f"fold {fold} is in no splits_final.json of {folder.plans.get('dataset_name')}; see -f.")
    export = MeasuredExport(folder, settings)
    if todo := unfinished(export, map(folder.files, folder.expected)):
        _predict(export, model, fold, todo, network, num_processes)
    return folder


def _predict(
    export: MeasuredExport,
    model: TrainedModel,
    fold: str,
    todo: Sequence[CaseFiles],
    network: Mapping[str, Any],
    num_processes: int,
) -> None:
    """Predict preprocessed cases by one network; lost ones get probabilities, too, where others have them."""
    import torch

    predictor = build_predictor(model.folder, (fold,), model.checkpoint, **network)
    dataset = preprocessed_cases(model, [case.case for case in todo])

    def read(case: CaseFiles) -> tuple[np.ndarray, dict[str, Any]]:
        data, _, before, properties = dataset.load_case(case.case)
        data = data[:]
        if before is not None and model.previous_stage:
            data = with_stage_before(model, data, before[:])
        return np.array(data), properties

    def predict(case: CaseFiles, given: tuple[np.ndarray, dict[str, Any]]) -> Predicted:
        return predictor.predict_sliding_window_return_logits(torch.from_numpy(given[0])).cpu(), given[1], {}

    measure_predicted(
        export,
        todo,
        read,
        predict,
        (model.configuration_manager, model.plans_manager, model.opened.dataset_json),
        num_processes,
        title=f"predict fold {fold}",
        total=len(export.folder.expected or todo),
        save_probabilities=not export.replaces and any(export.folder.folder.glob("*.npz")),
    )


def _kept(model: Path, fold: str) -> PredictionFolder | None:
    """The validation of a fold; None where there is none, or an earlier network predicted it."""
    try:
        folder = find_fold_folders(model, [fold])[fold]
        if folder.folder == predicted_folder(model / f"fold_{fold}", FINAL):
            known, path = read_dict(folder.folder / PREDICTED_BY), model / f"fold_{fold}" / FINAL
            return folder if identify(path, known)["checksum"] == known.get("checksum") else None
        return folder
    except UserError:
        return None


def _lacking(folder: PredictionFolder) -> list[CaseFiles]:
    """Cases of a fold with neither probabilities nor a sample that this version can read."""

    def has_sample(files: CaseFiles) -> bool:
        try:
            read_sample(sample_path(files), folder.labels)
        except UserError:
            return False
        return files.segmentation is not None  # which a sample alone does not tell

    cases = map(folder.files, folder.expected or ())
    return [files for files in cases if not (files.probabilities.is_file() or has_sample(files))]


def inference_in(options: Mapping[str, Any]) -> Inference:
    """Of the options of networks those that decide about the numbers."""
    return {"step_size": options["step_size"], "mirroring": options["mirroring"]}


def inference_of(folder: Path) -> Inference:
    """How :func:`predict_validation` predicted a folder; as nnU-Net does where it did not."""
    path, known = folder / PREDICTED_BY, {"step_size": 0.5, "mirroring": True}
    return decode(Inference, known | (read_dict(path) if path.is_file() else {}), path, fix="predict again")


def _prepare(output: Path, checkpoint: Path, ending: str, inference: Inference) -> None:
    """What another checkpoint of this name, or other settings, predicted is removed; what is not ours is left alone."""
    remove_leftovers(output)
    marker = output / PREDICTED_BY
    known = read_dict(marker) if marker.is_file() else None
    images = [path for path in output.iterdir() if path.name.endswith(ending)]
    if known is None and images:
        raise UserError(f"{output} holds predictions of something else ({images[0].name}); move them away.")
    now = {"checkpoint": checkpoint.name, **identify(checkpoint, known), **inference}
    if known is not None and any(known.get(name) != now[name] for name in ("checksum", *inference)):
        samples = (path for path in (output / SAMPLES_FOLDER).glob("*.sample") if lies_inside(path, output))
        for path in [*images, output / FILE_NAME, *samples]:
            path.unlink(missing_ok=True)
        Ledger(ledger_folder(output / FILE_NAME)).clear()
    if known != now:
        write_atomically(marker, to_json_text(now))
