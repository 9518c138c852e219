"""Losses that are linear in their logits, and the parameters at which their sum is least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

_BLOCK = 1 << 13  # voxels at a time: they stay in the cache


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
