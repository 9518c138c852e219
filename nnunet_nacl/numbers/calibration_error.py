"""Calibration errors, and proper scores, which reward sharpness as well, from sums of voxels (``BinStats``).

Equation numbers are those of Murugesan et al., "Neighbor-Aware Calibration of Segmentation Networks with
Penalty-Based Constraints", Medical Image Analysis 2025. Every function gives NaN where no voxel was counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from nnunet_nacl.numbers.binning import BinStats

__all__ = ["MASK_METRICS", "MaskMetric", "ace", "brier", "brier_per_row", "cece", "class_errors", "ece"]


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
            case.

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


def nanmean(values: Iterable[float]) -> float:
    """Mean of the values that are defined; NaN if none is."""
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")


def _over_bins(stats: BinStats, reduce) -> float:
    if stats.n_voxels == 0:
        return float("nan")
    return float(reduce(_gaps(stats.count, stats.confidence, stats.correct), axis=-1).mean())


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


@dataclass(frozen=True)
class MaskMetric:
    """What is computed from the sums of a mask, and where it is shown.

    Attributes:
        function: Its value; NaN where no voxel was counted.
        title: Its name for people.
        printed: Whether the tables by mask have it: that of `nnunet_nacl evaluate`, and of `compare` if it is compared.
        compared: Whether it is a column of `nnunet_nacl compare`. Lower is then better.
        tested: Whether its differences are tested on every mask; each test takes power from the others.
        meaning: For whoever reads a comparison, in sentences; needed if it is compared.
    """

    function: Callable[[BinStats], float]
    title: str
    printed: bool = True
    compared: bool = False
    tested: bool = False
    meaning: str = ""


MASK_METRICS = {
    "ECE": MaskMetric(
        ece,
        "ECE",
        compared=True,
        tested=True,
        meaning="Expected calibration error: by how much confidence and accuracy differ, on average over the voxels. "
        "Of a network with ECE 0 the answers given with 90 % confidence are right nine times in ten. Lower is better.",
    ),
    "CECE_mean": MaskMetric(
        cece,
        "CECE",
        compared=True,
        meaning="The same for each class's probability by itself, rare classes included; mean over classes.",
    ),
    "CECE_sum": MaskMetric(
        partial(cece, reduction="sum"),
        "CECE (sum)",
        printed=False,  # the mean times the number of classes
        compared=True,
        meaning="The sum over classes instead of the mean.",
    ),
    "ACE": MaskMetric(ace, "ACE"),
    "MCE": MaskMetric(mce, "MCE"),
    "NLL": MaskMetric(
        nll,
        "NLL",
        compared=True,
        tested=True,
        meaning="Negative log likelihood in nats: grows where the truth was given little probability. It rewards being "
        "right as well as being calibrated. Lower is better.",
    ),
    "Brier": MaskMetric(
        brier,
        "Brier",
        compared=True,
        tested=True,
        meaning="Squared distance between the probabilities and the truth. Rewards both, as NLL does, but forgives "
        "single bad voxels. Lower is better.",
    ),
}
"""By the names that calibration.json gives them. A metric that is added here is in every document and table."""


def mask_metrics(stats: BinStats) -> dict[str, float]:
    """All metrics of one mask, the proper scores included, under the names that calibration.json gives them."""
    return {"n_voxels": stats.n_voxels} | {name: metric.function(stats) for name, metric in MASK_METRICS.items()}
