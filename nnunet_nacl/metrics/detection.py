"""Is it so? Of probabilities Brier score, AUROC and ECE; of segmentations what they miss and invent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Detected:
    """What the segmentations of some cases find of a structure.

    Attributes:
        dice: Mean Dice of the cases whose truth has it, 0 where it was missed; NaN without such a case.
        n_there: How many these are.
        missed: In how many of them the segmentation lacks it.
        n_absent: Cases whose truth lacks it.
        invented: In how many of them the segmentation has it.
    """

    dice: float
    n_there: int
    missed: int
    n_absent: int
    invented: int

    @classmethod
    def of(cls, dice: Values, there: Sequence[bool] | np.ndarray, labelled: Sequence[bool] | np.ndarray) -> Detected:
        """Count cases.

        Args:
            dice: (n,) of each case.
            there: (n,) whether the truth has the structure.
            labelled: (n,) whether the segmentation has it.
        """
        d, y, found = np.asarray(dice, float), np.asarray(there, bool), np.asarray(labelled, bool)
        mean = float(d[y].mean()) if y.any() else math.nan
        return cls(mean, int(y.sum()), int((y & ~found).sum()), int((~y).sum()), int((~y & found).sum()))


def binary_brier(probability: Values, true: Values) -> float:
    """Mean of (p - y)^2, y 1 where it is so; from 0 to 1. NaN without a value."""
    p, y = _pairs(probability, true)
    return float(np.mean((p - y) ** 2)) if len(p) else math.nan


def auroc(score: Values, true: Values) -> float:
    """Area under the ROC curve: how often something that is so has the higher score, ties counting a half.

    Args:
        score: Any values, higher where it is more likely to be so.
        true: Whether it is so.

    Returns:
        From 0 to 1, 0.5 where the score says nothing (Mann and Whitney's U by ranks); NaN unless there are both kinds.
    """
    from scipy.stats import rankdata

    s, y = _pairs(score, true)
    n, m = int(y.sum()), int(len(y) - y.sum())
    if not n or not m:
        return math.nan
    return float((rankdata(s)[y > 0].sum() - n * (n + 1) / 2) / (n * m))


def binary_ece(probability: Values, true: Values, n_bins: int = 10) -> float:
    """Expected calibration error of probabilities of yes: sum over bins of their share times |mean p - share of yes|.

    Bins are of equal width, (0, 0.1], (0.1, 0.2], ..., 0 in the first. With few values it is far from 0 by chance
    alone. NaN without a value.
    """
    p, y = _pairs(probability, true)
    if not len(p):
        return math.nan
    bins = np.clip(np.ceil(p * n_bins).astype(int) - 1, 0, n_bins - 1)
    return float(np.abs(np.bincount(bins, p - y)).sum() / len(p))


def _pairs(value: Values, true: Values) -> tuple[np.ndarray, np.ndarray]:
    v, y = np.asarray(value, float), np.asarray(true, float)
    if v.shape != y.shape or v.ndim != 1:
        raise ValueError(f"one value for each thing is needed, got {v.shape} and {y.shape}.")
    keep = ~(np.isnan(v) | np.isnan(y))
    return v[keep], y[keep]
