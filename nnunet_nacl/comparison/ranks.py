"""Ranks of the methods as in the paper's fig. 2: sums over data sets from their means, and means over cases.

(Murugesan et al., "Neighbor-Aware Calibration of Segmentation Networks with Penalty-Based Constraints", Medical Image
Analysis 2025.) Rank 1 is the best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_nacl.metrics.bootstrap import Interval, percentile_interval, resamples, without_noise

__all__ = ["case_ranks", "mean_case_ranks", "rank_values", "sum_ranks"]


def rank_values(values: np.ndarray, *, better: str, ties: str) -> np.ndarray:
    """Rank each row's values, best first.

    Args:
        values: (..., n_methods); equal to ten decimals is equal.
        better: ``lower`` or ``higher``.
        ties: ``min`` gives equal values the lowest rank of theirs, ``average`` the mean of their ranks.

    Returns:
        (..., n_methods) ranks from 1; NaN throughout a row that holds a NaN.

    Raises:
        ValueError: ``better`` or ``ties`` is neither.
    """
    from scipy.stats import rankdata

    if better not in ("lower", "higher"):
        raise ValueError(f"better must be 'lower' or 'higher', got {better!r}.")
    if ties not in ("min", "average"):
        raise ValueError(f"ties must be 'min' or 'average', got {ties!r}.")
    values = without_noise(np.asarray(values, dtype=np.float64))
    if values.size == 0:
        return values.copy()
    ranks = rankdata(-values if better == "higher" else values, method=ties, axis=-1).astype(np.float64)
    return np.where(np.isnan(values).any(axis=-1, keepdims=True), np.nan, ranks)


def sum_ranks(means: np.ndarray, better: str) -> np.ndarray:
    """Sum over data sets of the ranks of the data sets' means (fig. 2a); ties take the lowest rank.

    Args:
        means: (n_datasets, n_methods) of one metric. A data set in which some method has no mean is left out.
        better: ``lower`` or ``higher``.

    Returns:
        (n_methods,) sums; between n_datasets and n_datasets * n_methods. NaN if no data set counts.
    """
    ranks = rank_values(means, better=better, ties="min")
    ranks = ranks[~np.isnan(ranks).any(axis=1)]
    return ranks.sum(axis=0) if len(ranks) else np.full(np.shape(means)[1], np.nan)


def case_ranks(values: np.ndarray, better: str) -> np.ndarray:
    """(n_cases, n_methods) rank of each method in each case, ties averaged; NaN in cases that lack a value."""
    return rank_values(values, better=better, ties="average")


def mean_case_ranks(
    ranks: Sequence[np.ndarray], *, n_bootstrap: int, seed: int, groups: Sequence[Sequence[str] | None] | None = None
) -> list[Interval]:
    """Mean over the cases of all data sets of their case-specific ranks (fig. 2b), with 95 % bootstrap intervals.

    Cases are drawn with replacement within their data set, whole: all methods of a case stay together, and with groups
    all cases of a patient. Every case weighs the same, whatever the data set's size.

    Args:
        ranks: Per data set (n_cases, n_methods) from :func:`case_ranks`; rows with NaN are left out.
        n_bootstrap: Number of draws.
        seed: Of the draws.
        groups: Per data set the patient of each case; None: each case is its own.

    Returns:
        One per method; the interval is NaN with fewer than two patients.
    """
    n_methods, nan = ranks[0].shape[1], float("nan")
    sums, sizes, kept = [], [], []  # (n_patients, n_methods) and (n_patients,) of each data set
    for rows, own in zip(ranks, groups or [None] * len(ranks)):
        defined = ~np.isnan(rows).any(axis=1)
        code = np.arange(defined.sum()) if own is None else np.unique(np.asarray(own)[defined], return_inverse=True)[1]
        if defined.any():
            kept.append(rows[defined])
            sums.append(np.stack([np.bincount(code, column) for column in kept[-1].T], axis=1))
            sizes.append(np.bincount(code))
    n = sum(map(len, kept))
    if n == 0:
        return [Interval(nan, nan, nan, 0)] * n_methods
    means = np.concatenate(kept).mean(axis=0)
    if sum(map(len, sizes)) == 1:
        return [Interval(float(mean), nan, nan, n) for mean in means]
    total, drawn = np.zeros((n_bootstrap, n_methods)), np.zeros((n_bootstrap, 1))
    for i, (of_patients, size) in enumerate(zip(sums, sizes)):
        counts = resamples(len(size), n_bootstrap, seed + i)
        total += counts @ of_patients
        drawn += counts @ size[:, None]
    ends = [percentile_interval(column) for column in (total / drawn).T]
    return [Interval(float(mean), low, high, n) for mean, (low, high) in zip(means, ends)]
