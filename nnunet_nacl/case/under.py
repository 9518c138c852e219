"""A record as it would be under a map, from its sample: no probabilities are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from nnunet_nacl.case.record import CaseRecord
from nnunet_nacl.case.sample import MASK_BITS, Sample
from nnunet_nacl.numbers.binning import DEFAULT_N_BINS, BinStats
from nnunet_nacl.numbers.case_voxels import unpack
from nnunet_nacl.numbers.counting import count_masks
from nnunet_nacl.numbers.expected_dice import ExpectedOverlap
from nnunet_nacl.numbers.log_odds_map import LogOddsMap, is_label, probabilities
from nnunet_nacl.numbers.voxel_uncertainty import mean_uncertainty


def under(record: CaseRecord, calibration: LogOddsMap) -> CaseRecord:
    """What was measured of a case as it would be under a map, which changes no label.

    Sizes and sums of the network's own probabilities are those of the case; what the map adds to such a sum is
    estimated from the sample (difference estimator; Cochran, Sampling Techniques, 1977, chapter 7). Sums for
    calibration are estimated from the sample alone.

    Args:
        record: Of the case as the network gave it.
        calibration: The map.

    Raises:
        ValueError: The record has no sample.
    """
    if (sample := record.sample) is None:
        raise ValueError(f"{record.case}: its record has no sample.")
    voxels, table, size = sample.voxels(), record.structures, record.scan["voxel_volume"]
    odds, weights = voxels.log_odds.double(), voxels.all_weights
    mapped = calibration.to_probabilities(odds, voxels.label)
    change = (mapped - probabilities(odds, sample.regions))[0 if sample.regions else 1 :]
    inside = is_label(voxels.label, sample.num_structures)
    expected, volume, dice = (table[name].to_numpy() for name in ("predicted_volume", "volume", "predicted_dice"))
    expected, n_voxels = expected / size, volume / size
    common = np.where(n_voxels > 0, dice * (expected + n_voxels) / 2, 0.0) + (change * inside @ weights).numpy()
    sums = ExpectedOverlap(np.maximum(expected + (change @ weights).numpy(), 0), n_voxels, np.clip(common, 0, n_voxels))
    labels = voxels.label.numpy()
    is_predicted = (labels > 0).any(0) if sample.regions else labels > 0
    means = mean_uncertainty(
        mapped.numpy()[:, is_predicted],
        labels[..., is_predicted],
        regions=sample.regions,
        weights=sample.weights[is_predicted],
    )
    n_bins = next(iter(record.bins.values())).n_bins if record.bins else DEFAULT_N_BINS
    return replace(
        record,
        structures=table.assign(predicted_dice=sums.dice, predicted_volume=sums.expected * size),
        scan=record.scan | means,
        bins=count_sample(sample, mapped, n_bins),
    )


def count_sample(sample: Sample, inside: Tensor | None = None, n_bins: int = DEFAULT_N_BINS) -> dict[str, BinStats]:
    """Sums of all voxels of a case for every mask, as :func:`~nnunet_nacl.numbers.counting.count_masks` gives them.

    The confidence is that of the label that the network chose, which no map changes. Voxels outside the network's crop
    are background for certain.

    Args:
        sample: Of the case.
        inside: (C, n) probabilities of the voxels drawn; None: the network's.
        n_bins: Confidence bins.

    Returns:
        Unbiased over draws of the sample, by mask.
    """
    voxels, regions = sample.voxels(), sample.regions
    probs = probabilities(voxels.log_odds.double(), regions) if inside is None else inside
    n_outside = len(sample.outside)
    outside = np.zeros((len(probs), n_outside))
    outside[: 0 if regions else 1] = 1
    codes = sample.outside[:, 0].astype(sample.target.dtype)
    truth, label = voxels.target.numpy(), voxels.label.numpy()
    if regions:
        truth = np.concatenate([truth, unpack(codes, len(truth))], 1).astype(bool)
        label = np.concatenate([label, np.zeros((len(label), n_outside), label.dtype)], 1).astype(bool)
    else:
        truth, label = np.concatenate([truth, codes]), np.concatenate([label, np.zeros(n_outside, label.dtype)])
    bits = np.concatenate([sample.masks, sample.outside[:, 1].astype(np.uint8)])
    return count_masks(
        np.concatenate([probs.numpy(), outside], 1),
        truth,
        segmentation=label,
        extra_masks={name: (bits >> bit & 1).astype(bool) for bit, name in enumerate(MASK_BITS)},
        regions=regions,
        n_bins=n_bins,
        weights=np.concatenate([sample.weights, sample.outside[:, 2]]),
    )
