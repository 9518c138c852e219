"""Measures a case: segmentation metrics, sums for calibration, and expected quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_nacl.case.case import Case, CaseFiles
from nnunet_nacl.case.case_quality import QualitySums
from nnunet_nacl.case.findings import label_components
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.case.results import CaseResult, Distances, EvaluationSettings, Structure
from nnunet_nacl.errors import UserError
from nnunet_nacl.numbers.binning import BinStats
from nnunet_nacl.numbers.counting import count_masks
from nnunet_nacl.numbers.overlap import count_overlap
from nnunet_nacl.numbers.surface import bounding_box, surface_distances
from nnunet_nacl.runs.ledger import sign as sign_files

_COMPUTATION = 4  # raise it when a number changes for the same files


def measure(files: CaseFiles, case: Case, settings: EvaluationSettings) -> CaseResult:
    """Measure everything of a case in memory, in blocks where its probabilities come in blocks.

    Args:
        files: Its files.
        case: With truth and probabilities.
        settings: What is measured.

    Raises:
        UserError: The probabilities are not probabilities.
    """
    labels, truth = case.labels, case.truth_and_masks(settings.dilation_mm, settings.boundary_mm)
    masks = truth.around | {"near": case.near(case.segmentation != 0, settings.dilation_mm)}
    saved = files.segmentation is not None and files.derived is None  # and may have been postprocessed since
    quality = QualitySums(labels)

    stats, n_changed = dict[str, BinStats](), 0
    try:
        for where, probs in case.probabilities.blocks():
            segmentation, valid = case.segmentation[where], None if truth.valid is None else truth.valid[where]
            target, chosen = labels.channels_of(truth.labels[where]), labels.channels_of(segmentation)
            options: dict[str, Any] = {"regions": labels.regions, "n_bins": settings.n_bins, "valid": valid}
            inside = {name: mask[where] for name, mask in masks.items()}
            block = count_masks(probs, target, segmentation=chosen, extra_masks=inside, **options)
            stats = {mask: stats[mask] + sums if stats else sums for mask, sums in block.items()}
            quality.add(probs, segmentation, valid)
            if saved:
                changed = labels.label_map(probs) != segmentation
                n_changed += int(np.count_nonzero(changed if valid is None else changed & valid))
    except ValueError as error:
        raise UserError(f"{files.probabilities}: {error}; predict this case again.") from None
    metrics = {
        labels.key(channel): _structure(
            labels.mask(truth.labels, channel),
            labels.mask(case.segmentation, channel),
            truth.valid,
            case.spacing_mm,
        )
        for channel in labels.foreground
    }
    n_true = {key: structure.n_ref for key, structure in metrics.items()}
    pieces = {
        labels.key(channel): int(label_components(labels.mask(truth.labels, channel))[1].max(initial=0))
        for channel in labels.foreground
    }
    result = CaseResult(
        case=files.case,
        **files.places,
        metrics=metrics,
        bins={},
        largest_label=int(truth.labels.max(initial=0)),
        n_changed_voxels=n_changed,
        quality=quality.of_case(n_true, pieces, case.geometry),
    )
    return result.with_bins(stats)


def sign(labels: Labels, settings: EvaluationSettings, files: CaseFiles, earlier: Any = None) -> dict[str, Any]:
    """What the result of a case depends on, see :func:`nnunet_nacl.runs.ledger.sign`."""
    depends = {
        "computation": _COMPUTATION,
        "labels": [*labels.listed, labels.ignore_label],
        "settings": vars(settings),
    }
    read = {"probabilities": files.probabilities, "reference": files.reference, "segmentation": files.segmentation}
    made = sign_files(read, depends, earlier if isinstance(earlier, Mapping) else None)
    return made if files.derived is None else made | {"derived": files.derived}


def _structure(
    truth: np.ndarray,
    predicted: np.ndarray,
    valid: np.ndarray | None,
    spacing_mm: Sequence[float],
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
    distances: Distances = {"HD95_pooled_mm": in_mm.hausdorff(), "HD95_voxels": in_voxels.hausdorff()}
    return Structure(overlap.tp, overlap.fp, overlap.fn, overlap.tn, in_mm.assd, distances, {})
