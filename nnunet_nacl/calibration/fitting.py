"""Fits maps: Newton's method on the mean loss of the cases."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.likelihood import Voxels, case_loss, case_terms, pool

AFFINE_FORMS = ("temperature", "shift")
"""One slope; one slope and an offset per structure: the same for every label, so that they fit into a checkpoint."""

FORMS = (*AFFINE_FORMS, "conditional", "matrix")
"""Then a slope and an offset per structure and chosen label; and for each label a matrix, in which the log-odds of all
structures, and -log p of the background, act on each. Each form holds the one before."""

MOST_FOR_MATRIX = 6
"""Structures up to which matrices are fitted: the time grows with the fourth power of their number."""

RIDGE = 1e-6
"""Weight of ((a - 1)^2 + b^2) / 2 beside the mean loss in nats: separable classes would diverge without it."""

SMALLEST_SLOPE = 0.01
_ENOUGH = 1e-12  # Newton decrement in nats
_MOST_STEPS = 100


@dataclass(frozen=True)
class Fit:
    """A fitted map.

    Attributes:
        map: The map.
        loss: Mean over cases of the mean loss over a case's voxels, in nats; without the ridge.
        standard_errors: Of slopes and of offsets, over cases (sandwich estimate; cases of a group as one draw).
        fell_back: Labels whose row (or part of it: that of a region) is that of a poorer form, since too few have them.
    """

    map: CalibrationMap
    loss: float
    standard_errors: tuple[np.ndarray, np.ndarray]
    fell_back: tuple[int, ...] = ()

    def with_rows_of(self, poorer: Fit, places: np.ndarray, cases: Sequence[Voxels]) -> Fit:
        """The same with some slopes and offsets as a poorer form has them.

        Args:
            poorer: Of an affine form.
            places: (P, m) which ones.
            cases: That both were fitted to.
        """
        if self.map.is_affine or not places.any():
            return self

        def mixed(own: np.ndarray, other: np.ndarray) -> np.ndarray:
            if own.ndim == 2:
                return np.where(places, other, own)
            return np.where(places[:, :, None], other[:, :, None] * np.eye(*own.shape[1:]), own)

        found = CalibrationMap(
            mixed(self.map.slopes, poorer.map.slopes), mixed(self.map.offsets, poorer.map.offsets), self.map.regions
        )
        errors = mixed(self.standard_errors[0], poorer.standard_errors[0])
        return Fit(
            found,
            float(np.mean([case_loss(voxels, found.slopes, found.offsets) for voxels in cases])),
            (errors, mixed(self.standard_errors[1], poorer.standard_errors[1])),
            tuple(np.flatnonzero(places.any(1)).tolist()),
        )


class _Parameters:
    """What a form leaves free of a map, as a vector.

    Attributes:
        matrix: (P q, f) all slopes and offsets, label after label, are matrix @ free.
        centre: (f,) of the identity.
        bounded: (f,) which are slopes of a structure's own log-odds.
    """

    def __init__(self, form: str, num: int, num_labels: int, regions: bool) -> None:
        if form not in FORMS or (form == "matrix" and regions):
            raise ValueError(f"form must be one of {', '.join(FORMS)}, and not matrix for regions, got {form!r}.")
        self.num, self.num_labels, self.full = num, num_labels, form == "matrix"
        slopes = np.eye(num, num + 1).ravel() if self.full else np.ones(num)
        identity = np.tile(np.concatenate([slopes, np.zeros(num)]), num_labels)
        if form in AFFINE_FORMS:
            offsets = np.eye(num)[:, : 0 if form == "temperature" else num]
            self.matrix = np.tile(block_diag(np.ones((num, 1)), offsets), (num_labels, 1))
        else:
            self.matrix = np.eye(len(identity))
        self.bounded = (self.matrix[identity == 1] != 0).any(axis=0)
        self.centre = self.bounded.astype(np.float64)

    def tables(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slopes (P, m) or (P, m, m + 1) and offsets (P, m)."""
        return self.split((self.matrix @ free).reshape(self.num_labels, -1))

    def split(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of (P, q)."""
        slopes, offsets = rows[:, : -self.num], rows[:, -self.num :]
        return (slopes.reshape(-1, self.num, self.num + 1) if self.full else slopes), offsets

    def of(self, found: CalibrationMap) -> np.ndarray:
        """(f,) that come nearest to a map."""
        slopes, offsets = found.tables()
        if self.full and slopes.ndim == 2:
            slopes = slopes[:, :, None] * np.eye(self.num, self.num + 1)
        rows = np.concatenate([slopes.reshape(self.num_labels, -1), offsets], 1)
        return np.linalg.lstsq(self.matrix, rows.ravel(), rcond=None)[0]

    def reduced(self, hessian: np.ndarray) -> np.ndarray:
        """(f, f) Hessian of the free parameters, from the (P, q, q) blocks of the labels."""
        rows = self.matrix.reshape(len(hessian), -1, self.matrix.shape[1])
        return np.asarray(sum(part.T @ block @ part for part, block in zip(rows, hessian)))


def fit(
    cases: Sequence[Voxels],
    form: str,
    *,
    start: CalibrationMap | None = None,
    groups: Sequence[Hashable] | None = None,
    ridge: float = RIDGE,
    with_errors: bool = True,
) -> Fit:
    """Fit one map, every case weighing the same.

    The objective is convex: Newton steps, halved where they overshoot, with slopes held at ``SMALLEST_SLOPE`` or above.

    Args:
        cases: To fit to.
        form: One of ``FORMS``.
        start: Where it begins; one that is near saves steps.
        groups: Group of each case (a patient), for the standard errors; None: each its own.
        ridge: See :data:`RIDGE`; it pulls towards the identity.
        with_errors: Estimate the standard errors, which takes as long as a step; else they are NaN.

    Raises:
        ValueError: The form is unknown, or there is no case.
    """
    if not cases:
        raise ValueError("there is no case to fit to.")
    regions = cases[0].regions
    free = _Parameters(form, len(cases[0].log_odds), cases[0].num_labels, regions)
    point, pooled = free.centre if start is None else free.of(start), pool(cases)

    def penalty(point: np.ndarray) -> float:
        return ridge * float((point - free.centre) @ (point - free.centre)) / 2

    terms = case_terms(pooled, *free.tables(point))
    for _ in range(_MOST_STEPS):
        hessian = free.reduced(terms.hessian) + ridge * np.eye(len(point))
        gradient = terms.gradient.ravel() @ free.matrix + ridge * (point - free.centre)
        step = _bounded_step(gradient, hessian, free.bounded & (point <= SMALLEST_SLOPE))
        if -gradient @ step < _ENOUGH:
            break
        before, length = terms.loss + penalty(point), 1.0
        while length > 1e-10:
            proposal = point + length * step
            # a slope that rounding left just above its bound would stop all others there
            proposal[free.bounded & (proposal < SMALLEST_SLOPE * (1 + 1e-6))] = SMALLEST_SLOPE
            terms = case_terms(pooled, *free.tables(proposal))
            gain = max(0.0, float(gradient @ (point - proposal)))
            if terms.loss + penalty(proposal) <= before - 1e-4 * gain + 1e-15:
                break
            length /= 2
        else:
            break
        point = proposal
    else:
        raise ValueError(f"the fit did not settle in {_MOST_STEPS} steps; check the probabilities.")
    slopes, offsets = free.tables(point)
    variances = np.full(len(free.matrix), np.nan)
    if with_errors:
        single = np.array([case_terms(one, slopes, offsets, curvature=False).gradient.ravel() for one in cases])
        bread = free.matrix @ np.linalg.inv(hessian)
        covariance = covariance_of_mean(single @ free.matrix, groups)
        variances = np.einsum("ij,jk,ik->i", bread, covariance, bread)
    errors = free.split(np.sqrt(variances).reshape(len(offsets), -1))
    rows = slice(0, 1 if form in AFFINE_FORMS else None)
    found = CalibrationMap(slopes[rows], offsets[rows], regions)
    return Fit(found, case_loss(pooled, slopes, offsets), (errors[0][rows], errors[1][rows]))


def _bounded_step(gradient: np.ndarray, hessian: np.ndarray, at_bound: np.ndarray) -> np.ndarray:
    """Newton's step; a slope at its bound stays there where the step would go through."""
    free = ~(at_bound & (gradient > 0))
    while True:  # the others' steps may push a slope through its bound that by itself would leave it
        step = np.zeros(len(gradient))
        step[free] = -np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        if not (through := at_bound & (step < 0)).any():
            return step
        free &= ~through


def covariance_of_mean(values: np.ndarray, groups: Sequence[Hashable] | np.ndarray | None = None) -> np.ndarray:
    """(q, q) covariance of the mean over cases, estimated from the cases; those of a group are one draw.

    Args:
        values: (n, q) of each case.
        groups: Group of each case (a patient); None: each its own.

    Returns:
        NaN with less than two groups.
    """
    codes = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(codes.max()) + 1
    if count < 2:
        return np.full((values.shape[1],) * 2, np.nan)
    summed = np.zeros((count, values.shape[1]))
    np.add.at(summed, codes, values - values.mean(0))
    return summed.T @ summed / len(values) ** 2 * count / (count - 1)
