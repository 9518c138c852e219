"""Negative log likelihood of one case under a map, with its exact first and second derivatives.

With x_k = a_k u_k + b_k (x_0 = 0), p = softmax(x) and y the true class the loss of a voxel is log sum exp x - x_y. In
the parameters (a_1..a_m, b_1..b_m) it is a convex function of affine functions, hence convex. Regions: the mean over
regions of the binary loss, as the metrics have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["Terms", "Voxels", "case_terms"]

_BLOCK = 1 << 16  # voxels at a time: they stay in the cache


@dataclass(frozen=True)
class Voxels:
    """Voxels of one case.

    Attributes:
        log_odds: (m, N), see :func:`nnunet_nacl.calibration.affine.log_odds`.
        target: (N,) true class 0..m, or (m, N) inside (1) or outside (0) each region.
        weights: (N,) how many voxels of the case each stands for; None for one each.
    """

    log_odds: Tensor
    target: Tensor
    weights: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the two large arrays."""
        return self.log_odds.nbytes + self.target.nbytes

    @property
    def regions(self) -> bool:
        """Whether the target is of regions."""
        return self.target.ndim == 2


@dataclass(frozen=True)
class Terms:
    """Mean loss over a case's voxels in nats, its (2m,) gradient and (2m, 2m) Hessian in (slopes, offsets)."""

    loss: float
    gradient: np.ndarray
    hessian: np.ndarray


def case_terms(voxels: Voxels, parameters: np.ndarray) -> Terms:
    """Mean negative log likelihood of a case and its derivatives.

    Args:
        voxels: Of the case; there must be one.
        parameters: (2m,) slopes, then offsets.
    """
    num, total = voxels.log_odds.shape
    theta = torch.from_numpy(np.asarray(parameters, dtype=np.float64))
    loss, size = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    gradient, hessian = torch.zeros(2 * num).double(), torch.zeros(2 * num, 2 * num).double()
    for start in range(0, total, _BLOCK):
        part = slice(start, start + _BLOCK)
        odds, target = voxels.log_odds[:, part].double(), voxels.target[..., part]
        weights = torch.ones(odds.shape[1]).double() if voxels.weights is None else voxels.weights[part].double()
        x = odds * theta[:num, None] + theta[num:, None]
        if voxels.regions:
            truth = target.double()
            probs = x.sigmoid()
            loss += ((softplus(x) - truth * x) @ weights).mean()
            weights_all, curvature = weights / num, probs * (1 - probs)
        else:
            total_log = torch.logsumexp(torch.cat([torch.zeros_like(x[:1]), x]), 0)
            probs = (x - total_log).exp()
            truth = (target.long()[None] == torch.arange(1, num + 1)[:, None]).double()
            loss += (total_log - (truth * x).sum(0)) @ weights
            weights_all, curvature = weights, probs
        residual = probs - truth
        gradient += torch.cat([(residual * odds) @ weights_all, residual @ weights_all])
        slope, mixed, offset = (
            (term @ weights_all).diag() for term in (curvature * odds * odds, curvature * odds, curvature)
        )
        hessian += torch.cat([torch.cat([slope, mixed], 1), torch.cat([mixed, offset], 1)])
        if not voxels.regions:
            features = torch.cat([probs * odds, probs])
            hessian -= (features * weights_all) @ features.T
        size += weights.sum()
    return Terms(float(loss / size), (gradient / size).numpy(), (hessian / size).numpy())
