"""Predicts the validation cases of a trained fold as nnU-Net's final validation does, and measures them on the way.

For models that are trained already, stock ones too, and for their calibrated checkpoints: nnU-Net's ``validation/`` is
not touched, and no probabilities are saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.documents.document import FILE_NAME
from nnunet_nacl.documents.results import EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import lies_inside, remove_leftovers, temporary_folder, to_json_text, write_atomically
from nnunet_nacl.io.checkpoint_files import read_checkpoint
from nnunet_nacl.io.locate import cases_of_split, predicted_folder
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.json_files import decode, first_line, read_dict
from nnunet_nacl.prediction.network import build_predictor, check_step_size
from nnunet_nacl.prediction.preprocessed_case import preprocessed_cases
from nnunet_nacl.runs.evaluate import ledger_folder, open_ledger, restore
from nnunet_nacl.runs.ledger import SIGNATURE, Ledger, identify
from nnunet_nacl.runs.measure import sign
from nnunet_nacl.runs.measured_export import MeasuredExport
from nnunet_nacl.runs.sample_files import SAMPLES_FOLDER, find_sample
from nnunet_nacl.runs.worker_processes import stream_through_workers

INFERENCE = ("step_size", "mirroring")
"""Arguments of the networks that decide about the numbers."""

_MADE_BY = "predicted_by.json"
_DIED = "the process that exported it died, for lack of memory perhaps; run again with a smaller -np."

Predicted = tuple[str, Any, Any]
"""Case, logits (or why there are none, in words) and nnU-Net's properties."""


def predict_validation(
    model: Path,
    fold: str,
    checkpoint: str,
    network: Mapping[str, Any],
    *,
    settings: EvaluationSettings = EvaluationSettings(),
    num_processes: int = 1,
) -> PredictionFolder:
    """Predict and measure the validation cases of a fold; what an earlier run has finished is not done again.

    A bar on stderr shows the progress.

    Args:
        model: The model folder.
        fold: Its fold; ``all``: every case.
        checkpoint: File in the fold's folder.
        network: Arguments of :func:`~nnunet_nacl.prediction.network.build_predictor` beside the model.
        settings: What is measured.
        num_processes: Cases exported and measured at the same time, while the next is predicted; 1 starts no process.

    Returns:
        ``fold_X/validation_<checkpoint>``: segmentations, samples, and the measured cases, which an evaluation of the
        folder puts into its calibration.json; so it does with what went wrong with others.

    Raises:
        UserError: The checkpoint, the split or the preprocessed cases are missing, or the folder is not one of these.
    """
    from tqdm import tqdm

    check_step_size(network["step_size"])
    path = model / f"fold_{fold}" / checkpoint
    read_checkpoint(path, mmap=True)  # before a folder is made for its predictions
    output = predicted_folder(path.parent, checkpoint)
    output.mkdir(exist_ok=True)
    folder = PredictionFolder.open(output)
    _prepare(output, path, folder.file_ending, {name: network[name] for name in INFERENCE})
    cases = cases_of_split(folder.plans.get("dataset_name"), fold)
    folder = folder.expecting_all_references() if fold == "all" else replace(folder, expected=cases)
    if not folder.expected:
        raise UserError(f"fold {fold} is in no splits_final.json of {folder.plans.get('dataset_name')}; see -f.")
    ledger, export = open_ledger(output / FILE_NAME), MeasuredExport(folder, settings)
    todo = [case for case in folder.expected if not is_finished(folder, ledger, case, settings)]
    if todo:
        predicted, managers = _predict(model, fold, checkpoint, todo, network)
        total, workers = len(folder.expected), num_processes if num_processes > 1 else 0
        exported = stream_through_workers(partial(_export, export, managers), predicted, workers, ahead=1)
        for (case, *_), problem in tqdm(
            exported, f"predict fold {fold}", total, initial=total - len(todo), unit="case"
        ):
            if problem != "":
                export.tell(case, _DIED if problem is None else problem)
    return folder


def predict_lost(
    folder: PredictionFolder,
    fold: str,
    checkpoint: str,
    cases: Sequence[str],
    network: Mapping[str, Any],
) -> None:
    """Predict single cases of nnU-Net's validation again, whose files were lost, into the places of these files.

    Where others have probabilities these cases get them too, as nnU-Net saves them; else a sample. What is there stays.

    Args:
        folder: ``validation/`` of the fold.
        fold: Its name.
        checkpoint: File in the fold's folder.
        cases: Of its validation.
        network: Arguments of :func:`~nnunet_nacl.prediction.network.build_predictor` beside the model.

    Raises:
        UserError: The checkpoint or the preprocessed cases are missing or cannot be used.
    """
    from tqdm import tqdm

    place, export = folder.folder, MeasuredExport(folder)
    keep = any(place.glob("*.npz"))
    predicted, managers = _predict(place.parent.parent, fold, checkpoint, cases, network)
    remove_leftovers(place)
    for item in tqdm(predicted, f"predict fold {fold}", len(cases)):
        case = item[0]
        with temporary_folder(place) as work:
            target = work if folder.files(case).segmentation else place
            if problem := _export(export, managers, item, target, keep):
                export.tell(case, problem)
            for suffix in (".pkl", ".npz"):
                if (made := work / f"{case}{suffix}").is_file():
                    made.replace(place / made.name)


@dataclass(frozen=True)
class _MadeBy:
    checkpoint: str = ""
    checksum: str = ""
    path: str = ""
    size: int = 0
    mtime_ns: int = 0
    step_size: float = 0.5
    mirroring: bool = True


def _read_made_by(folder: Path) -> _MadeBy:
    return decode(_MadeBy, read_dict(folder / _MADE_BY), folder / _MADE_BY, fix="predict again")


def inference_of(folder: Path) -> dict[str, Any]:
    """``INFERENCE`` of what :func:`predict_validation` left in a folder; else nnU-Net's own."""
    made_by = _read_made_by(folder) if (folder / _MADE_BY).is_file() else _MadeBy()
    return {name: getattr(made_by, name) for name in INFERENCE}


def check_checkpoint(folder: Path) -> None:
    """UserError if what :func:`predict_validation` left in a folder was made by another checkpoint than it is now."""
    made_by = _read_made_by(folder)
    path = folder.parent / made_by.checkpoint
    if not lies_inside(path, folder.parent) or identify(path, vars(made_by))["checksum"] != made_by.checksum:
        raise UserError(
            f"{folder} was predicted by another {path.name}; run `nnunet_nacl evaluate ... --predict -chk {path.name}` "
            "again."
        )


def _prepare(output: Path, checkpoint: Path, ending: str, inference: dict[str, Any]) -> None:
    """What another checkpoint of this name, or other settings, predicted is removed; what is not ours is left alone."""
    remove_leftovers(output)
    marker = output / _MADE_BY
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


def is_finished(folder: PredictionFolder, ledger: Ledger, case: str, settings: EvaluationSettings) -> bool:
    """Whether a case was measured: result and sample are of the segmentation that is there, to the last byte."""
    labels, files = folder.labels, folder.files(case)
    try:
        now = sign(labels, settings, files, ledger.entry(case).get(SIGNATURE))
        entry = ledger.finished(case, now)
        known = entry and restore(labels, settings, files, dict(entry))
        return known is not None and find_sample(files, labels, settings) is not None
    except (UserError, OSError):
        return False


def _predict(
    model: Path, fold: str, checkpoint: str, cases: Sequence[str], network: Mapping[str, Any]
) -> tuple[Iterator[Predicted], tuple[Any, Any, Any]]:
    """Each case predicted, with the problem in place of logits where it cannot be; and what nnU-Net exports it by."""
    predictor = build_predictor(model, (fold,), checkpoint, **network)
    dataset = preprocessed_cases(model, predictor, cases)
    managers = predictor.configuration_manager, predictor.plans_manager, predictor.dataset_json
    return (_predict_one(predictor, dataset, case) for case in cases), managers


def _predict_one(predictor: Any, dataset: Any, case: str) -> Predicted:
    import torch
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

    try:
        data, _, before, properties = dataset.load_case(case)
        data = data[:]
        if before is not None and predictor.configuration_manager.previous_stage_name:
            labels = predictor.label_manager.foreground_labels
            data = np.vstack((data, convert_labelmap_to_one_hot(before[:], labels, output_dtype=data.dtype)))
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.array(data))).cpu()
        return case, logits, properties
    except Exception as error:
        return case, f"cannot be predicted: {type(error).__name__}: {first_line(error)}", None


def _export(
    export: MeasuredExport,
    managers: tuple[Any, Any, Any],
    item: Predicted,
    output: Path | None = None,
    keep: bool = False,
) -> str:
    """What is wrong with the export or the measurement of a case; empty where nothing is."""
    case, logits, properties = item
    if isinstance(logits, str):
        return logits
    try:
        return export.export(logits, properties, *managers, str((output or export.folder.folder) / case), keep)
    except Exception as error:
        return f"cannot be written: {type(error).__name__}: {first_line(error)}"
