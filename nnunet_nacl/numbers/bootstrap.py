"""Intervals by the bootstrap over cases (Efron 1979).

The unit is the case, never the voxel: the voxels of an image are not independent; or the patient, where several cases
are of one. Whatever varies between trainings (seed, order of the batches) is in none of these intervals, since every
trainer stands for one training per fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CONFIDENCE", "Interval", "bin_accuracy_bands", "mean_interval", "percentile_interval"]
CONFIDENCE = 0.95
KEPT_BYTES = 800_000_000  # of draws: those of 1,000 cases, 100,000 times
_BLOCK = 1 << 20  # cases drawn at a time
_kept: dict[tuple[int, int, int], np.ndarray] = {}  # the last used ones last


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` cases with its 95 % interval; NaN where undefined."""

    mean: float
    low: float
    high: float
    n: int


def without_noise(values: np.ndarray) -> np.ndarray:
    """Values to ten decimals: what is equal but for floating-point rounding (1e-15) is a tie, and no case wins it.

    Distances are often equal in two cases; a metric that differs by less than 1e-10 does not differ.
    """
    return np.round(values, 10)


def resamples(n: int, n_bootstrap: int, seed: int) -> np.ndarray:
    """(n_bootstrap, n) float64: how often each of n cases is drawn, n draws with replacement.

    The same n, number and seed give the same draws, so all metrics and trainers of a comparison share them: the last
    used ones are kept, :data:`KEPT_BYTES` of them at most.
    """
    key, size = (n, n_bootstrap, seed), 8 * n * n_bootstrap
    counts = _kept.pop(key, None)
    if counts is None:
        while _kept and size + sum(kept.nbytes for kept in _kept.values()) > KEPT_BYTES:
            del _kept[next(iter(_kept))]
        counts, rng = np.empty((n_bootstrap, n)), np.random.default_rng([seed, n])
        rows = max(1, _BLOCK // max(n, 1))
        for start in range(0, n_bootstrap, rows):
            part = counts[start : start + rows]
            draws = rng.integers(0, n, part.shape) + n * np.arange(len(part))[:, None]
            part[:] = np.bincount(draws.ravel(), minlength=part.size).reshape(part.shape)
        counts.setflags(write=False)
    if size <= KEPT_BYTES:
        _kept[key] = counts
    return counts


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The central 95 % of bootstrap replicates; NaN replicates are left out."""
    values = values[~np.isnan(values)]
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(values, ends).tolist() if values.size else (float("nan"), float("nan"))
    return low, high


def mean_interval(
    values: Sequence[float] | np.ndarray, *, n_bootstrap: int, seed: int, groups: Sequence[str] | None = None
) -> Interval:
    """Mean over the cases where a value is defined, with its percentile bootstrap interval (Efron 1979).

    Cases are drawn with replacement, the mean is taken of each draw, and the 2.5th and 97.5th percentile of these
    means are the interval. With groups, these are drawn instead, each with all its cases (the cluster bootstrap), since
    cases of one patient are alike; the mean stays one over cases.

    Args:
        values: One per case; NaN is undefined.
        n_bootstrap, seed: Number of draws, and their seed.
        groups: Of each case the patient, or whatever else makes cases alike; None: each case is its own.

    Returns:
        NaN everywhere without a defined case; with one, or with one group, an interval would be a lie and is NaN.

    Raises:
        ValueError: There are not as many groups as values.
    """
    given = np.asarray(values, dtype=np.float64)
    if groups is not None and len(groups) != len(given):
        raise ValueError(f"each value needs its group, got {len(given)} values and {len(groups)} groups.")
    kept = ~np.isnan(given)
    defined = given[kept]
    n, nan = defined.size, float("nan")
    code = np.arange(n) if groups is None else np.unique(np.asarray(groups)[kept], return_inverse=True)[1]
    if n == 0:
        return Interval(nan, nan, nan, 0)
    # about a value near the mean, so that a shift of all values shifts the interval by as much
    centre = float(defined.mean())
    sizes = np.bincount(code)
    if len(sizes) == 1:
        return Interval(centre, nan, nan, n)
    drawn = resamples(len(sizes), n_bootstrap, seed)
    low, high = percentile_interval(drawn @ np.bincount(code, defined - centre) / (drawn @ sizes))
    return Interval(centre, centre + low, centre + high, n)


def bin_accuracy_bands(
    count: np.ndarray, correct: np.ndarray, *, n_bootstrap: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of each confidence bin's accuracy, cases drawn with replacement.

    Args:
        count: (n_cases, n_bins) voxels of each case, or of each patient's cases together, in each bin.
        correct: (n_cases, n_bins) how many of them are right.
        n_bootstrap, seed: Number of draws, and their seed.

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
