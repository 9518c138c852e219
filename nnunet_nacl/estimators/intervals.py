"""Intervals of the true Dice and volume of a structure around the predicted ones.

Predicted Dice is the expectation under the calibrated probabilities (the Soft Dice Confidence of
Borges et al., 2024, arXiv 2402.10665), predicted volume their sum. How far both are off is alike
from case to case, and is learned from cases that the network did not train on. Errors of volumes
are taken relative to the predicted volume plus one voxel.

Intervals are jackknife+ (Barber et al., Annals of Statistics 49, 2021) with patients in the place
of cases. A mean error that is not 0 shifts the interval; the prediction stays what the
probabilities say. For a new patient like those before, an interval of level 1 - alpha typically
contains the true value with a probability of 1 - alpha. The proof (at least 1 - 2 alpha) is for
predictions that are given; these follow from calibration maps, those of the other cases from maps
that were fitted with that patient, so what the intervals contain is known by trial.
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
from pydantic import NonNegativeInt

from nnunet_nacl.estimators.risk_control import patients_needed
from nnunet_nacl.metrics.groups import assign_cross_fit_folds, predict_out_of_fold
from nnunet_nacl.utilities.json_types import Array, Patients, Share, Size

DEFAULT_ALPHA = 0.1
"""Intervals have the level 1 - alpha."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StructureEstimate:
    """How far the true value of one structure (Dice, or a volume) lies from the predicted one.

    Attributes:
        difference: (n,) true minus predicted value of each case; relative to the predicted one if
            ``voxel`` is given.
        patient: (n,) which patient a case belongs to, numbers from 0.
        voxel: Of volumes, that of a voxel: errors are relative to the predicted volume plus this.
            None of Dice.
    """

    difference: Annotated[np.ndarray, Array(np.float64)]
    patient: Patients
    voxel: float | None = None

    def __post_init__(self) -> None:
        if self.voxel is not None and not 0 < self.voxel < math.inf:
            raise ValueError(f"voxel must be a volume, got {self.voxel!r}.")
        if len(self.patient) != len(self.difference):
            raise ValueError("its lists do not belong together")

    @classmethod
    def fit(
        cls,
        predicted: ArrayLike,
        true: ArrayLike,
        patients: Sequence[Hashable],
        voxel_volume: float | None = None,
    ) -> StructureEstimate:
        """Learn from held-out cases.

        Args:
            predicted: (n,) predicted Dice, or volumes if ``voxel_volume`` is given. A case is left
                out where this or its true value is NaN.
            true: (n,) true values.
            patients: To whom each case belongs.
            voxel_volume: Of a voxel; None: the values are Dice.
        """
        predicted_value = np.asarray(predicted, float)
        true_value = np.asarray(true, float)
        is_known = ~np.isnan(predicted_value + true_value)
        difference = (true_value - predicted_value)[is_known]
        scale = _scale_of_errors(predicted_value[is_known], voxel_volume)
        owners = pd.Series(list(patients), dtype=object)[is_known]
        return cls(
            difference=difference / scale, patient=pd.factorize(owners)[0], voxel=voxel_volume
        )

    @property
    def n_patients(self) -> int:
        """How many patients it was learned from."""
        return int(self.patient.max()) + 1 if len(self.patient) else 0

    @property
    def why_no_interval(self) -> str:
        """Why there is no interval, in words; empty if there is."""
        needed = patients_needed(DEFAULT_ALPHA)
        if self.n_patients >= needed:
            return ""
        return (
            f"{self.n_patients} patients tell of it, an interval of {100 * (1 - DEFAULT_ALPHA):g} %"
            f" needs {needed}"
        )

    @cached_property
    def _ends_of_difference(self) -> np.ndarray:
        """(2,) ends of the interval of a new case's difference, by jackknife+.

        Each case allows a low and a high end: the mean difference of the other patients, less and
        plus how far the case itself is from that. The ends are quantiles of these, in which every
        patient weighs the same; the new one, as one of them, may lie at infinity.
        """
        cases_by_patient = np.bincount(self.patient)
        mean_by_patient = np.bincount(self.patient, self.difference) / cases_by_patient
        mean_of_others = (mean_by_patient.sum() - mean_by_patient) / (self.n_patients - 1)
        expected = mean_of_others[self.patient]
        deviation = np.abs(self.difference - expected)
        weight = 1 / cases_by_patient[self.patient] / (self.n_patients + 1)
        level = 1 - DEFAULT_ALPHA
        # A low end, expected - deviation, is turned round: its lower quantile is minus the upper
        # quantile of deviation - expected.
        low = -_weighted_quantile(deviation - expected, weight, level)
        high = _weighted_quantile(expected + deviation, weight, level)
        return np.array([low, high])

    def predict(self, predicted: ArrayLike) -> np.ndarray:
        """Predicted values with the ends of their intervals.

        The ends need not hold the predicted value between them: all cases may be off one way.

        Args:
            predicted: (...) predicted Dice or volumes.

        Returns:
            (..., 3) predicted value, low and high end. All are NaN where ``predicted`` is NaN or
            nothing was learned; the ends with too few patients.
        """
        predicted_value = np.asarray(predicted, float)
        prediction = np.full((*predicted_value.shape, 3), math.nan)
        if self.n_patients:
            prediction[..., 0] = predicted_value
        if not self.why_no_interval:
            scale = _scale_of_errors(predicted_value, self.voxel)
            ends = predicted_value[..., None] + self._ends_of_difference * scale[..., None]
            largest = 1 if self.voxel is None else math.inf
            prediction[..., 1:] = np.clip(ends, 0, largest)
        return prediction


def _scale_of_errors(predicted: np.ndarray, voxel_volume: float | None) -> np.ndarray:
    """What errors are relative to: 1 for Dice, the predicted volume plus a voxel for volumes."""
    if voxel_volume is None:
        return np.ones_like(predicted)
    return np.maximum(predicted, 0) + voxel_volume


def _weighted_quantile(values: np.ndarray, weight: np.ndarray, level: float) -> float:
    """The smallest value with at least ``level`` of the mass up to it.

    What the weights leave of 1 lies at infinity.
    """
    order = np.argsort(values)
    is_reached = np.cumsum(weight[order]) >= level - 1e-9
    if not is_reached.any():
        return math.inf
    return float(values[order][is_reached.argmax()])


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Share of ``n`` true values in their intervals; NaN of none.

    ``low`` and ``high`` are the ends of its 95 % interval (Clopper and Pearson 1934). It takes
    values for independent: it is too narrow where a patient has several.
    """

    share: Share
    low: Share
    high: Share
    n: NonNegativeInt


def coverage(low: ArrayLike, high: ArrayLike, true: ArrayLike) -> Coverage:
    """Share of the true values that lie in their intervals, ends included.

    All are (n,); where one is NaN the case is left out.
    """
    from scipy.stats import binomtest

    values = np.array([low, high, true], float)
    is_known = ~np.isnan(values).any(axis=0)
    known_low, known_high, known_true = values[:, is_known]
    n = len(known_true)
    if not n:
        return Coverage(share=math.nan, low=math.nan, high=math.nan, n=0)
    is_inside = (known_low <= known_true) & (known_true <= known_high)
    num_inside = int(np.count_nonzero(is_inside))
    interval = binomtest(num_inside, n).proportion_ci(0.95, method="exact")
    return Coverage(share=num_inside / n, low=float(interval.low), high=float(interval.high), n=n)


@dataclass(frozen=True, kw_only=True)
class EstimateCheck:
    """How an estimate does on ``n`` cases that it has not seen, with a predicted and a true value.

    ``error`` is the mean absolute one, beside that of the mean of the other patients, ``width`` the
    mean one of the intervals, NaN without them.
    """

    error: Size
    error_of_constant: Size
    coverage: Coverage
    width: Size
    n: NonNegativeInt

    @property
    def is_no_better(self) -> bool:
        """Whether the mean of the other patients is as close to the true values; False where that
        is not known."""
        return self.error >= self.error_of_constant


def check_estimate(
    predicted: ArrayLike,
    true: ArrayLike,
    patients: Sequence[Hashable],
    voxel_volume: float | None = None,
) -> EstimateCheck:
    """Predict each case by what the cases of other patients teach.

    Arguments are those of :meth:`StructureEstimate.fit`. Folds are dealt anew, over the patients
    whose values are known, so that each fold has some of them. Errors are NaN with fewer than two
    patients.
    """
    cases = pd.DataFrame(
        {"predicted": np.asarray(predicted, float), "true": np.asarray(true, float)}
    )
    cases["patient"] = [str(patient) for patient in patients]
    cases = cases.dropna()
    true_value = cases.true.to_numpy()
    if cases.patient.nunique() < 2:
        return EstimateCheck(
            error=math.nan,
            error_of_constant=math.nan,
            coverage=coverage([], [], []),
            width=math.nan,
            n=len(cases),
        )

    folds = assign_cross_fit_folds(list(cases.patient))
    prediction = predict_intervals_out_of_fold(
        cases.predicted, true_value, cases.patient, folds, voxel_volume
    )
    predicted_value, low, high = prediction.T
    weight = 1 / cases.patient.map(cases.patient.value_counts()).to_numpy()

    def predict_mean(others: np.ndarray, left_out: np.ndarray) -> np.ndarray:
        mean = np.average(true_value[others], weights=weight[others])
        return np.full(left_out.sum(), mean)

    constant = predict_out_of_fold(folds, predict_mean)
    return EstimateCheck(
        error=float(np.mean(np.abs(predicted_value - true_value))),
        error_of_constant=float(np.mean(np.abs(constant - true_value))),
        coverage=coverage(low, high, true_value),
        width=float(np.mean(high - low)),
        n=len(cases),
    )


def predict_intervals_out_of_fold(
    predicted: ArrayLike,
    true: ArrayLike,
    patients: Sequence[Hashable] | pd.Series,
    folds: Sequence[Hashable],
    voxel_volume: float | None = None,
) -> np.ndarray:
    """Each case by what the cases of the other folds teach.

    Args:
        predicted: (n,) predicted values, as of :meth:`StructureEstimate.fit`.
        true: (n,) true values.
        patients: To whom each case belongs.
        folds: Fold of each case.
        voxel_volume: Of a voxel; None: the values are Dice.

    Returns:
        (n, 3) as of :meth:`StructureEstimate.predict`.
    """
    predicted_value = np.asarray(predicted, float)
    true_value = np.asarray(true, float)
    owner = np.array(patients, object)

    def predict(others: np.ndarray, left_out: np.ndarray) -> np.ndarray:
        estimate = StructureEstimate.fit(
            predicted_value[others], true_value[others], owner[others].tolist(), voxel_volume
        )
        return estimate.predict(predicted_value[left_out])

    return predict_out_of_fold(folds, predict)
