"""Evaluates cases and folders."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.cases import CaseFiles, PredictionFolder
from nnunet_nacl.evaluation.results import CaseResult, Evaluation, Settings, Structure
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.metrics.masks import boundary_mask, dilated_mask
from nnunet_nacl.metrics.overlap import count_overlap
from nnunet_nacl.metrics.surface import surface_distances

__all__ = ["evaluate_case", "evaluate_folder"]


def evaluate_case(folder: PredictionFolder, files: CaseFiles, settings: Settings = Settings()) -> CaseResult:
    """Read one case and measure everything.

    Raises:
        UserError: A file cannot be read or does not fit; the message names it.
    """
    data = folder.load(files)
    labels = folder.labels
    truth, valid = data.truth, None
    if labels.ignore_label is not None:
        valid = truth != labels.ignore_label
        if valid.all():
            valid = None
        else:
            truth = np.where(valid, truth, 0)
    extra = {
        "dilated": dilated_mask(truth, settings.dilation_mm, data.spacing_mm, valid=valid),
        "boundary": boundary_mask(truth, settings.boundary_mm, data.spacing_mm, valid=valid),
    }
    target = np.stack([labels.mask(truth, c) for c in labels.foreground]) if labels.regions else truth
    try:
        stats = count_masks(
            data.probs, target, extra_masks=extra, valid=valid, regions=labels.regions, n_bins=settings.n_bins
        )
    except ValueError as error:
        raise UserError(f"{files.probabilities}: {error}; predict this case again.") from None
    structures = {
        labels.key(channel): _structure(
            labels.mask(truth, channel), labels.mask(data.segmentation, channel), valid, data.spacing_mm, settings
        )
        for channel in labels.foreground
    }
    return CaseResult(
        case=files.case,
        probabilities_file=str(files.probabilities),
        reference_file=str(files.reference),
        prediction_file=str(files.segmentation or files.probabilities),
        structures=structures,
        stats=stats,
        largest_label=int(truth.max(initial=0)),
        n_changed_voxels=0,
    )


def _structure(
    truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray | None, spacing_mm: Sequence[float], settings: Settings
) -> Structure:
    overlap = count_overlap(truth, predicted, valid)
    if valid is not None:
        truth, predicted = truth & valid, predicted & valid
    distances = surface_distances(truth, predicted, spacing_mm)
    in_voxels = None
    if settings.paper:
        in_voxels = surface_distances(truth, predicted).hausdorff(directions=settings.hausdorff)
    return Structure(overlap, distances.hausdorff(directions=settings.hausdorff), distances.assd, in_voxels)


def evaluate_folder(
    folder: PredictionFolder | str | os.PathLike,
    reference_folder: str | os.PathLike | None = None,
    *,
    settings: Settings = Settings(),
    chill: bool = True,
) -> Evaluation:
    """Measure every case of a folder of predictions.

    Args:
        folder: A fold's ``validation`` folder, or the output folder of a prediction.
        reference_folder: Ground truth; None finds nnU-Net's own.
        settings: What is measured.
        chill: Do not report expected cases without prediction.

    Returns:
        The results, and the problems of the cases that could not be evaluated.

    Raises:
        UserError: The folder as a whole cannot be used, or not a single case could be evaluated.
    """
    if not isinstance(folder, PredictionFolder):
        folder = PredictionFolder.open(folder, reference_folder)
    found, problems = folder.cases(chill=chill)
    results = []
    for files in found:
        try:
            results.append(evaluate_case(folder, files, settings))
        except UserError as error:
            problems[files.case] = str(error)
    if not results:
        raise UserError(f"{folder.folder}: no case could be evaluated. " + " ".join(problems.values()))
    labels = folder.labels
    names = {labels.key(c): labels.names[c] for c in labels.foreground}
    channels = {labels.key(c): c for c in labels.foreground}
    return Evaluation(names, channels, labels.regions, settings, results, dict(sorted(problems.items())))
