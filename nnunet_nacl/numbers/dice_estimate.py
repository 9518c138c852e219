"""How far true Dice and volume lie from those that calibrated probabilities predict: intervals from other patients.

Predicted Dice is the expectation under the calibrated probabilities (the Soft Dice Confidence of Borges et al., 2024,
arXiv 2402.10665), predicted volume their sum. Both are off, for the
voxels of an image err together. How they are off is alike from case to case, and so can be learned: from cases that the
network did not train on. Errors of Dice are alike wherever it lies; those of volumes grow with the volume, so they are
taken relative to the predicted volume plus one voxel. (Learning on the logarithm of the volume does as well where every
case has the structure; but a case without it is far away from all others there: in a simulation a third of such cases
made intervals five times as wide.) A mean error that is not 0 shifts the interval; the prediction stays what the
probabilities say.

Intervals are jackknife+ (Barber et al., Annals of Statistics 49, 2021) with patients in the place of cases: the mean
error that a case is judged by has not seen its patient, and a patient with several cases counts as one (Lee, Barber and
Willett 2023 treat such hierarchies). For a new patient like those before, an interval of level 1 - alpha typically
holds the true value with a probability of 1 - alpha; of predictions that are given, jackknife+ is proven to hold it
with at least 1 - 2 alpha. Here that proof does not cover the whole way: predictions follow from calibration maps, and
those of the other cases from maps that were fitted with that patient. Maps have few parameters, so little is shared,
but what the intervals hold is known by trial. "Like those before" is exchangeability: the patients could have come in
any order. It breaks with another scanner, another disease, or another network than the errors were learned with, the
average of five folds instead of one fold included.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import Field, NonNegativeInt

from nnunet_nacl.json_files import Array, Number, Patients, Share

DEFAULT_ALPHA = 0.1

Values = Sequence[float] | np.ndarray


def patients_needed(alpha: float) -> int:
    """Fewest patients with which a jackknife+ interval of level 1 - alpha is finite: 9 for 90 %, 19 for 95 %."""
    return math.ceil(1 / alpha - 1 - 1e-9)


@dataclass(frozen=True, eq=False)
class StructureEstimate:
    """How far the true value of one structure (Dice, or a volume) lies from the predicted one.

    Attributes:
        difference: (n,) true less predicted value of each case; relative to the predicted one if ``voxel`` is given.
        patient: (n,) which patient a case belongs to, numbers from 0.
        alpha: The interval has level 1 - alpha: 90 %, as texts say.
        bounds: The least and the greatest value that there can be; NaN, as in a file, is infinite.
        voxel: Volume of a voxel where errors grow with the volume: they are relative to the predicted volume plus this.
            None where they are alike everywhere.

    Raises:
        ValueError: Lists do not belong together, or ``voxel`` is not positive.
    """

    difference: Annotated[np.ndarray, Array(np.float64)]
    patient: Patients
    alpha: Annotated[float, Field(ge=DEFAULT_ALPHA, le=DEFAULT_ALPHA)] = DEFAULT_ALPHA
    bounds: tuple[Number, Number] = (0.0, 1.0)
    voxel: float | None = None

    def __post_init__(self) -> None:
        if self.voxel is not None and not 0 < self.voxel < math.inf:
            raise ValueError(f"voxel must be a volume, got {self.voxel!r}.")
        if len(self.patient) != len(self.difference):
            raise ValueError("its lists do not belong together")
        bounds = (infinite if math.isnan(b) else b for b, infinite in zip(self.bounds, (-math.inf, math.inf)))
        object.__setattr__(self, "bounds", tuple(bounds))

    @classmethod
    def fit(
        cls,
        predicted: Sequence[float] | np.ndarray,
        true: Sequence[float] | np.ndarray,
        patients: Sequence[Hashable],
        *,
        bounds: tuple[float, float] = (0.0, 1.0),
        voxel: float | None = None,
    ) -> StructureEstimate:
        """Learn from cases; every patient weighs the same.

        Args:
            predicted: (n,) predicted Dice or volume. NaN, a structure that was not segmented, is left out.
            true: (n,) true Dice (0 where the truth is empty) or volume. NaN is left out.
            patients: (n,) to whom each case belongs; the cases' names where each is a patient of its own.
            bounds: The least and the greatest possible value.
            voxel: Of volumes, that of a voxel: errors are then relative to the predicted volume plus this.

        Raises:
            ValueError: Lengths differ, or ``voxel`` is not positive.
        """
        x, y = np.asarray(predicted, float), np.asarray(true, float)
        if not len(x) == len(y) == len(patients):
            sizes = f"{len(x)}, {len(y)} and {len(patients)}"
            raise ValueError(f"predicted, true and patients must be of the same cases, got {sizes}.")
        usable = ~(np.isnan(x) | np.isnan(y))
        x, y = x[usable], y[usable]
        names = [name for name, use in zip(patients, usable) if use]
        return cls((y - x) / _scale(x, voxel), pd.factorize(np.array(names, object))[0], DEFAULT_ALPHA, bounds, voxel)

    @property
    def n_patients(self) -> int:
        """How many patients it was learned from."""
        return int(self.patient.max()) + 1 if len(self.patient) else 0

    @property
    def why_no_interval(self) -> str:
        """Why there is no interval, in words; empty if there is."""
        needed = patients_needed(self.alpha)
        if self.n_patients >= needed:
            return ""
        level = f"{100 * (1 - self.alpha):g} %"
        return f"{self.n_patients} patients tell of it, an interval of {level} needs {needed}"

    @cached_property
    def _ends(self) -> np.ndarray:
        """(2,) ends of the interval of a new difference, from those that each case allows, its patient left out."""
        counts = np.bincount(self.patient)
        means = np.bincount(self.patient, self.difference) / counts
        others = ((means.sum() - means) / (self.n_patients - 1))[self.patient]
        away = np.abs(self.difference - others)
        weight = 1 / counts[self.patient] / (self.n_patients + 1)
        low, high = -quantile(away - others, weight, 1 - self.alpha), quantile(others + away, weight, 1 - self.alpha)
        return np.array([low, high])

    def predict(self, predicted: ArrayLike) -> np.ndarray:
        """Predicted values with their intervals, which need not hold them: the cases may all be off in one direction.

        Args:
            predicted: (...) predicted Dice or volume of each case; NaN for a structure that was not segmented.

        Returns:
            (..., 3) the predicted values and the ends of the intervals. NaN for what is not known: everything where
            ``predicted`` is NaN or nothing was learned, the interval with fewer patients than it needs.
        """
        x = np.asarray(predicted, float)
        result = np.full((*x.shape, 3), math.nan)
        result[..., 0] = x if self.n_patients else math.nan
        if not self.why_no_interval:
            result[..., 1:] = np.clip(x[..., None] + self._ends * _scale(x, self.voxel)[..., None], *self.bounds)
        return result


def predict_parts(
    predicted: np.ndarray, true: np.ndarray, patients: Sequence[Hashable], parts: Sequence[Hashable], **options
) -> np.ndarray:
    """Intervals of each case by what the cases of other parts teach.

    Args:
        predicted: (n,) predicted values, NaN where undefined.
        true: (n,) true ones.
        patients: To whom each case belongs.
        parts: Part of each case; a patient's cases lie in one part.
        **options: Of :meth:`StructureEstimate.fit`.

    Returns:
        (n, 3) as :meth:`StructureEstimate.predict` gives them.
    """
    result = np.empty((len(predicted), 3))
    for part in set(parts):
        here = np.array([other == part for other in parts])
        names = [name for name, inside in zip(patients, here) if not inside]
        result[here] = StructureEstimate.fit(predicted[~here], true[~here], names, **options).predict(predicted[here])
    return result


@dataclass(frozen=True)
class Coverage:
    """How many of ``n`` true values lie in their intervals.

    Attributes:
        share: The share; NaN where n is 0.
        low: Lower end of its 95 % interval (Clopper and Pearson 1934), as if cases were independent: with several
            cases a patient it is somewhat too narrow.
        high: Upper end.
        n: Cases with a true value and an interval.
    """

    share: Share
    low: Share
    high: Share
    n: NonNegativeInt


def coverage(low: Values, high: Values, true: Values) -> Coverage:
    """Share of the true values that lie in their intervals, ends included."""
    from scipy.stats import binomtest

    low, high, true = defined(low, high, true)
    if not len(true):
        return Coverage(math.nan, math.nan, math.nan, 0)
    inside = int(np.count_nonzero((low <= true) & (true <= high)))
    interval = binomtest(inside, len(true)).proportion_ci(0.95, method="exact")
    return Coverage(inside / len(true), float(interval.low), float(interval.high), len(true))


def defined(*columns: Values) -> list[np.ndarray]:
    """The rows in which nothing is NaN; ValueError if the columns differ in length."""
    arrays = [np.asarray(column, dtype=float) for column in columns]
    if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 1:
        raise ValueError(f"one value per case is needed, of the same cases; got {[a.shape for a in arrays]}.")
    keep = ~np.any(np.isnan(arrays), axis=0)
    return [array[keep] for array in arrays]


def _scale(predicted: np.ndarray, voxel: float | None) -> np.ndarray:
    """What errors are relative to."""
    return np.ones_like(predicted) if voxel is None else np.maximum(predicted, 0) + voxel


def quantile(values: np.ndarray, weight: np.ndarray, level: float) -> float:
    """The smallest value with at least ``level`` of the mass up to it; what the weights leave of 1 lies at infinity."""
    order = np.argsort(values)
    reached = np.cumsum(weight[order]) >= level - 1e-9
    return float(values[order][reached.argmax()]) if reached.any() else math.inf
