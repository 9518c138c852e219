"""Slow and obvious versions of the statistics, written from their definitions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's procedure is the closure of Bonferroni's: p_i is the largest Bonferroni p of all sets
    that hold i."""
    indices = range(len(p_values))
    result = []
    for i in indices:
        sets = [
            s
            for size in range(1, len(p_values) + 1)
            for s in itertools.combinations(indices, size)
            if i in s
        ]
        result.append(max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in sets))
    return result


def wilcoxon(differences: Sequence[float]) -> float:
    """Exact two-sided p: every pattern of signs of the ranked differences is equally likely."""
    kept = [d for d in differences if d != 0]
    ranks = [
        1 + sum(abs(e) < abs(d) for e in kept) + (sum(abs(e) == abs(d) for e in kept) - 1) / 2
        for d in kept
    ]
    observed = sum(r for d, r in zip(kept, ranks) if d > 0)
    sums = [
        sum(r for r, sign in zip(ranks, signs) if sign)
        for signs in itertools.product((0, 1), repeat=len(kept))
    ]
    lower = sum(s <= observed for s in sums) / len(sums)
    upper = sum(s >= observed for s in sums) / len(sums)
    return min(1.0, 2 * min(lower, upper))
