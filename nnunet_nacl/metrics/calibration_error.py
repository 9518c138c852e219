"""Calibration errors (ECE, CECE, ACE, MCE), proper scores (NLL, Brier and its root), from sums of
voxels; NaN of none.

Equation numbers: Murugesan et al., "Neighbor-Aware Calibration of Segmentation Networks with
Penalty-Based Constraints", Medical Image Analysis 2025.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.metrics.binning import BinStats


def _average_over_voxels(
    count: np.ndarray, confidence: np.ndarray, positive: np.ndarray
) -> np.ndarray:
    """(rows,) sum over bins b of n_b / N |share of outcomes - mean confidence|; NaN without voxels.

    All are (rows, n_bins) sums, and n_b |share - mean| is |sum of outcomes - sum of confidences|.
    """
    total = count.sum(axis=-1)
    gaps = np.abs(positive - confidence).sum(axis=-1)
    return gaps / np.where(total > 0, total, np.nan)


def ece_per_row(stats: BinStats) -> np.ndarray:
    """ECE of each top-label row: one value for classes, one per region for regions; in [0, 1]."""
    return _average_over_voxels(stats.count, stats.confidence, stats.correct)


def ece(stats: BinStats) -> float:
    """Expected calibration error of the top label: sum_b n_b / N * |accuracy_b - confidence_b|.

    Murugesan et al. 2025, eq. 10. For regions the mean over regions of each region's error.
    """
    return float(ece_per_row(stats).mean())


def class_errors(stats: BinStats) -> np.ndarray:
    """(K,) calibration error of each class's (region's) own probability against its frequency; in
    [0, 1]."""
    return _average_over_voxels(stats.class_count, stats.class_confidence, stats.class_positive)


def cece(stats: BinStats) -> float:
    """Class-wise expected calibration error: mean over classes of sum_b n_kb / N * |share of k -
    mean p_k|.

    Background is a class; of regions each is one. The authors' code computes the same, but leaves
    out classes above the largest label of the case.
    """
    return float(class_errors(stats).mean())


def cece_sum(stats: BinStats) -> float:
    """The sum over classes instead of the mean, K times as large.

    Murugesan et al. 2025, eq. 11.
    """
    return float(class_errors(stats).sum())


def ace(stats: BinStats) -> float:
    """Average calibration error: mean over non-empty bins b of |accuracy_b - confidence_b|.

    (Not the *adaptive* error of equal-mass bins.) For regions the mean over regions.
    """
    return _over_bins(stats.count, stats.confidence, stats.correct, np.nanmean)


def marginal_ace(stats: BinStats) -> float:
    """Marginal average calibration error: mean over classes or regions k of mean_b |share of k -
    mean p_k|; in [0, 1].

    b are the non-empty bins of p_k, background included: what the loss ``ace`` adds
    for each image (Barfoot et al., arXiv 2506.03942; there in 20 bins).
    """
    return _over_bins(stats.class_count, stats.class_confidence, stats.class_positive, np.nanmean)


def mce(stats: BinStats) -> float:
    """Maximum calibration error: the largest |accuracy_b - confidence_b|. For regions the mean over
    regions."""
    return _over_bins(stats.count, stats.confidence, stats.correct, np.nanmax)


def _over_bins(
    count: np.ndarray,
    confidence: np.ndarray,
    positive: np.ndarray,
    reduce: Callable[..., np.ndarray],
) -> float:
    """Mean over rows of what ``reduce`` makes of |share of outcomes - mean confidence| of the
    non-empty bins."""
    if not count.any():
        return math.nan
    gaps = np.abs(positive - confidence) / np.where(count > 0, count, np.nan)
    return float(reduce(gaps, axis=-1).mean())


def _divide_by_voxels(sums: np.ndarray, stats: BinStats) -> np.ndarray:
    """Sums by row over the number of voxels; NaN without voxels."""
    return sums / (stats.n_voxels if stats.n_voxels else np.nan)


def nll_per_row(stats: BinStats) -> np.ndarray:
    """Mean negative log likelihood in nats: one value for classes, one per region for regions."""
    return _divide_by_voxels(stats.nll, stats)


def nll(stats: BinStats) -> float:
    """Mean of -log p(true class) in nats, p clipped at the smallest normal float32 (so at most
    87.3).

    For regions the mean over regions of the binary score.
    """
    return float(nll_per_row(stats).mean())


def brier_per_row(stats: BinStats) -> np.ndarray:
    """Mean Brier score: one value for classes, one per region for regions; in [0, 2]."""
    return _divide_by_voxels(stats.brier, stats)


def brier(stats: BinStats) -> float:
    """Mean of sum_k (p_k - y_k)^2 over classes, in [0, 2].

    A region counts as the two classes "in" and "out", so 2 (p - y)^2: twice what a binary Brier
    score is elsewhere. For regions the mean over regions.
    """
    return float(brier_per_row(stats).mean())


def root_brier(stats: BinStats) -> float:
    """Root Brier score: the square root of :func:`brier`, for regions of each one's; in [0,
    sqrt(2)].

    It is never less than ECE. In expectation it is also never less than the calibration error of
    all classes' probabilities together, which bins cannot measure (Gruber and Buettner 2022).
    Metrics Reloaded (Maier-Hein et al. 2024) recommends it.
    """
    return float(np.sqrt(np.maximum(brier_per_row(stats), 0)).mean())


def nanmean(values: Iterable[float]) -> float:
    """Mean of the values that are defined; NaN if none is."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


@dataclass(frozen=True)
class MaskMetric:
    """What is computed from the sums of a mask, and where it is shown.

    Attributes:
        function: Its value; NaN where no voxel was counted.
        title: Its name for people.
        meaning: In sentences, on the page of `nnunet_nacl compare`; empty for what is no column
            there. Lower is better.
        printed: Whether the tables by mask have it: that of `nnunet_nacl evaluate`, and that of
            `compare` unless ``meaning`` is empty.
        tested: Whether its differences are tested on every mask; each test takes power from the
            others.
    """

    function: Callable[[BinStats], float]
    title: str
    meaning: str = ""
    printed: bool = True
    tested: bool = False


MASK_METRICS = {
    "ECE": MaskMetric(
        ece,
        "ECE",
        "Expected calibration error: by how much confidence and accuracy differ, on average over"
        " the voxels. Of a network with ECE 0 the answers given with 90 % confidence are right nine"
        " times in ten. Lower is better.",
        tested=True,
    ),
    "CECE_mean": MaskMetric(
        cece,
        "CECE",
        "The same for each class's probability by itself, rare classes included; mean over"
        " classes.",
    ),
    "CECE_sum": MaskMetric(
        cece_sum, "CECE (sum)", "The sum over classes instead of the mean.", printed=False
    ),
    "ACE": MaskMetric(ace, "ACE"),
    "marginal_ACE": MaskMetric(
        marginal_ace,
        "marginal ACE",
        "By how much each class's probability and its frequency differ, on average over the bins"
        " that hold a voxel, however few. Trainers with ACE in their name add it to their loss."
        " Lower is better.",
    ),
    "MCE": MaskMetric(mce, "MCE"),
    "NLL": MaskMetric(
        nll,
        "NLL",
        "Negative log likelihood in nats: grows where the truth was given little probability. It"
        " rewards being right as well as being calibrated. Lower is better.",
        tested=True,
    ),
    "Brier": MaskMetric(
        brier,
        "Brier",
        "Squared distance between the probabilities and the truth. Rewards both, as NLL does, but"
        " forgives single bad voxels. Lower is better.",
        tested=True,
    ),
    "root_Brier": MaskMetric(
        root_brier,
        "root Brier",
        "The square root of a case's Brier score; ECE is never larger.",
        printed=False,
    ),
}
"""By the names that calibration.json gives them. A metric that is added here is in every document
and table."""


def mask_metrics(stats: BinStats) -> dict[str, float]:
    """All metrics of one mask, and its number of voxels, under the names that calibration.json
    gives them."""
    values: dict[str, float] = {"n_voxels": stats.n_voxels}
    for name, metric in MASK_METRICS.items():
        values[name] = metric.function(stats)
    return values
