"""Expected and true Dice and volume of one held-out case, by its probabilities or by its sample.

The argmax and the decided segmentation of the calibrated probabilities are measured, as they would be delivered. Where
the probabilities are gone, or never were, both are estimated from the case's sample: every sum over voxels is a
weighted one then, the sizes in the truth excepted.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.decision import decide
from nnunet_nacl.calibration.learned_quality import DELIVERED
from nnunet_nacl.calibration.sampling import Sample
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.prediction_folder import CaseFiles, PredictionFolder
from nnunet_nacl.cases.sample_files import find_sample
from nnunet_nacl.documents.results import EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.expected_dice import count_expected
from nnunet_nacl.metrics.overlap import count_overlap

__all__ = ["measure_case", "measure_held_out", "measure_sampled"]


def measure_held_out(
    folder: PredictionFolder, files: CaseFiles, calibration: AffineMap, settings: EvaluationSettings
) -> dict[str, Any]:
    """By the probabilities if they are there, else by the sample; UserError if there is neither."""
    if files.probabilities.is_file():
        return measure_case(folder, files, calibration)
    if (sample := find_sample(files, folder.labels, settings)) is None:
        raise UserError(f"{files.probabilities} is gone, and there is no sample of the case.")
    return measure_sampled(folder, files, sample, calibration)


def measure_case(folder: PredictionFolder, files: CaseFiles, calibration: AffineMap) -> dict[str, Any]:
    """Expected and true Dice and volume of every structure of a case, for both ways of making its segmentation.

    Args:
        folder: Predictions with ground truth.
        files: The case's.
        calibration: Map that its probabilities are taken through.

    Returns:
        ``unit`` of the volumes, whether they are ``sampled``, and by delivered segmentation and structure expected
        Dice, true Dice (0 where the truth is empty, NaN where both are), expected volume and true volume. Ignored
        voxels are left out everywhere.

    Raises:
        UserError: A file cannot be read or does not fit.
    """
    data, labels = folder.load(files), folder.labels
    geometry = data.geometry
    valid = None if labels.ignore_label is None else data.truth != labels.ignore_label
    regions = labels.values if labels.regions else None
    order = folder.label_manager.regions_class_order if labels.regions else None
    probs = calibration(data.probabilities.whole())
    decision = decide(probs, regions=regions, region_labels=order)
    result: dict[str, Any] = {"unit": geometry.unit, "sampled": False}
    for delivered, segmentation in zip(DELIVERED, (decision.argmax, decision.segmentation)):
        sums = count_expected(probs, segmentation, regions=regions, valid=valid)
        rows = result[delivered] = {}
        for i, channel in enumerate(labels.foreground):
            truth = labels.mask(data.truth, channel)
            overlap = count_overlap(truth, labels.mask(segmentation, channel), valid)
            volumes = geometry.voxel_size * np.array([sums.expected[i], overlap.tp + overlap.fn])
            rows[labels.key(channel)] = [float(sums.dice[i]), overlap.dice, *volumes.tolist()]
    return result


def measure_sampled(
    folder: PredictionFolder, files: CaseFiles, sample: Sample, calibration: AffineMap
) -> dict[str, Any]:
    """What :func:`measure_case` returns, estimated from the case's sample and its ground truth.

    Ignored voxels, which no sample holds, take no part in the decision.

    Args:
        folder: Predictions with ground truth.
        files: The case's.
        sample: Of the case.
        calibration: Map that its probabilities are taken through.

    Raises:
        UserError: The ground truth cannot be read.
    """
    array, properties = folder.read_segmentation(files.truth)
    geometry, labels = Geometry.of(properties), folder.labels
    order = folder.label_manager.regions_class_order if labels.regions else None
    probs = calibration.to_probabilities(torch.from_numpy(sample.log_odds.astype(np.float64)))
    regions = labels.values if labels.regions else None
    weights, truth = sample.weights, sample.truth()
    decision = decide(probs, regions=regions, region_labels=order, weights=weights)
    result: dict[str, Any] = {"unit": geometry.unit, "sampled": True}
    both = (decision.argmax, decision.before), (decision.segmentation, decision.after)
    for delivered, (segmentation, sums) in zip(DELIVERED, both):
        rows = result[delivered] = {}
        for i, channel in enumerate(labels.foreground):
            n_true = int(np.count_nonzero(labels.mask(array, channel)))
            inside = truth[i] != 0 if labels.regions else truth == channel
            common = min(weights[inside & labels.mask(segmentation, channel)].sum(), n_true, sums.chosen[i])
            size = n_true + sums.chosen[i]
            volumes = geometry.voxel_size * np.array([sums.expected[i], n_true])
            dice = 2 * common / size if size else math.nan
            rows[labels.key(channel)] = [float(sums.dice[i]), float(dice), *volumes.tolist()]
    return result
