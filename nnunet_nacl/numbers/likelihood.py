"""Negative log likelihood of cases under a map, and of the voxels that a fit sees, with its gradient.

The voxels where the network chose label c see the coefficients of c alone: with u' = A_c f (f the log-odds u of
:mod:`~nnunet_nacl.numbers.log_odds_map`, v and 1), u'_0 = 0, p = softmax(u') and y the true class the loss of a
voxel is log sum exp u' - u'_y, a convex function of A_c. So the whole is one multinomial logistic regression for each
label. A region is such a problem of its own, in against out, and the loss is the mean over regions, as the metrics have
it. Where slope and offsets are the same for every label there is one problem over all voxels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.numbers.case_voxels import Voxels
from nnunet_nacl.numbers.log_odds import log_loss, with_total
from nnunet_nacl.numbers.log_odds_map import LogOddsMap

_BLOCK = 1 << 13  # voxels at a time: they stay in the cache


def case_loss(voxels: Voxels, calibration: LogOddsMap) -> float:
    """Mean negative log likelihood of a case under a map, in nats."""
    loss = voxels.certain_loss
    for (label, place), own in voxels.by_label.items():
        logits = logits_of(calibration, own.odds, label, place if voxels.regions else None)
        loss += float(log_loss(torch.zeros_like(logits[0]), logits, own.target) @ own.weights)
    return loss


def logits_of(calibration: LogOddsMap, odds: Tensor, label: int, region: int | None) -> Tensor:
    """(m, n) u' of voxels with one label; (1, n) of a region."""
    if region is None:
        return calibration.logits(odds, label)
    row = calibration.row(label)[region]
    return torch.from_numpy(row[:-1] @ with_total(odds).numpy() + row[-1])[None]


class LinearLogits:
    """Weighted voxels whose logits are linear in parameters x: u' = base + C f, with C_kj = x[index_kj].

    Args:
        features: (q, n) f.
        base: (s, n) logits at x = 0; one row, of zeros or of what no parameter changes, is of the background.
        target: (n,) row of the true class.
        weights: (n,).
        index: (s, q) which parameter each coefficient is; -1 where it is 0.
    """

    def __init__(self, features: Tensor, base: Tensor, target: Tensor, weights: Tensor, index: np.ndarray) -> None:
        self._tables, self._index = (features, base, weights), index
        true = torch.zeros_like(base).scatter_(0, target[None], weights[None])
        self._true_sums, self._true_base = true @ features.T, float((true * base).sum())

    def loss(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Sum over voxels of weight times -log p of the true class, and its gradient, of the shape of x."""
        coefficients = self._coefficients(x)
        loss = -self._true_base - float((coefficients * self._true_sums).sum())
        gradient = -self._true_sums
        for features, base, weights in self._blocks():
            odds = torch.addmm(base, coefficients, features)
            top = odds.amax(0)
            total = odds.sub_(top).exp_().sum(0)
            loss += float((total.log() + top) @ weights)
            gradient = gradient + odds.mul_(weights / total) @ features.T
        return loss, np.bincount(self._index.ravel() + 1, gradient.numpy().ravel(), len(x) + 1)[1:]

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """(len(x), len(x)) second derivatives of the loss."""
        coefficients, (of, by) = self._coefficients(x), np.nonzero(self._index >= 0)
        same, found = torch.from_numpy(of[:, None] == of), torch.zeros(len(of), len(of)).double()
        for features, base, weights in self._blocks():
            along = torch.addmm(base, coefficients, features).softmax(0)[of] * features[by]
            weighted = along * weights
            found += (weighted @ features.T)[:, by] * same - weighted @ along.T
        result, number = np.zeros((len(x), len(x))), self._index[of, by]
        np.add.at(result, (number[:, None], number), found.numpy())
        return result

    def _coefficients(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.append(x, 0.0)[self._index])

    def _blocks(self) -> Iterator[tuple[Tensor, ...]]:
        return zip(*(table.split(_BLOCK, -1) for table in self._tables))
