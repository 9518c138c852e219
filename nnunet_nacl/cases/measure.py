"""Measures cases one by one, or several at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.cases.case_data import KnownTruth, LabelledCase
from nnunet_nacl.cases.prediction_folder import CaseFiles, PredictionFolder
from nnunet_nacl.cases.quality_block import QUALITY, QualitySums, count_quality, quality_of
from nnunet_nacl.cases.worker_processes import guarded, work_through
from nnunet_nacl.documents.results import CHOSEN_MASKS, HAUSDORFF, CaseResult, EvaluationSettings, Structure
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.chosen import ChosenStats, count_chosen
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.metrics.overlap import count_overlap
from nnunet_nacl.metrics.surface import bounding_box, surface_distances

__all__ = ["evaluate_case", "measure_all", "measure_loaded"]

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
    return measure_loaded(folder, files, folder.load(files), settings)


@dataclass(frozen=True)
class _Sums:
    """What is counted of any number of voxels, and adds up."""

    stats: dict[str, BinStats]
    chosen: dict[str, ChosenStats]
    quality: QualitySums
    n_changed: int

    def __add__(self, other: _Sums) -> _Sums:
        stats = {mask: value + other.stats[mask] for mask, value in self.stats.items()}
        chosen = {mask: value + other.chosen[mask] for mask, value in self.chosen.items()}
        return _Sums(stats, chosen, self.quality + other.quality, self.n_changed + other.n_changed)


def measure_loaded(
    folder: PredictionFolder, files: CaseFiles, data: LabelledCase, settings: EvaluationSettings
) -> CaseResult:
    """Measure everything of a case in memory, in blocks where its probabilities come in blocks.

    Args:
        folder: Where it lies.
        files: Its files.
        data: Its content.
        settings: What is measured.

    Raises:
        UserError: The probabilities are not probabilities.
    """
    labels = folder.labels
    known = data.known_truth(labels.ignore_label, settings.dilation_mm, settings.boundary_mm)
    try:
        sums = reduce(add, (_count(folder, files, data, known, settings, *block) for block in data.blocks()))
    except ValueError as error:
        raise UserError(f"{files.probabilities}: {error}; predict this case again.") from None
    truth, valid = known.labels, known.valid
    structures = {
        labels.key(channel): _structure(
            labels.mask(truth, channel), labels.mask(data.segmentation, channel), valid, data.spacing_mm, settings
        )
        for channel in labels.foreground
    }
    n_true = {key: structure.overlap.tp + structure.overlap.fn for key, structure in structures.items()}
    return CaseResult(
        case=files.case,
        **files.places,
        structures=structures,
        stats=sums.stats,
        largest_label=int(truth.max(initial=0)),
        n_changed_voxels=sums.n_changed,
        chosen=sums.chosen,
        blocks={QUALITY: quality_of(sums.quality, labels, n_true, data.geometry)},
    )


def _count(folder, files, data, known: KnownTruth, settings, where: tuple[slice, ...], probs: np.ndarray) -> _Sums:
    labels, truth, segmentation = folder.labels, known.labels[where], data.segmentation[where]
    valid = None if known.valid is None else known.valid[where]
    target = np.stack([labels.mask(truth, c) for c in labels.foreground]) if labels.regions else truth
    options: dict[str, Any] = {"regions": labels.regions, "n_bins": settings.n_bins}
    near = {name: mask[where] for name, mask in known.near.items()}
    stats = count_masks(probs, target, extra_masks=near, valid=valid, **options)
    predicted = segmentation > 0 if valid is None else (segmentation > 0) & valid
    options["regions"] = labels.values if labels.regions else None
    chosen = {
        mask: count_chosen(probs, segmentation, truth, mask=counted, **options)
        for mask, counted in zip(CHOSEN_MASKS, (predicted, valid))
    }
    quality = count_quality(probs, segmentation, labels, valid, predicted)
    n_changed = 0
    if files.segmentation is not None:  # which may have been postprocessed since
        changed = folder.label_map(probs) != segmentation
        n_changed = int(np.count_nonzero(changed if valid is None else changed & valid))
    return _Sums(stats, chosen, quality, n_changed)


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
    box = bounding_box(truth | predicted)
    if box is not None:  # with a voxel around it, so that no axis of an image becomes one of length 1
        box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
        truth, predicted = truth[box], predicted[box]
    in_mm = surface_distances(truth, predicted, spacing_mm)
    in_voxels = in_mm if set(spacing_mm) == {1.0} else surface_distances(truth, predicted)
    # every definition, so that asking for another one later needs no second reading
    distances = {f"HD95_{directions}_mm": in_mm.hausdorff(directions=directions) for directions in HAUSDORFF}
    distances["HD95_voxels"] = in_voxels.hausdorff()
    return Structure(overlap, in_mm.hausdorff(), in_mm.assd, None, distances).under(settings)


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
                data = guarded(files.probabilities, partial(measure_loaded, folder, files, data, settings))
            yield (files, extra), data


def _measure_one(folder: PredictionFolder, settings: EvaluationSettings, item: Todo) -> CaseResult:
    return evaluate_case(folder, item[0], settings)


def _probabilities(item: Todo) -> Path:
    return item[0].probabilities
