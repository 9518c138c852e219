"""Calibration errors from :class:`~nnunet_nacl.metrics.binning.BinStats`.

Equation numbers are those of Murugesan et al., "Neighbor-Aware Calibration of Segmentation Networks with
Penalty-Based Constraints", Medical Image Analysis 2025. Every function gives NaN where no voxel was counted.
"""

from __future__ import annotations

import numpy as np

from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.scores import brier, nll

__all__ = ["ace", "cece", "class_errors", "ece", "ece_per_row", "mask_metrics", "mce"]


def _gaps(count: np.ndarray, confidence: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """|mean outcome - mean confidence| of each bin, NaN in empty bins."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(positive - confidence) / np.where(count > 0, count, np.nan)


def _weighted(count: np.ndarray, confidence: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Sum over bins of count / N * gap, one value per row: |sum of outcomes - sum of confidences| / N."""
    total = count.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(positive - confidence).sum(axis=-1) / np.where(total > 0, total, np.nan)


def ece_per_row(stats: BinStats) -> np.ndarray:
    """ECE of each top-label row: one value for classes, one per region for regions; in [0, 1]."""
    return _weighted(stats.count, stats.confidence, stats.correct)


def ece(stats: BinStats) -> float:
    """Expected calibration error of the top label (eq. 10): sum_b n_b / N * |accuracy_b - confidence_b|.

    For regions the mean over regions of each region's error.
    """
    return float(ece_per_row(stats).mean())


def class_errors(stats: BinStats) -> np.ndarray:
    """(K,) calibration error of each class's (region's) own probability against its frequency; in [0, 1]."""
    return _weighted(stats.class_count, stats.class_confidence, stats.class_positive)


def cece(stats: BinStats, *, reduction: str = "mean", num_classes: int | None = None) -> float:
    """Class-wise expected calibration error over all classes, background included, or over regions.

    Args:
        stats: The sums.
        reduction: ``sum`` over classes is eq. 11; ``mean`` over classes is what the authors' code computes, K times
            smaller.
        num_classes: Only the first so many classes. The authors' code counts classes up to the largest label of the
            case: see :mod:`nnunet_nacl.metrics.paper`.

    Returns:
        The error, or NaN where no voxel was counted.

    Raises:
        ValueError: ``reduction`` is neither, or ``num_classes`` is not in 1..K.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}.")
    if num_classes is not None and not 1 <= num_classes <= stats.num_classes:
        raise ValueError(f"num_classes must be in 1..{stats.num_classes}, got {num_classes!r}.")
    errors = class_errors(stats)[:num_classes]
    return float(errors.mean() if reduction == "mean" else errors.sum())


def ace(stats: BinStats) -> float:
    """Average calibration error: the mean gap of the non-empty top-label bins, each bin weighing the same.

    (Not the *adaptive* error of equal-mass bins.) For regions the mean over regions.
    """
    return _over_bins(stats, np.nanmean)


def mce(stats: BinStats) -> float:
    """Maximum calibration error: the largest gap of the non-empty top-label bins. For regions the mean over regions."""
    return _over_bins(stats, np.nanmax)


def mask_metrics(stats: BinStats) -> dict[str, float]:
    """All metrics of one mask, the proper scores included, under the names that calibration.json gives them."""
    return {
        "n_voxels": stats.n_voxels,
        "ECE": ece(stats),
        "CECE_sum": cece(stats, reduction="sum"),
        "CECE_mean": cece(stats, reduction="mean"),
        "ACE": ace(stats),
        "MCE": mce(stats),
        "NLL": nll(stats),
        "Brier": brier(stats),
    }


def _over_bins(stats: BinStats, reduce) -> float:
    if stats.n_voxels == 0:
        return float("nan")
    return float(reduce(_gaps(stats.count, stats.confidence, stats.correct), axis=-1).mean())
