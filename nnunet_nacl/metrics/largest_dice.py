"""The largest expected Dice that the probabilities of a structure allow, from counts by bins of
log-odds."""

from __future__ import annotations

import numpy as np
import torch

from nnunet_nacl.metrics.inputs import split_range

_LOWEST = 1e-3  # probability that is counted by bin
_BINS = 160
_BINS_PER_LOG_ODDS = _BINS / (2 * float(np.log1p(-_LOWEST) - np.log(_LOWEST)))
_BLOCK_PROBABILITIES = 1 << 18  # that are worked on together: they stay in the cache


def count_probabilities(probs: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Counts the voxels of structures by their probability; those of two blocks can be added.

    Bins are of equal width in the log-odds from .001 to .999; what is above is in the last one. Of
    what is below, the first has the sum alone.

    Args:
        probs: (S, *block) probabilities of structures.
        valid: (*block) booleans; voxels where it is False count nowhere.

    Returns:
        (2, S, 1 + B) voxels by bin, and the sums of their probabilities.
    """
    flat = probs.reshape(len(probs), -1)
    flat_valid = None if valid is None else valid.ravel()
    voxels = np.zeros((len(flat), 1 + _BINS))
    sums = np.zeros((len(flat), 1 + _BINS))
    for structure, row in enumerate(flat):
        total = 0.0
        for part in split_range(len(row), _BLOCK_PROBABILITIES):
            block = row[part]
            if flat_valid is not None:
                block = block[flat_valid[part]]
            total += block.sum(dtype=np.float64)
            likely = block[np.flatnonzero(block > _LOWEST)].astype(np.float64)
            bins = 1 + _find_log_odds_bins(likely)
            voxels[structure] += np.bincount(bins, minlength=1 + _BINS)
            sums[structure] += np.bincount(bins, likely, minlength=1 + _BINS)
        sums[structure, 0] = max(total - sums[structure].sum(), 0)  # below 0 by rounding alone
    return np.stack([voxels, sums])


def _find_log_odds_bins(probs: np.ndarray) -> np.ndarray:
    """(n,) bins, from 0, of (n,) float64 probabilities above ``_LOWEST``."""
    p = torch.from_numpy(probs)  # whose logarithm is the faster one on most processors
    log_odds = (p / (1 - p.clamp_max(1 - _LOWEST))).log_()
    bins = log_odds.mul_(_BINS_PER_LOG_ODDS).add_(_BINS / 2)
    return bins.clamp_(0, _BINS - 1).long().numpy()


def largest_dice(counts: np.ndarray) -> np.ndarray:
    """(S,) largest E_k (:mod:`~nnunet_nacl.metrics.expected_dice`) of a segmentation of each
    structure.

    The candidates are the voxels above an edge of a bin. The best of them is within .001 of the
    best of all segmentations, as measured, since bins are narrow. 0 if all probabilities are below
    .001.

    Args:
        counts: What :func:`count_probabilities` gives.
    """
    voxels, sums = counts
    # By lowest bin in the segmentation, the surest bin first: columns from the last to 1, without
    # column 0, which has the sum of what is below the bins.
    size = voxels[:, :0:-1].cumsum(1)
    common = sums[:, :0:-1].cumsum(1)
    expected_size = sums.sum(1)[:, None]
    dice = 2 * common / np.maximum(expected_size + size, np.finfo(float).tiny)
    return dice.max(1)
