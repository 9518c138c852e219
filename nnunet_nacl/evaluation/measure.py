"""Measures cases one by one, or several at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.prediction_folder import CaseData, CaseFiles, PredictionFolder
from nnunet_nacl.evaluation.quality_block import QUALITY, measure_quality
from nnunet_nacl.evaluation.results import CHOSEN_MASKS, HAUSDORFF, CaseResult, EvaluationSettings, Structure
from nnunet_nacl.metrics.chosen import count_chosen
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.metrics.masks import boundary_mask, dilated_mask
from nnunet_nacl.metrics.overlap import count_overlap
from nnunet_nacl.metrics.surface import surface_distances
from nnunet_nacl.worker_processes import guarded, work_through

__all__ = ["evaluate_case", "measure_all"]

Outcome = CaseResult | str
Todo = tuple[CaseFiles, Any]


def evaluate_case(
    folder: PredictionFolder, files: CaseFiles, settings: EvaluationSettings = EvaluationSettings()
) -> CaseResult:
    """Read one case and measure everything.

    Args:
        folder: Where it lies.
        files: Its files.
        settings: What is measured.

    Raises:
        UserError: A file cannot be read or does not fit; the message names it.
    """
    return _measure(folder, files, folder.load(files), settings)


def _measure(folder: PredictionFolder, files: CaseFiles, data: CaseData, settings: EvaluationSettings) -> CaseResult:
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
    predicted = data.segmentation > 0 if valid is None else (data.segmentation > 0) & valid
    values = labels.values if labels.regions else None
    chosen = {
        mask: count_chosen(data.probs, data.segmentation, truth, mask=where, regions=values, n_bins=settings.n_bins)
        for mask, where in zip(CHOSEN_MASKS, (predicted, valid))
    }
    return CaseResult(
        case=files.case,
        **files.places,
        structures=structures,
        stats=stats,
        largest_label=int(truth.max(initial=0)),
        n_changed_voxels=_count_changed(folder, files, data, valid),
        chosen=chosen,
        blocks={QUALITY: measure_quality(data, labels, valid, predicted)},
    )


def _structure(
    truth: np.ndarray,
    predicted: np.ndarray,
    valid: np.ndarray | None,
    spacing_mm: Sequence[float],
    settings: EvaluationSettings,
) -> Structure:
    overlap = count_overlap(truth, predicted, valid)
    if valid is not None:
        truth, predicted = truth & valid, predicted & valid
    in_mm = surface_distances(truth, predicted, spacing_mm)
    in_voxels = in_mm if set(spacing_mm) == {1.0} else surface_distances(truth, predicted)
    # every definition, so that asking for another one later needs no second reading
    distances = {f"HD95_{directions}_mm": in_mm.hausdorff(directions=directions) for directions in HAUSDORFF}
    distances["HD95_voxels"] = in_voxels.hausdorff()
    return Structure(overlap, in_mm.hausdorff(), in_mm.assd, None, distances).under(settings)


def _count_changed(folder: PredictionFolder, files: CaseFiles, data: CaseData, valid: np.ndarray | None) -> int:
    """Voxels where the saved segmentation is not what the probabilities say, as after postprocessing."""
    if files.segmentation is None:
        return 0
    changed = folder.label_map(data.probs) != data.segmentation
    return int(np.count_nonzero(changed if valid is None else changed & valid))


def measure_all(
    folder: PredictionFolder,
    todo: Sequence[Todo],
    settings: EvaluationSettings,
    num_processes: int,
    progress: bool | str,
    total: int,
) -> Iterator[tuple[Todo, Outcome]]:
    """Measure cases as they come, each with its result or a line that says what is wrong with it.

    Args:
        folder: Where they lie.
        todo: Files of each case, with anything that shall come back with the result.
        settings: What is measured.
        num_processes: How many at a time; 1 measures here, and reads the next case meanwhile.
        progress: Show a progress bar; a text is its title.
        total: Cases of the bar; those not in ``todo`` count as done.
    """
    here = _measure_here(folder, todo, settings) if min(num_processes, len(todo)) <= 1 else None
    title = progress if isinstance(progress, str) else "evaluate"
    measure = partial(_measure_one, folder, settings)
    yield from work_through(measure, todo, _probabilities, num_processes, title, total, bool(progress), here=here)


def _measure_here(folder, todo, settings) -> Iterator[tuple[Todo, Outcome]]:
    with ThreadPoolExecutor(1) as reader:
        following: Future | None = None
        for i, (files, extra) in enumerate(todo):
            loading = following or reader.submit(folder.load, files)
            data = guarded(files.probabilities, loading.result)
            # one case ahead, not more: it bounds the memory
            following = reader.submit(folder.load, todo[i + 1][0]) if i + 1 < len(todo) else None
            if not isinstance(data, str):
                data = guarded(files.probabilities, partial(_measure, folder, files, data, settings))
            yield (files, extra), data


def _measure_one(folder: PredictionFolder, settings: EvaluationSettings, item: Todo) -> CaseResult:
    return evaluate_case(folder, item[0], settings)


def _probabilities(item: Todo) -> Path:
    return item[0].probabilities
