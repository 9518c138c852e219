"""What expected Dice says of true Dice: a line learned from cases with ground truth, and an interval about it.

Expected Dice is off, for the voxels of an image err together, and by more the less the probabilities are calibrated.
How it is off is alike from case to case, and so can be learned: from cases that the network did not train on, segmented
as they will be delivered (argmax and decided segmentations have estimates of their own). The same is done for volumes.
The line's slope has a prior around 1, what it would be if expectations were right, so that few cases do not make it up.
Errors of Dice are alike wherever it lies; those of volumes grow with the volume, so lines are fitted to, and intervals
made of, errors relative to the expected volume plus one voxel. (Learning on the logarithm of the volume does as well
where every case has the structure; but a case without it is far away from all others there: in a simulation a third of
such cases made intervals five times as wide, and estimates of large volumes three times as wrong.)

Intervals are jackknife+ (Barber et al., Annals of Statistics 49, 2021) with patients in the place of cases: neither
the line nor a residual that a case is judged by has seen any case of its patient, and a patient with several cases
counts as one (Lee, Barber and Willett 2023 treat such hierarchies). For a new patient like those before, an interval of
level 1 - alpha typically holds the true value with a probability of 1 - alpha; of expected values that are given,
jackknife+ is proven to hold it with at least 1 - 2 alpha. Here that proof does not cover the whole way: expected values
follow from calibration maps, and those of the other cases, from which a patient's line is learned, from maps that were
fitted with that patient. Maps have few parameters, so little is shared, but what the intervals hold is known by trial.
"Like those before" is exchangeability: the patients could have come in any order. It breaks with another scanner,
another disease, or another network than the line was learned with, the average of five folds instead of one fold
included.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import astuple, dataclass
from typing import Annotated, Any

import numpy as np

from nnunet_nacl.json_files import Array

DEFAULT_ALPHA = 0.1
_SLOPE_SD = 0.5  # chosen among a few on validation folds of two data sets


@dataclass(frozen=True)
class Prediction:
    """An estimate with its interval; NaN where there is none."""

    estimate: float
    low: float
    high: float


def patients_needed(alpha: float) -> int:
    """Fewest patients with which a jackknife+ interval of level 1 - alpha is finite: 9 for 90 %, 19 for 95 %."""
    return math.ceil(1 / alpha - 1 - 1e-9)


@dataclass(frozen=True, eq=False)
class StructureEstimate:
    """How a true value of one structure (Dice, or a volume) follows from the expected one.

    Attributes:
        line: Slope and intercept, learned from all cases.
        lines_without_patient: (G, 2) those learned without each patient.
        patient: (n,) which patient a case belongs to, an index into ``lines_without_patient``.
        residual: (n,) |true - line without the patient| of each case, in proportion to its expected value where
            ``voxel`` says so.
        alpha: The interval has level 1 - alpha.
        bounds: The least and the greatest value that there can be; NaN, as in a file, is infinite.
        voxel: Volume of a voxel where errors grow with the volume: they are relative to the expected volume plus this.
            None where they are alike everywhere.
        lowest_tenth: A tenth of the patients have no higher predicted value, each predicted by what the others teach;
            NaN where nothing was learned, in files of earlier versions too.

    Raises:
        ValueError: Lists do not belong together, ``alpha`` is not in (0, 1), or ``voxel`` is not positive.
    """

    line: tuple[float, float]
    lines_without_patient: Annotated[np.ndarray, Array(np.float64, 2, nullable=True)]
    patient: Annotated[np.ndarray, Array(np.int64)]
    residual: Annotated[np.ndarray, Array(np.float64, nullable=True)]
    alpha: float = DEFAULT_ALPHA
    bounds: tuple[float, float] = (0.0, 1.0)
    voxel: float | None = None
    lowest_tenth: float = math.nan

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, got {self.alpha!r}.")
        if self.voxel is not None and not 0 < self.voxel < math.inf:
            raise ValueError(f"voxel must be a volume, got {self.voxel!r}.")
        patients = range(len(self.lines_without_patient))
        if len(self.patient) != len(self.residual) or set(self.patient.tolist()) != set(patients):
            raise ValueError("its lists do not belong together")
        bounds = (infinite if math.isnan(b) else b for b, infinite in zip(self.bounds, (-math.inf, math.inf)))
        object.__setattr__(self, "bounds", tuple(bounds))
        object.__setattr__(self, "lines_without_patient", self.lines_without_patient.reshape(len(patients), 2))

    @classmethod
    def fit(
        cls,
        expected: Sequence[float] | np.ndarray,
        true: Sequence[float] | np.ndarray,
        patients: Sequence[Hashable],
        *,
        alpha: float = DEFAULT_ALPHA,
        bounds: tuple[float, float] = (0.0, 1.0),
        voxel: float | None = None,
    ) -> StructureEstimate:
        """Learn from cases; every patient weighs the same.

        Args:
            expected: (n,) expected Dice or volume. NaN, a structure that was not segmented, is left out.
            true: (n,) true Dice (0 where the truth is empty) or volume. NaN is left out.
            patients: (n,) to whom each case belongs; the cases' names where each is a patient of its own.
            alpha: Of the interval, in (0, 1).
            bounds: The least and the greatest possible value.
            voxel: Of volumes, that of a voxel: errors are then relative to the expected volume plus this.

        Raises:
            ValueError: Lengths differ, ``alpha`` is not in (0, 1), or ``voxel`` is not positive.
        """
        x, y = np.asarray(expected, float), np.asarray(true, float)
        if not len(x) == len(y) == len(patients):
            sizes = f"{len(x)}, {len(y)} and {len(patients)}"
            raise ValueError(f"expected, true and patients must be of the same cases, got {sizes}.")
        usable = ~(np.isnan(x) | np.isnan(y))
        x, y = x[usable], y[usable]
        names = [name for name, use in zip(patients, usable) if use]
        number = {name: i for i, name in enumerate(dict.fromkeys(names))}
        patient = np.array([number[name] for name in names], int)
        weight = 1 / np.bincount(patient)[patient] if names else np.zeros(0)
        scale = _scale(x, voxel)
        kept = [patient != i for i in range(len(number))]
        lines = np.array([_fit_line(x[k], y[k], weight[k], scale[k]) for k in kept]).reshape(-1, 2)
        residual, low = np.full(len(names), np.nan), math.nan
        if len(number) > 1:
            predicted = np.clip(_at(lines[patient], x), *bounds)
            residual, low = np.abs(y - _at(lines[patient], x)) / scale, _quantile(predicted, weight / weight.sum(), 0.1)
        return cls(_fit_line(x, y, weight, scale), lines, patient, residual, float(alpha), bounds, voxel, low)

    @property
    def n_patients(self) -> int:
        """How many patients it was learned from."""
        return len(self.lines_without_patient)

    @property
    def why_no_interval(self) -> str:
        """Why there is no interval, in words; empty if there is."""
        needed = patients_needed(self.alpha)
        if self.n_patients >= needed:
            return ""
        level = f"{100 * (1 - self.alpha):g} %"
        return f"{self.n_patients} patients with this structure, an interval of {level} needs {needed}"

    def predict_all(self, expected: Sequence[float] | np.ndarray) -> np.ndarray:
        """(n, 3) what :meth:`predict` gives for each of n expected values."""
        return np.array([astuple(self.predict(float(one))) for one in expected]).reshape(-1, 3)

    def predict(self, expected: float) -> Prediction:
        """The true value that an expected one stands for, within the bounds; the estimate lies in its interval.

        Args:
            expected: Expected Dice or volume of a case; NaN for a structure that was not segmented.

        Returns:
            NaN for what is not known: everything where ``expected`` is NaN or nothing was learned, the interval with
            fewer patients than it needs.
        """
        estimate = float(np.clip(_at(np.array(self.line), expected), *self.bounds))
        if math.isnan(estimate) or self.why_no_interval:
            return Prediction(estimate, math.nan, math.nan)
        centre = _at(self.lines_without_patient[self.patient], expected)
        weight = 1 / np.bincount(self.patient)[self.patient] / (self.n_patients + 1)
        residual = self.residual * _scale(np.array(expected), self.voxel)
        high = _quantile(centre + residual, weight, 1 - self.alpha)
        low = -_quantile(residual - centre, weight, 1 - self.alpha)
        low, high = np.clip([low, high], *self.bounds)
        return Prediction(estimate, float(min(low, estimate)), float(max(high, estimate)))


def predict_parts(
    expected: np.ndarray,
    true: np.ndarray,
    patients: Sequence[Hashable],
    parts: Sequence[Hashable],
    *,
    alpha: float = DEFAULT_ALPHA,
    bounds: tuple[float, float] = (0.0, 1.0),
    voxel: float | None = None,
) -> np.ndarray:
    """Predict each case by what the cases of other parts teach.

    Args:
        expected: (n,) expected values, NaN where undefined.
        true: (n,) true ones.
        patients: To whom each case belongs.
        parts: Part of each case; a patient's cases lie in one part.
        alpha: Intervals of level 1 - alpha.
        bounds: The least and the greatest possible value.
        voxel: Of volumes, that of a voxel, see :meth:`StructureEstimate.fit`.

    Returns:
        (n, 3) estimate and the ends of its interval, as :meth:`StructureEstimate.predict` gives them.
    """
    found = np.empty((len(expected), 3))
    for part in set(parts):
        here = np.array([one == part for one in parts])
        names = [name for name, inside in zip(patients, here) if not inside]
        options: dict[str, Any] = {"alpha": alpha, "bounds": bounds, "voxel": voxel}
        estimate = StructureEstimate.fit(expected[~here], true[~here], names, **options)
        found[here] = estimate.predict_all(expected[here])
    return found


def _scale(expected: np.ndarray, voxel: float | None) -> np.ndarray:
    """What errors are relative to."""
    return np.ones_like(expected) if voxel is None else np.maximum(expected, 0) + voxel


def _fit_line(expected: np.ndarray, true: np.ndarray, weight: np.ndarray, scale: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of weighted least squares of relative errors, the slope with a normal prior of mean 1.

    Were expectations right, the slope would be 1; a few cases, alike as they are, tell little about it. The prior
    weighs as much as the residuals' variance lets it, and nothing where the cases lie on a line. A falling line is
    noise.
    """
    if not len(expected):
        return math.nan, math.nan
    n, slope = weight.sum(), 1.0
    weight = weight / scale**2
    weight *= n / weight.sum()
    x, y = np.average(expected, weights=weight), np.average(true, weights=weight)
    spread, common = (float(np.sum(weight * (expected - x) * d)) for d in (expected - x, true - y))
    if n > 2 + 1e-9 and spread > 1e-12 * max(1, x * x):
        variance = np.sum(weight * (true - y - common / spread * (expected - x)) ** 2) / (n - 2)
        ridge = variance / _SLOPE_SD**2
        slope = max((common + ridge) / (spread + ridge), 0.0)
    return float(slope), float(y - slope * x)


def _at(lines: np.ndarray, expected: float | np.ndarray) -> np.ndarray:
    return lines[..., 0] * expected + lines[..., 1]


def _quantile(values: np.ndarray, weight: np.ndarray, level: float) -> float:
    """The smallest value with at least ``level`` of the mass up to it; what the weights leave of 1 lies at infinity."""
    order = np.argsort(values)
    reached = np.cumsum(weight[order]) >= level - 1e-9
    return float(values[order][reached.argmax()]) if reached.any() else math.inf
