"""Slow and obvious versions of the statistics, written from their definitions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's procedure is the closure of Bonferroni's: p_i is the largest Bonferroni p of all sets
    that hold i."""
    indices = range(len(p_values))
    adjusted = [0.0] * len(p_values)
    for size in range(1, len(p_values) + 1):
        for members in itertools.combinations(indices, size):
            bonferroni = min(1.0, size * min(p_values[i] for i in members))
            for i in members:
                adjusted[i] = max(adjusted[i], bonferroni)
    return adjusted


def wilcoxon(differences: Sequence[float]) -> float:
    """Exact two-sided p: every pattern of signs of the ranked differences is equally likely."""
    kept = [difference for difference in differences if difference != 0]
    ranks = [rank_of(abs(difference), [abs(each) for each in kept]) for difference in kept]
    observed = sum(rank for difference, rank in zip(kept, ranks) if difference > 0)
    sums = []
    for signs in itertools.product((0, 1), repeat=len(kept)):
        sums.append(sum(rank for rank, sign in zip(ranks, signs) if sign))
    lower = sum(possible <= observed for possible in sums) / len(sums)
    upper = sum(possible >= observed for possible in sums) / len(sums)
    return min(1.0, 2 * min(lower, upper))


def rank_of(value: float, values: Sequence[float]) -> float:
    """From 1; equal values share the mean of their ranks."""
    num_smaller = sum(other < value for other in values)
    num_equal = sum(other == value for other in values)
    return 1 + num_smaller + (num_equal - 1) / 2
