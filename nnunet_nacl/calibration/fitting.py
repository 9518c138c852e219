"""Fits maps: Newton's method on the mean loss of the cases, with a ridge towards a centre."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.calibration.case_voxels import Voxels, structures_there
from nnunet_nacl.calibration.likelihood import AffineProblem, LabelProblem, Terms
from nnunet_nacl.calibration.log_odds import probabilities
from nnunet_nacl.calibration.log_odds_map import LogOddsMap, coefficient_rows

AFFINE_FORMS = ("temperature", "shift")
"""One slope; one slope and an offset per structure: the same for every label, so that they fit into a checkpoint."""

FORMS = (*AFFINE_FORMS, "conditional")
"""Then, for each label that the network chose, what :func:`fit_conditional` leaves free."""

RIDGE = 1e-6
"""Weight of ((t - 1)^2 + b^2) / 2 of affine forms beside the mean loss in nats: separable classes would diverge."""

SMALLEST_SLOPE = 0.01
LIKELY, OFTEN = 0.01, 0.001
"""A structure matters at a label where its probability is above the first in at least this share of the voxels."""
MOST_CROSSED = 6
"""Structures whose log-odds act on each other at a label: their number enters squared."""

_ENOUGH = 1e-8  # Newton decrement in nats before the last step; its square is of the order of that after it
_MOST_STEPS = 100


@dataclass(frozen=True)
class Fit:
    """A fitted map.

    Attributes:
        map: The map.
        standard_errors: Of the map's coefficients, in their shape, over cases (sandwich estimate; cases of a group as
            one draw); NaN with one group, and where they were not asked for.
        changes: By label and region, the changes of the centre's coefficients (of affine forms at 0 and None): where a
            next fit may begin.
    """

    map: LogOddsMap
    standard_errors: np.ndarray
    changes: dict[tuple[int, int | None], np.ndarray]

    @classmethod
    def of(cls, calibration: LogOddsMap) -> Fit:
        """A map that is given: its standard errors are not known."""
        return cls(calibration, np.broadcast_to(np.nan, calibration.coefficients().shape), {})


def fit_affine(
    cases: Sequence[Voxels],
    form: str,
    *,
    groups: Sequence[Hashable] | None = None,
    start: Fit | None = None,
    with_errors: bool = True,
) -> Fit:
    """Fit a map that is the same for every label, every case weighing the same.

    The offset of a structure that no truth has stays 0.

    Args:
        cases: To fit to.
        form: One of ``AFFINE_FORMS``.
        groups: Group of each case (a patient), for the standard errors; None: each its own.
        start: A fit of this form to begin at.
        with_errors: Estimate the standard errors; else they are NaN.

    Raises:
        ValueError: The form is another, or there is no case.
    """
    if form not in AFFINE_FORMS or not cases:
        raise ValueError(f"form must be one of {', '.join(AFFINE_FORMS)}, of at least one case, got {form!r}.")
    problem = AffineProblem(cases, form == "shift", SMALLEST_SLOPE)
    begin = np.zeros(len(problem.start)) if start is None else start.changes[0, None]
    change, hessian = minimise(problem.terms, begin, problem.lowest, RIDGE)
    variances = np.full(len(change), np.nan)
    if with_errors:
        single = np.array([problem.terms(change, [i]).gradient for i in range(len(cases))])
        variances = np.diag(_sandwich(hessian, single, groups))
    errors = np.sqrt(variances)
    tables = []
    for slope, shift in ((1 + change[0], change[1:]), (errors[0], errors[1:])):
        offsets = shift if problem.offsets else np.zeros(problem.num)
        tables.append((np.full((1, problem.num), slope), offsets[None]))
    calibration = LogOddsMap(*tables[0], cases[0].regions)
    rows = coefficient_rows(*tables[1], cases[0].regions)
    return Fit(calibration, np.broadcast_to(rows, calibration.coefficients().shape), {(0, None): change})


def fit_conditional(
    cases: Sequence[Voxels],
    centre: Fit,
    ridge: float,
    groups: Sequence[Hashable] | None = None,
    start: Fit | None = None,
    *,
    with_errors: bool = True,
) -> Fit:
    """Fit a map by label, every case weighing the same: minus log likelihood + ridge / 2 |coefficients - centre's|^2.

    At the voxels of label c each structure that matters there (``LIKELY``, ``OFTEN``) has a slope a_ckk, g_ck and b_ck
    of its own; the ``MOST_CROSSED`` with the largest mean probability act on each other by a_ckj. All else stays as the
    centre has it, and so do labels that no case has, and structures that no truth has: cases without them do not tell
    how probable they are where they can be. The labels are problems of their own, so the time grows with what
    matters at each. Of a region, in or out: a_cr, g_cr and b_cr, with the ridge on the coefficients of log p and
    -log(1 - p), which are a and a + g.

    Args:
        cases: To fit to.
        centre: Map, and standard errors of what stays as it has it.
        ridge: Weight of the squared distance, beside the mean loss in nats.
        groups: Group of each case (a patient), for the standard errors; None: each its own.
        start: A fit to begin at.
        with_errors: Estimate the standard errors; else they are NaN.

    Raises:
        ValueError: There is no case.
    """
    if not cases:
        raise ValueError("there is no case to fit to.")
    regions, rows = cases[0].regions, centre.map.coefficients()
    variances, changes = centre.standard_errors**2, {}
    there = structures_there(cases)
    for label, region in sorted(set().union(*(case.by_label for case in cases))):
        place = region if regions else None
        share, mean = shares_above(cases, label, place, LIKELY)
        matter = np.flatnonzero((share >= OFTEN) & (there[region] if regions else there)).tolist()
        if not matter:
            continue
        crossed = sorted(matter, key=lambda k: -mean[k])[:MOST_CROSSED]
        problem = LabelProblem(cases, label, place, centre.map, matter, crossed, SMALLEST_SLOPE)
        near = problem.start if start is None else start.changes.get((label, place), problem.start)
        begin = np.maximum(near, problem.lowest) if len(near) == len(problem.start) else problem.start
        change, hessian = minimise(problem.terms, begin, problem.lowest, ridge)
        covariance = _sandwich(hessian, problem.gradients(change), groups) if with_errors else np.zeros_like(hessian)
        added, own = problem.to_rows(change, covariance)
        columns = [0, 1, 2] if regions else [*matter, -2, -1]
        for structure, more, variance in zip([region] if regions else matter, added, own):
            rows[label, structure, columns] += more
            variances[label, structure, columns] = variance
        changes[label, place] = change
    errors = np.sqrt(variances) if with_errors else np.broadcast_to(np.nan, rows.shape)
    return Fit(LogOddsMap(rows[..., :-1], rows[..., -1], regions), errors, changes)


def minimise(
    terms: Callable[[np.ndarray], Terms], start: np.ndarray, lowest: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where a convex loss plus ridge / 2 |x|^2 is smallest: Newton steps, halved where they overshoot.

    Args:
        terms: Loss, gradient and Hessian at x.
        start: (q,) not below ``lowest``.
        lowest: (q,) lower bounds, at most 0.
        ridge: Above 0 unless the Hessian is regular.

    Returns:
        (q,) x, and the (q, q) Hessian a last step before it, the ridge's included.

    Raises:
        ValueError: It did not settle.
    """
    point, now = start, terms(start)
    for _ in range(_MOST_STEPS):
        hessian, gradient = now.hessian + ridge * np.eye(len(point)), now.gradient + ridge * point
        step = _bounded_step(gradient, hessian, point <= lowest)
        if -gradient @ step < _ENOUGH:
            return np.maximum(point + step, lowest), hessian
        before, length = now.loss + ridge * float(point @ point) / 2, 1.0
        while length > 1e-10:
            proposal = point + length * step
            # what rounding left just above its bound would stop all others there
            proposal = np.where(proposal < lowest + 1e-8, lowest, proposal)
            now = terms(proposal)
            gain = max(0.0, float(gradient @ (point - proposal)))
            if now.loss + ridge * float(proposal @ proposal) / 2 <= before - 1e-4 * gain + 1e-15:
                break
            length /= 2
        else:
            return point, hessian
        point = proposal
    raise ValueError(f"the fit did not settle in {_MOST_STEPS} steps; check the probabilities.")


def _bounded_step(gradient: np.ndarray, hessian: np.ndarray, at_bound: np.ndarray) -> np.ndarray:
    """Newton's step; what is at its bound stays there where the step would go through."""
    free = ~(at_bound & (gradient > 0))
    while True:  # the others' steps may push through its bound what by itself would leave it
        step = np.zeros(len(gradient))
        step[free] = -np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        if not (through := at_bound & (step < 0)).any():
            return step
        free &= ~through


def _sandwich(hessian: np.ndarray, single: np.ndarray, groups: Sequence[Hashable] | None) -> np.ndarray:
    """(q, q) covariance of a minimum, by the (n, q) gradients of the cases there."""
    bread = np.linalg.inv(hessian)
    return bread @ covariance_of_mean(single, groups) @ bread


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


def shares_above(
    cases: Sequence[Voxels], label: int, region: int | None, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """How often each structure is probable at the voxels of one label, certain background left out.

    Args:
        cases: Each weighs the same.
        label: The label.
        region: The region, or None for classes.
        threshold: A probability.

    Returns:
        (m,) share of the voxels where each structure's probability is above the threshold, and (m,) its mean
        probability; (1,) of a region. Zeros without a voxel.
    """
    share, mean, total = np.zeros(1), np.zeros(1), 0.0
    for case in cases:
        if (own := case.by_label.get((label, region or 0))) is not None:
            probs = probabilities(own.odds, False)[1:]
            share = share + ((probs > threshold).double() @ own.weights).numpy()
            mean = mean + (probs @ own.weights).numpy()
            total += float(own.weights.sum())
    return share / (total or 1), mean / (total or 1)
