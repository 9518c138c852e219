"""Fits calibration maps by L-BFGS-B: mean negative log likelihood of the cases, with a ridge
towards a prior map.

The voxels where the network chose label c see the coefficients of c alone, A_c: the slopes a_ckj
and g_ck and the offsets b_ck of :mod:`~nnunet_nacl.estimators.log_odds_map`. With u' = A_c f (f
the log-odds u of :mod:`~nnunet_nacl.estimators.log_odds`, v and 1), u'_0 = 0, p = softmax(u') and
y the true class the loss of a voxel is log sum exp u' - u'_y, a convex function of A_c: one
multinomial logistic regression for each label. A region is a problem in two classes, and the loss
is the mean over regions. Of a temperature there is one problem over all voxels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from nnunet_nacl.estimators.log_odds import log_loss, probabilities
from nnunet_nacl.estimators.log_odds_map import LogOddsMap, map_from_tables
from nnunet_nacl.estimators.voxels import (
    LabelVoxels,
    Voxels,
    find_structures_in_truth,
    group_by_label,
)

FORMS = ("temperature", "conditional")
"""One slope for all labels and structures; for each label that the network chose, what
:func:`fit_conditional` leaves free."""
RIDGE = 1e-6
"""Weight of (t - 1)^2 / 2 of a temperature beside the mean loss in nats: separable classes would
diverge."""
SMALLEST_SLOPE = 0.01
LIKELY = 0.01
"""A structure matters at a label where its probability is above this ..."""
OFTEN = 0.001
"""... in at least this share of the voxels."""
MOST_CROSSED = 6
"""Structures whose log-odds act on each other at a label: their number enters squared."""

_BLOCK = 1 << 13  # voxels at a time: they stay in the cache


def fit_temperature(cases: Sequence[Voxels]) -> LogOddsMap:
    """Fits one slope for all labels and structures to the voxels of cases, which have one weight
    each."""
    regions = cases[0].regions
    models = []
    for _, _, voxels in group_by_label(cases):
        # The ones, which nothing depends on, keep a map of the same cases the same bit for bit.
        features = torch.cat([voxels.odds, voxels.features[-1:]])
        base = torch.cat([torch.zeros_like(voxels.odds[:1]), voxels.odds])
        # Logits are base + C f; the change of the slope, parameter 0, is on the diagonal of C.
        index = np.full((len(base), len(features)), -1)
        np.fill_diagonal(index[1:, :-1], 0)
        models.append(LinearLogits(features, base, voxels.target, voxels.weights, index))
    lowest = np.array([SMALLEST_SLOPE - 1])
    slope = 1 + minimise(models, lowest, RIDGE, len(cases))
    num_structures = len(cases[0].log_odds)
    return map_from_tables(slope.repeat(num_structures), np.zeros(num_structures), regions)


def fit_conditional(cases: Sequence[Voxels], prior_map: LogOddsMap, ridge: float) -> LogOddsMap:
    """Fits a map by label: minus log likelihood + ridge / 2 |coefficients - those of the prior
    map|^2.

    All cases have one weight. At the voxels of label c each structure that matters there
    (``LIKELY``, ``OFTEN``) has a slope a_ckk, g_ck and b_ck of its own; the ``MOST_CROSSED`` with
    the largest mean probability act on each other by a_ckj. All other coefficients stay as the
    prior map has them, and so do labels that no case has, and structures that no truth has: cases
    without them do not tell how probable they are where they can be. Of a region, in or out: a_cr,
    g_cr and b_cr, with the ridge on the coefficients of log p and -log(1 - p), which are a and a +
    g.

    Args:
        cases: Voxels of each case.
        prior_map: What the fit is shrunk towards.
        ridge: Strength, beside the mean loss in nats.
    """
    regions = cases[0].regions
    in_truth = find_structures_in_truth(cases)
    coefficients = prior_map.of_every_label()  # a copy, which is changed in place below
    for label, region, voxels in group_by_label(cases):
        # As of classes also for a region, which is here one class against the outside.
        probs = probabilities(voxels.odds, regions=False)[1:]
        weights = voxels.weights / voxels.weights.sum()
        share_of_likely = ((probs > LIKELY).double() @ weights).numpy()
        is_in_truth = in_truth[region] if regions else in_truth
        matters = (share_of_likely >= OFTEN) & is_in_truth
        if not matters.any():
            continue
        if regions:
            _fit_region(coefficients[label, region], voxels, ridge, len(cases))
        else:
            mean_probability = (probs @ weights).numpy()
            is_free = _choose_free(np.flatnonzero(matters), mean_probability)
            _fit_class(coefficients[label], is_free, voxels, ridge, len(cases))
    return LogOddsMap(coefficients, regions)


def _choose_free(structures: np.ndarray, mean_probability: np.ndarray) -> np.ndarray:
    """(m, m + 2) which coefficients of a label are fitted, by the structures that matter there."""
    num_structures = len(mean_probability)
    is_free = np.zeros((num_structures, num_structures + 2), bool)
    is_free[structures, structures] = True
    is_free[structures, -2:] = True
    most_probable_first = structures[np.argsort(-mean_probability[structures], kind="stable")]
    crossed = most_probable_first[:MOST_CROSSED]
    is_free[np.ix_(crossed, crossed)] = True
    return is_free


def _fit_class(
    row: np.ndarray, is_free: np.ndarray, voxels: LabelVoxels, ridge: float, num_cases: int
) -> None:
    """Fits the free ones of the (m, m + 2) coefficients of a label, in place."""
    base = apply_coefficients(row, voxels)
    fitted_structures = np.flatnonzero(is_free.any(1))
    fixed_structures = np.flatnonzero(~is_free.any(1))
    # Structures without a free coefficient share row 0 with the background, by logsumexp, and so do
    # the voxels where they are true. That changes the loss by a constant.
    outside = torch.cat([torch.zeros_like(base[:1]), base[fixed_structures]])
    background = outside.logsumexp(0, keepdim=True)
    columns = [*fitted_structures.tolist(), -2, -1]
    features = voxels.features[columns] if len(fixed_structures) else voxels.features
    row_of_class = torch.zeros(1 + len(base)).long()
    row_of_class[1 + fitted_structures] = torch.arange(1, 1 + len(fitted_structures))
    # Parameters are numbered row by row, the order of `lowest[is_free]` and `row[is_free]`, too.
    index = np.full((1 + len(fitted_structures), len(features)), -1)
    index[1:][is_free[fitted_structures][:, columns]] = np.arange(is_free.sum())
    model = LinearLogits(
        features,
        torch.cat([background, base[fitted_structures]]),
        row_of_class[voxels.target],
        voxels.weights,
        index,
    )
    is_own_slope = np.eye(*is_free.shape) > 0
    # A change of 0, where the fit starts, is allowed even if the prior slope is below the least.
    lowest = np.where(is_own_slope, np.minimum(SMALLEST_SLOPE - row, 0), -np.inf)
    row[is_free] += minimise([model], lowest[is_free], ridge, num_cases)


def _fit_region(row: np.ndarray, voxels: LabelVoxels, ridge: float, num_cases: int) -> None:
    """Fits the (3,) coefficients a, g and b of a region, in or out, in place."""
    base = apply_coefficients(row[None], voxels)
    odds, total, ones = voxels.features
    features = torch.stack([odds - total, total, ones])  # log p, -log(1 - p), 1
    index = np.array([[-1, -1, -1], [0, 1, 2]])
    both = torch.cat([torch.zeros_like(base), base])
    model = LinearLogits(features, both, voxels.target, voxels.weights, index)
    # Of log p the coefficient is a, of -log(1 - p) it is a + g; both stay above 0. As for classes,
    # a change of 0 is allowed.
    lowest = np.append(np.minimum(SMALLEST_SLOPE - np.cumsum(row[:2]), 0), -np.inf)
    change = minimise([model], lowest, ridge, num_cases)
    row += change - [0, change[0], 0]  # a log p - (a + g) log(1 - p) = a u + g v


def case_loss(voxels: Voxels, calibration: LogOddsMap) -> float:
    """Mean negative log likelihood of a case under a map, in nats."""
    loss = voxels.certain_loss
    for (label, region), label_voxels in voxels.by_label.items():
        rows = calibration.of_label(label)
        row_of_region = rows[region : region + 1]
        logits = apply_coefficients(row_of_region if voxels.regions else rows, label_voxels)
        losses = log_loss(torch.zeros_like(logits[0]), logits, label_voxels.target)
        loss += float(losses @ label_voxels.weights)
    return loss


def apply_coefficients(rows: np.ndarray, voxels: LabelVoxels) -> Tensor:
    """(m, n) u' of voxels with one label, by the (m, m + 2) coefficients of that label; (1, n) of a
    region."""
    return torch.from_numpy(rows) @ voxels.features


class LinearLogits:
    """Weighted voxels whose logits are linear in parameters x: u' = base + C f, with C_kj =
    x[index_kj].

    Args:
        features: (q, n) f.
        base: (s, n) logits at x = 0. One row, of zeros or of what no parameter changes, is the
            background's.
        target: (n,) row of the true class.
        weights: (n,) of the voxels.
        index: (s, q) which parameter each coefficient is, -1 where it is 0.
    """

    def __init__(
        self, features: Tensor, base: Tensor, target: Tensor, weights: Tensor, index: np.ndarray
    ) -> None:
        self._features = features
        self._base = base
        self._weights = weights
        self._index = index
        true_weights = torch.zeros_like(base).scatter_(0, target[None], weights[None])
        self._true_sums = true_weights @ features.T
        self._true_base = float((true_weights * base).sum())

    def loss(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Sum over voxels of weight times -log p of the true class, and its gradient, of the shape
        of x."""
        coefficients = self._coefficients(x)
        loss = -self._true_base - float((coefficients * self._true_sums).sum())
        gradient = -self._true_sums
        for features, base, weights in self._blocks():
            logits = torch.addmm(base, coefficients, features)
            largest = logits.amax(0)
            odds = logits.sub_(largest).exp_()
            total = odds.sum(0)
            loss += float((total.log() + largest) @ weights)
            gradient = gradient + odds.mul_(weights / total) @ features.T
        # Parameter -1 stands for what is no parameter: its sum comes first and is left out.
        sums = np.bincount(self._index.ravel() + 1, gradient.numpy().ravel(), len(x) + 1)
        return loss, sums[1:]

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """(len(x), len(x)) second derivatives of the loss.

        For the coefficients C_ai and C_bj it is the sum over voxels of w f_i f_j p_a ([a = b] -
        p_b), w being the weight of a voxel and p = softmax(u').
        """
        coefficients = self._coefficients(x)
        row, feature = np.nonzero(self._index >= 0)
        same_row = torch.from_numpy(row[:, None] == row)
        total = torch.zeros(len(row), len(row)).double()
        for features, base, weights in self._blocks():
            probs = torch.addmm(base, coefficients, features).softmax(0)
            along = probs[row] * features[feature]
            weighted = along * weights
            total += (weighted @ features.T)[:, feature] * same_row - weighted @ along.T
        number = self._index[row, feature]
        result = np.zeros((len(x), len(x)))
        np.add.at(result, (number[:, None], number), total.numpy())
        return result

    def _coefficients(self, x: np.ndarray) -> Tensor:
        x_and_zero = np.append(x, 0.0)  # index -1 takes the 0
        return torch.from_numpy(x_and_zero[self._index])

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return zip(
            self._features.split(_BLOCK, -1),
            self._base.split(_BLOCK, -1),
            self._weights.split(_BLOCK, -1),
        )


def minimise(
    models: Sequence[LinearLogits], lowest: np.ndarray, ridge: float, num_cases: int
) -> np.ndarray:
    """The parameters x at which the sum of losses over ``num_cases`` plus ridge / 2 |x|^2 is least.

    L-BFGS-B begins at 0, in coordinates y of x = T y in which the Hessian there is about a unit
    matrix, which takes a quarter of the passes. A bounded parameter is a multiple of one
    coordinate, so that its bound is one on that coordinate.

    Args:
        models: Voxels by the same parameters.
        lowest: (q,) least value of each parameter; -inf for none.
        ridge: Weight of the squared parameters, in nats.
        num_cases: By which the sum of the losses is divided.

    Returns:
        (q,) x, at least ``lowest``.

    Raises:
        ValueError: It does not settle.
    """
    start = np.zeros(len(lowest))
    hessian = sum(model.hessian(start) for model in models) / num_cases
    transform, scale, order = _preconditioner(
        hessian + ridge * np.eye(len(start)), is_bounded=np.isfinite(lowest)
    )

    def objective(y: np.ndarray) -> tuple[float, np.ndarray]:
        x = transform @ y
        loss = 0.0
        gradient = np.zeros_like(x)
        for model in models:
            model_loss, model_gradient = model.loss(x)
            loss += model_loss
            gradient = gradient + model_gradient
        value = loss / num_cases + ridge * float(x @ x) / 2
        return value, (gradient / num_cases + ridge * x) @ transform

    bounds = [(bound, None) for bound in lowest[order] / scale]
    result = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-10, "gtol": 1e-7},  # of the loss in nats
    )
    has_reached_limit = result.status == 1  # of iterations or evaluations
    if has_reached_limit or not np.isfinite(result.fun):
        raise ValueError(f"the fit did not settle in {result.nit} steps; check the probabilities.")
    return np.maximum(transform @ result.x, lowest)


def _preconditioner(
    hessian: np.ndarray, is_bounded: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates y of x = T y in which the Hessian is about a unit matrix.

    T is the transposed inverse of the Hessian's Cholesky factor; among bounded parameters it is
    diagonal.

    Returns:
        (q, q) T; (q,) its scale, by which the bounds of x are divided; and the (q,) parameter that
        each coordinate belongs to, of which those with a bound come last.
    """
    order = np.argsort(is_bounded, kind="stable")
    factor = np.linalg.cholesky(hessian[np.ix_(order, order)])
    transform = np.linalg.inv(factor).T  # upper triangular
    scale = np.diag(transform).copy()
    bounded = slice(np.count_nonzero(~is_bounded), None)
    inverse_block = np.linalg.inv(transform[bounded, bounded])
    transform[:, bounded] = transform[:, bounded] @ inverse_block * scale[bounded]
    inverse_order = np.argsort(order)
    return transform[inverse_order], scale, order
