"""Proper scores, which reward sharpness as well as calibration: means over the voxels, NaN if there are none."""

from __future__ import annotations

import numpy as np

from nnunet_nacl.metrics.binning import BinStats

__all__ = ["brier", "brier_per_row", "nll", "nll_per_row"]


def _per_voxel(sums: np.ndarray, n_voxels: int) -> np.ndarray:
    return sums / n_voxels if n_voxels else np.full_like(sums, np.nan)


def nll_per_row(stats: BinStats) -> np.ndarray:
    """Mean negative log likelihood in nats: one value for classes, one per region for regions."""
    return _per_voxel(stats.nll, stats.n_voxels)


def nll(stats: BinStats) -> float:
    """Mean of -log p(true class) in nats, p clipped at the smallest normal float32 (so at most 87.3).

    For regions the mean over regions of the binary score.
    """
    return float(nll_per_row(stats).mean())


def brier_per_row(stats: BinStats) -> np.ndarray:
    """Mean Brier score: one value for classes, one per region for regions; in [0, 2]."""
    return _per_voxel(stats.brier, stats.n_voxels)


def brier(stats: BinStats) -> float:
    """Mean of sum_k (p_k - y_k)^2 over classes, in [0, 2].

    A region counts as the two classes "in" and "out", so 2 (p - y)^2: twice what a binary Brier score is elsewhere.
    For regions the mean over regions.
    """
    return float(brier_per_row(stats).mean())
