"""Fits maps: Newton's method on the mean loss of the cases, in passes over cases that need not fit into memory.

Several fits (all cases; all but one part, for cross-fitting) share each pass, so every case is read once a pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.likelihood import Terms, Voxels, case_terms

__all__ = ["FORMS", "RIDGE", "SMALLEST_SLOPE", "Fit", "covariance_of_mean", "design", "fit"]

FORMS = ("temperature", "shift", "logodds")
"""One slope; one slope and an offset per structure; a slope and an offset per structure. Each holds the one before."""

RIDGE = 1e-6
"""Weight of ((a - 1)^2 + b^2) / 2 beside the mean loss in nats: separable classes would diverge without it."""

SMALLEST_SLOPE = 0.01
_ENOUGH = 1e-13  # Newton decrement in nats: parameters are then right to about 1e-5
_MOST_PASSES = 100

Cases = Callable[[], Iterable[Voxels]]


@dataclass(frozen=True)
class Fit:
    """A fitted map.

    Attributes:
        map: The map.
        loss: Mean over cases of the mean loss over a case's voxels, in nats; without the ridge.
        standard_errors: (2m,) of slopes and offsets, over cases (sandwich estimate; cases of a group as one draw).
        passes: How often the cases were read.
    """

    map: AffineMap
    loss: float
    standard_errors: np.ndarray
    passes: int

    @property
    def parameters(self) -> np.ndarray:
        """(2m,) slopes, then offsets."""
        return np.concatenate([self.map.slopes, self.map.offsets])


def design(form: str, num: int) -> tuple[np.ndarray, int]:
    """What a form leaves free.

    Args:
        form: One of ``FORMS``.
        num: Number of structures m.

    Returns:
        (2m, q) matrix with (slopes, offsets) = matrix @ free, and how many of the free parameters, the first ones, are
        slopes.

    Raises:
        ValueError: There is no such form.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
    slopes = np.eye(num) if form == "logodds" else np.ones((num, 1))
    offsets = np.eye(num)[:, : 0 if form == "temperature" else num]
    return block_diag(slopes, offsets), slopes.shape[1]


def fit(
    cases: Cases,
    form: str,
    *,
    left_out: Sequence[np.ndarray | None] = (None,),
    starts: Sequence[AffineMap | None] | None = None,
    groups: Sequence[Hashable] | None = None,
    ridge: float = RIDGE,
) -> list[Fit]:
    """Fit one map for each set of cases, every case of a set weighing the same.

    Args:
        cases: Gives the cases anew for each pass, in the same order.
        form: One of ``FORMS``.
        left_out: For each fit a boolean mask of the cases that it must not see; None for none.
        starts: Where each begins; one that is near saves passes.
        groups: Group of each case (a patient), for the standard errors; None: each its own.
        ridge: See :data:`RIDGE`.

    Returns:
        A fit for each entry of ``left_out``.

    Raises:
        ValueError: The form is unknown, or a fit sees no case.
    """
    runs: list[_Newton] = []
    for passes in range(1, _MOST_PASSES + 1):
        for index, voxels in enumerate(cases()):
            if not runs:
                shape, begins = design(form, len(voxels.log_odds)), starts or [None] * len(left_out)
                runs = [_Newton(shape, skipped, start, ridge) for skipped, start in zip(left_out, begins)]
            terms: dict[bytes, Terms] = {}  # fits that begin at one point share the first pass
            for run in runs:
                run.see(index, voxels, terms)
        if not runs:
            raise ValueError("there is no case to fit to.")
        for run in runs:
            run.end_pass()
        if all(run.done for run in runs):
            return [run.result(voxels.regions, groups, passes) for run in runs]
    raise ValueError(f"the fit did not settle in {_MOST_PASSES} passes; check the probabilities.")


class _Newton:
    """One fit: where it is, what it proposes, and the sums of the pass that judges the proposal."""

    def __init__(
        self, shape: tuple[np.ndarray, int], left_out: np.ndarray | None, start: AffineMap | None, ridge: float
    ) -> None:
        self._matrix, self._num_slopes = shape
        free = self._matrix.shape[1]
        self._centre = (np.arange(free) < self._num_slopes).astype(np.float64)
        self._left_out, self._ridge = left_out, ridge
        self._proposal = self._centre
        if start is not None:
            self._proposal = np.linalg.lstsq(self._matrix, np.append(start.slopes, start.offsets), rcond=None)[0]
        self._point: np.ndarray | None = None
        self._objective, self._length, self._decrement, self._step = math.inf, 1.0, 0.0, np.zeros(free)
        self.done = False
        self._seen: list[tuple[int, Terms]] = []

    def see(self, index: int, voxels: Voxels, known: dict[bytes, Terms]) -> None:
        if self.done or (self._left_out is not None and self._left_out[index]):
            return
        place = self._proposal.tobytes()
        if place not in known:
            known[place] = case_terms(voxels, self._matrix @ self._proposal)
        self._seen.append((index, known[place]))

    def end_pass(self) -> None:
        """Take the proposal if it is better, and propose the next; else propose half the step."""
        if self.done:
            return
        seen, self._seen = self._seen, []
        if not seen:
            raise ValueError("every case is left out of a fit.")
        away = self._proposal - self._centre
        loss = float(np.mean([terms.loss for _, terms in seen]))
        objective = loss + self._ridge * float(away @ away) / 2
        if self._point is not None and not objective <= self._objective - 1e-4 * self._length * self._decrement + 1e-15:
            self._length /= 2
            self._proposal = self._point + self._length * self._step
            self.done = self._length < 1e-10
            return
        self._point, self._objective, self.loss = self._proposal, objective, loss
        self._gradients = np.array([terms.gradient for _, terms in seen]) @ self._matrix
        self._indices = [index for index, _ in seen]
        hessian = self._matrix.T @ np.mean([terms.hessian for _, terms in seen], axis=0) @ self._matrix
        self._hessian = hessian = hessian + self._ridge * np.eye(len(away))
        gradient = self._gradients.mean(0) + self._ridge * away
        slope = self._centre > 0
        at_bound = slope & (self._point <= SMALLEST_SLOPE)
        free = ~(at_bound & (gradient > 0))
        while True:  # the others' steps may push a slope through its bound that by itself would leave it
            self._step = np.zeros(len(away))
            self._step[free] = -np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
            if not (through := at_bound & (self._step < 0)).any():
                break
            free &= ~through
        self._decrement = float(-gradient @ self._step)
        self._length = 1.0
        for i in np.flatnonzero(slope & (self._step < 0)):  # stop at the smallest slope
            self._length = min(self._length, (SMALLEST_SLOPE - self._point[i]) / self._step[i])
        self._proposal = self._point + self._length * self._step
        self._proposal[slope] = np.maximum(self._proposal[slope], SMALLEST_SLOPE)
        self.done = self._decrement < _ENOUGH

    def result(self, regions: bool, groups: Sequence[Hashable] | None, passes: int) -> Fit:
        full = self._matrix @ self._point
        bread = self._matrix @ np.linalg.inv(self._hessian)
        meat = covariance_of_mean(self._gradients, None if groups is None else np.asarray(groups)[self._indices])
        errors = np.sqrt(np.diag(bread @ meat @ bread.T))
        slopes, offsets = np.split(full, 2)
        return Fit(AffineMap(slopes, offsets, regions), self.loss, errors, passes)


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
