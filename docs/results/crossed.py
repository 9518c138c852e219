"""Means over cases that several trainings of one method predicted: both the cases and the trainings vary.

An interval over cases alone says how a difference between two *networks* would vary with other patients. Two trainings
of one loss differ as well, so a claim about *losses* has to count both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = ["CrossedMean", "crossed_mean"]


@dataclass(frozen=True)
class CrossedMean:
    """A mean over cases crossed with trainings.

    Attributes:
        mean: Of all values.
        low: Lower end of the interval; NaN where there is none.
        high: Upper end.
        n_cases: Cases with a value in every training.
        n_trainings: Trainings.
        sd_cases: Standard deviation between cases, apart from the other two; 0 where chance alone explains it.
        sd_trainings: Between trainings; NaN with one training.
        sd_residual: What neither explains; NaN with one training.
    """

    mean: float
    low: float
    high: float
    n_cases: int
    n_trainings: int
    sd_cases: float
    sd_trainings: float
    sd_residual: float


def crossed_mean(values: np.ndarray, confidence: float = 0.95) -> CrossedMean:
    """Mean and interval in the two-way random-effects model, value = mean + training + case + residual.

    The variance of the mean over T trainings and C cases is estimated from the mean squares of the analysis of
    variance as (MS_trainings + MS_cases - MS_residual) / (T C), where neither of the first two counts less than the
    third; the interval is Student's with Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946). For a
    difference between two methods pass the differences: they are then paired by case, and by training where both
    methods were trained on the same folds.

    With one training the interval is that over cases, and says nothing about other trainings.

    Args:
        values: (T, C) one value for each training and case; a case with a NaN is left out.
        confidence: Of the interval.

    Raises:
        ValueError: The array has not two dimensions, holds infinity, or the confidence is not between 0 and 1.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"values must have the shape (trainings, cases), got {values.shape}.")
    if np.isinf(values).any():
        raise ValueError("values must be finite, or NaN where there is none.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    values = values[:, ~np.isnan(values).any(axis=0)]
    trainings, cases = values.shape
    nan = float("nan")
    if cases == 0:
        return CrossedMean(nan, nan, nan, 0, trainings, nan, nan, nan)
    mean = float(values.mean())
    if cases == 1:
        return CrossedMean(mean, nan, nan, 1, trainings, nan, nan, nan)
    by_training, by_case = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    square_cases = trainings * float(np.square(by_case - mean).sum()) / (cases - 1)
    if trainings == 1:
        variance, freedom = square_cases / cases, cases - 1
        spread = (float(np.sqrt(square_cases)), nan, nan)
    else:
        square_trainings = cases * float(np.square(by_training - mean).sum()) / (trainings - 1)
        rest = (trainings - 1) * (cases - 1)
        square_rest = float(np.square(values - by_training - by_case + mean).sum()) / rest
        parts = (max(square_trainings, square_rest), max(square_cases, square_rest), square_rest)
        size = trainings * cases
        variance = (parts[0] + parts[1] - parts[2]) / size
        weights = sum(part**2 / n for part, n in zip(parts, (trainings - 1, cases - 1, rest)))
        freedom = (variance * size) ** 2 / weights if weights > 0 else 1.0
        spread = (
            float(np.sqrt((parts[1] - square_rest) / trainings)),
            float(np.sqrt((parts[0] - square_rest) / cases)),
            float(np.sqrt(square_rest)),
        )
    half = float(stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance))
    return CrossedMean(mean, mean - half, mean + half, cases, trainings, *spread)
