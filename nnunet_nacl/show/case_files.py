"""What the gallery shows of one case, read from nnU-Net's folders; whatever is missing becomes a sentence."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.kept_slices import KeptSlices
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.cases.sample_files import find_sample, slices_in
from nnunet_nacl.comparison.treated_folder import treated_folder
from nnunet_nacl.documents.document import FILE_NAME, read_document
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.metrics.voxel_uncertainty import confidence


def open_folder(dataset: Mapping[str, Any], name: str, fold: str) -> PredictionFolder:
    """Where a method's predictions of a fold's cases lie; a method without folds has them in one place.

    Args:
        dataset: Of comparison.json.
        name: Of the method there.
        fold: Of the cases.

    Raises:
        UserError: They are not there.
    """
    places = dataset["predictions"][name]
    place = places.get(fold) or places[""]
    folder = Path(os.environ.get("nnUNet_results", "")) / place["folder"]  # it may be absolute
    if not folder.is_dir():
        moved = "set nnUNet_results to where the models are now, or run `nnunet_nacl compare` again"
        raise UserError(f"{folder}: no such folder; {moved}.")
    others = {key: place.get(key) for key in ("dataset_json", "plans")}
    opened = PredictionFolder.open(folder, place.get("references"), **others)
    return treated_folder(opened, place["treatment"].split("+") if "treatment" in place else ())[0]


def read_truth(folder: PredictionFolder, case: str) -> Case:
    """A case with its ground truth alone, which stands for the segmentation too; UserError if it cannot be read."""
    truth, properties = folder.read_labels(folder.files(case).truth, is_truth=True)
    return Case(case, folder.labels, Geometry.of(properties), truth, truth=truth, properties=properties)


def read_prediction(folder: PredictionFolder, case: str, shape: Sequence[int]) -> np.ndarray:
    """Predicted label map: the file, or what the probabilities say where there is none.

    Raises:
        UserError: Neither can be read, they do not fit the ground truth, or the shape is another one.
    """
    files = folder.files(case)
    derived = files.segmentation is None or folder.treatment is not None
    found = folder.load(files, probabilities=derived).segmentation
    if found.shape != tuple(shape):
        raise UserError(f"{files.segmentation}: shape {found.shape}, the ground truth has {tuple(shape)}.")
    return found


def kept_slices(folder: PredictionFolder, case: str, axis: int) -> list[int] | None:
    """Numbers of the slices whose confidence is known; None where nothing limits the choice."""
    kept = _kept(folder, case, axis)
    return kept[0].index.tolist() if kept else None


def read_confidence(
    folder: PredictionFolder, case: str, axis: int, index: int, n_bins: int
) -> tuple[np.ndarray, BinStats]:
    """Confidence in one slice of a case, as stored, and the calibration of its foreground; the volume is not kept.

    Where the probabilities are gone, or never were, what was kept of the case when it was measured.

    Raises:
        UserError: The file is missing and the slice was not kept, or it is broken or does not fit the ground truth.
    """
    kept = _kept(folder, case, axis)
    if kept and (plane := kept[0].confidence(index)) is not None:
        return plane, kept[1].stats["foreground"]
    data, labels = folder.load(folder.files(case)), folder.labels
    valid = None if labels.ignore_label is None else data.truth != labels.ignore_label
    truth = data.truth if valid is None else np.where(valid, data.truth, 0)
    target = np.stack([labels.mask(truth, c) for c in labels.foreground]) if labels.regions else truth
    probs = data.probabilities.whole()
    try:
        stats = count_masks(probs, target, valid=valid, regions=labels.regions, n_bins=n_bins)
    except ValueError as error:
        raise UserError(f"{folder.files(case).probabilities}: {error}; predict this case again.") from None
    plane = np.ascontiguousarray(np.take(probs, index, axis=axis + 1))
    return confidence(plane, regions=labels.regions, check_values=False), stats["foreground"]


def _kept(folder: PredictionFolder, case: str, axis: int) -> tuple[KeptSlices, CaseResult] | None:
    """The slices that were kept of a case whose probabilities are gone, and its entry in the document beside them."""
    files = folder.files(case)
    if files.probabilities.is_file() or folder.treatment is not None:
        return None
    try:
        document = read_document(folder.folder / FILE_NAME)
        result = next((one for one in document.cases if one.case == case), None)
        sample = find_sample(files, folder.labels, document.settings)
    except (UserError, OSError):
        return None
    kept = slices_in(sample) if sample else None
    return (kept, result) if kept and result and kept.axis == axis and len(kept.index) else None


def channel_name(folder: PredictionFolder, channel: int) -> str:
    """What dataset.json calls a channel."""
    names = folder.dataset_json.get("channel_names", folder.dataset_json.get("modality"))
    return str(names.get(str(channel), f"channel {channel}")) if isinstance(names, dict) else f"channel {channel}"
