"""Calibration sums of one case from its sample, under a map: each voxel counts for as many as it stands for."""

from __future__ import annotations

import numpy as np

from nnunet_nacl.calibration.calibration_map import CalibrationMap, probabilities
from nnunet_nacl.calibration.case_voxels import MASK_BITS, unpack
from nnunet_nacl.calibration.sampling import Sample
from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, BinStats
from nnunet_nacl.metrics.counting import count_masks

_FURTHER = ("dilated", "boundary")  # masks that do not follow from truth and labels


def count_sample(
    sample: Sample, calibration: CalibrationMap | None = None, n_bins: int = DEFAULT_N_BINS
) -> dict[str, BinStats]:
    """Sums of all voxels of a case for every mask, as :func:`~nnunet_nacl.metrics.counting.count_masks` gives them.

    The confidence is that of the label that the network chose, which no map changes. Voxels outside the network's crop
    are background for certain.

    Args:
        sample: Of the case.
        calibration: Map of its probabilities; None leaves them.
        n_bins: Confidence bins.

    Returns:
        Unbiased over draws of the sample, by mask.
    """
    voxels = sample.voxels()
    odds = voxels.log_odds.double()
    inside = calibration.to_probabilities(odds, voxels.label) if calibration else probabilities(odds, sample.regions)
    n_outside = len(sample.outside)
    outside = np.zeros((len(inside), n_outside))
    outside[: 0 if sample.regions else 1] = 1
    there = sample.outside[:, 0].astype(sample.target.dtype)
    truth, label = voxels.target.numpy(), voxels.label.numpy()
    if sample.regions:
        truth = np.concatenate([truth, unpack(there, len(truth))], 1).astype(bool)
        label = np.concatenate([label, np.zeros((len(label), n_outside), label.dtype)], 1).astype(bool)
    else:
        truth, label = np.concatenate([truth, there]), np.concatenate([label, np.zeros(n_outside, label.dtype)])
    bits = np.concatenate([sample.masks, sample.outside[:, 1].astype(np.uint8)])
    return count_masks(
        np.concatenate([inside.numpy(), outside], 1),
        truth,
        segmentation=label,
        extra_masks={name: (bits >> MASK_BITS.index(name) & 1).astype(bool) for name in _FURTHER},
        regions=sample.regions,
        n_bins=n_bins,
        check_values=False,
        weights=np.concatenate([sample.weights, sample.outside[:, 2]]),
    )
