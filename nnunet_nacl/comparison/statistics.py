"""Statistics over cases: bootstrap intervals, paired differences, Wilcoxon's test, Holm's correction.

The unit is the case, never the voxel: the voxels of an image are not independent. Whatever varies between trainings
(seed, order of the batches) is in none of these intervals, since every trainer stands for one training per fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = [
    "CONFIDENCE",
    "MIN_CASES",
    "Interval",
    "PairedDifference",
    "bin_accuracy_bands",
    "holm",
    "mean_interval",
    "paired_difference",
    "relative_difference",
    "resamples",
    "wilcoxon_p",
    "without_noise",
]

CONFIDENCE = 0.95
MIN_CASES = 6
"""With five cases the smallest possible two-sided p of Wilcoxon's test is 2 / 2**5 = 0.0625: it cannot reach 0.05."""


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` cases with its 95 % interval; NaN where undefined."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PairedDifference:
    """A trainer less the reference, over the ``n`` cases in which both have a value.

    Attributes:
        n: Number of these cases.
        mean_reference: Mean of the reference over them.
        mean: Mean of the trainer over them.
        difference: Mean of the paired differences.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n_lower: Cases in which the trainer's value is lower than the reference's.
        n_higher: Cases in which it is higher.
        rank_biserial: (W+ - W-) / (W+ + W-) of the signed ranks, -1 to 1: the direction that Wilcoxon's test sees, and
            how clear it is; 0 if all differences are 0.
        p: Two-sided p of Wilcoxon's signed-rank test; NaN with fewer than ``MIN_CASES`` cases.
    """

    n: int
    mean_reference: float
    mean: float
    difference: float
    low: float
    high: float
    n_lower: int
    n_higher: int
    rank_biserial: float
    p: float


def without_noise(values: np.ndarray) -> np.ndarray:
    """Values to ten decimals: what is equal but for floating-point rounding (1e-15) is a tie, and no case wins it.

    Distances are often equal in two cases; a metric that differs by less than 1e-10 does not differ.
    """
    return np.round(values, 10)


@lru_cache(maxsize=4)
def resamples(n: int, n_bootstrap: int, seed: int) -> np.ndarray:
    """(n_bootstrap, n) float64: how often each of n cases is drawn, n draws with replacement.

    The same n, number and seed give the same draws, so all metrics and trainers of a comparison share them.
    """
    draws = np.random.default_rng([seed, n]).integers(0, n, (n_bootstrap, n))
    counts = np.zeros((n_bootstrap, n))
    np.add.at(counts, (np.arange(n_bootstrap)[:, None], draws), 1)
    counts.setflags(write=False)
    return counts


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The central 95 % of bootstrap replicates; NaN replicates are left out."""
    values = values[~np.isnan(values)]
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def mean_interval(values: Sequence[float] | np.ndarray, *, n_bootstrap: int, seed: int) -> Interval:
    """Mean over the cases where a value is defined, with its percentile bootstrap interval (Efron 1979).

    Cases are drawn with replacement, the mean is taken of each draw, and the 2.5th and 97.5th percentile of these
    means are the interval.

    Args:
        values: One per case; NaN is undefined.
        n_bootstrap: Number of draws.
        seed: Of the draws.

    Returns:
        NaN everywhere without a defined case; with one, an interval would be a lie and is NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    n = values.size
    if n == 0:
        return Interval(*[float("nan")] * 3, 0)
    # about a value near the mean, so that a shift of all values shifts the interval by as much
    centre = float(values.mean())
    if n == 1:
        return Interval(centre, float("nan"), float("nan"), 1)
    low, high = percentile_interval(resamples(n, n_bootstrap, seed) @ (values - centre) / n)
    return Interval(centre, centre + low, centre + high, n)


def paired_difference(
    reference: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray, *, n_bootstrap: int, seed: int
) -> PairedDifference:
    """Compare two methods case by case.

    Args:
        reference: One value per case; NaN is undefined.
        values: Of the same cases in the same order.
        n_bootstrap: Number of bootstrap draws.
        seed: Of the draws.

    Raises:
        ValueError: The lengths differ.
    """
    reference, values = _where_both(reference, values)
    differences = values - reference
    signs = np.sign(without_noise(differences))
    interval = mean_interval(differences, n_bootstrap=n_bootstrap, seed=seed)
    nan = float("nan")
    return PairedDifference(
        n=interval.n,
        mean_reference=float(reference.mean()) if interval.n else nan,
        mean=float(values.mean()) if interval.n else nan,
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        n_lower=int((signs < 0).sum()),
        n_higher=int((signs > 0).sum()),
        rank_biserial=rank_biserial(differences),
        p=wilcoxon_p(differences),
    )


def _where_both(reference, values) -> tuple[np.ndarray, np.ndarray]:
    """The two at the cases where both are defined."""
    reference, values = np.asarray(reference, np.float64), np.asarray(values, np.float64)
    if reference.shape != values.shape:
        raise ValueError(f"paired values must be of the same cases, got {reference.size} and {values.size}.")
    both = ~(np.isnan(reference) | np.isnan(values))
    return reference[both], values[both]


def wilcoxon_p(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test (scipy): are the differences symmetric about 0?

    Differences of exactly 0 say nothing about a direction and are dropped, as Wilcoxon (1945) did. scipy takes the
    exact distribution for up to 50 differences without ties or zeros, else the normal approximation with its
    correction for ties (small samples with ties: the permutation distribution).

    Args:
        differences: One per case; NaN is undefined and left out.

    Returns:
        1 if all differences are 0; NaN with fewer than ``MIN_CASES`` cases.
    """
    from scipy.stats import wilcoxon

    differences = without_noise(np.asarray(differences, dtype=np.float64))
    differences = differences[~np.isnan(differences)]
    if differences.size < MIN_CASES:
        return float("nan")
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences, zero_method="wilcox", alternative="two-sided").pvalue)


def rank_biserial(differences: np.ndarray) -> float:
    """(W+ - W-) / (W+ + W-), the matched-pairs rank-biserial correlation (Kerby 2014); zeros are dropped."""
    from scipy.stats import rankdata

    differences = without_noise(np.asarray(differences, dtype=np.float64))
    kept = differences[differences != 0]
    if not kept.size:
        return 0.0
    ranks = rankdata(np.abs(kept))
    return float((np.sign(kept) * ranks).sum() / ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction: p of rank i becomes max over j <= i of min(1, (m - j) p_j), j from 0.

    Controls the chance of one false finding in the whole family at the level to which the result is compared.

    Args:
        p_values: The family; NaN stands for a test that was not made and is not counted.

    Returns:
        Corrected p in the same order, NaN where it was.
    """
    p = np.asarray(p_values, dtype=np.float64)
    result = np.full(p.shape, np.nan)
    order = [i for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * float(p[i])))
        result[i] = largest
    return result.tolist()


def relative_difference(
    reference: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray, *, n_bootstrap: int, seed: int
) -> Interval:
    """100 (mean of values / mean of reference - 1) in percent over the cases where both are defined (paper fig. 7).

    Returns:
        NaN where the reference's mean is 0 or no case is left.
    """
    reference, values = _where_both(reference, values)
    n, nan = reference.size, float("nan")
    if n == 0 or reference.mean() == 0:
        return Interval(nan, nan, nan, n)
    percent = 100 * (float(values.mean()) / float(reference.mean()) - 1)
    if n == 1:
        return Interval(percent, nan, nan, 1)
    counts = resamples(n, n_bootstrap, seed)
    below = counts @ reference
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = 100 * (counts @ values / np.where(below > 0, below, np.nan) - 1)
    return Interval(percent, *percentile_interval(drawn), n)


def bin_accuracy_bands(
    count: np.ndarray, correct: np.ndarray, *, n_bootstrap: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of each confidence bin's accuracy, cases drawn with replacement.

    Args:
        count: (n_cases, n_bins) voxels of each case in each bin.
        correct: (n_cases, n_bins) how many of them are right.
        n_bootstrap: Number of draws.
        seed: Of the draws.

    Returns:
        Lower and upper ends, (n_bins,) each; NaN in bins that are empty, or with a single case.
    """
    count, correct = np.asarray(count, np.float64), np.asarray(correct, np.float64)
    n_bins = count.shape[1]
    if len(count) < 2:
        return np.full(n_bins, np.nan), np.full(n_bins, np.nan)
    drawn = resamples(len(count), n_bootstrap, seed)
    total = drawn @ count
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = drawn @ correct / np.where(total > 0, total, np.nan)
    ends = [percentile_interval(accuracy[:, i]) for i in range(n_bins)]
    return np.array([low for low, _ in ends]), np.array([high for _, high in ends])
