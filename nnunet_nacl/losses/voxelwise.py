"""Loss terms of every voxel: pure functions of logits and labels, without any reduction over voxels.

Shapes: for classes logits (B, K, *spatial), labels (B, *spatial), result (B, *spatial); for regions logits, labels and
result (B, R, *spatial). The ``regions`` forms treat a region as a problem of two classes, in and out, whose one logit
is the difference of the two class logits. Logits come in float32 or float64. Labels are valid (ignored voxels hold 0).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "class_cross_entropy",
    "class_entropy",
    "class_focal",
    "class_margin_excess",
    "class_soft_cross_entropy",
    "region_cross_entropy",
    "region_entropy",
    "region_focal",
    "region_margin_excess",
]


def class_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """-sum_k q_k log p_k with q = (1 - smoothing) onehot(y) + smoothing / K."""
    return F.cross_entropy(logits, labels.long(), reduction="none", label_smoothing=smoothing)


def class_soft_cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    """-sum_k q_k log p_k for given shares q, (B, K, *spatial)."""
    return -(shares * torch.log_softmax(logits, 1)).sum(1)


def class_focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """-(1 - p_y)^gamma log p_y (Lin et al. 2017, eq. 4 without class weights)."""
    cross_entropy = class_cross_entropy(logits, labels)
    return _focal(cross_entropy, gamma)


def class_entropy(logits: Tensor) -> Tensor:
    """-sum_k p_k log p_k."""
    log_probs = torch.log_softmax(logits, 1)
    return -(log_probs.exp() * log_probs).sum(1)


def class_margin_excess(logits: Tensor, margin: float) -> Tensor:
    """sum_k relu(max_j l_j - l_k - margin) (Liu et al. 2022, eq. 7)."""
    # The authors' code lets the gradient flow through the maximum too, as max does here.
    return F.relu(logits.max(1, keepdim=True).values - logits - margin).sum(1)


def region_cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    """Binary cross-entropy with the (hard or soft) share q of the region: -q log p - (1 - q) log(1 - p)."""
    return F.binary_cross_entropy_with_logits(logits, shares.to(logits.dtype), reduction="none")


def region_focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Focal term of the true side of every region."""
    return _focal(region_cross_entropy(logits, labels), gamma)


def region_entropy(logits: Tensor) -> Tensor:
    """Binary entropy of every region."""
    # H(p) = CE(p, q = p): the stable binary cross-entropy, with p as its own soft target.
    return F.softplus(logits) - logits * torch.sigmoid(logits)


def region_margin_excess(logits: Tensor, margin: float) -> Tensor:
    """relu(|l| - margin): the larger of a region's two class logits against the other."""
    return F.relu(logits.abs() - margin)


def _focal(cross_entropy: Tensor, gamma: float) -> Tensor:
    if gamma == 0:
        return cross_entropy
    # 1 - p_y = -expm1(-CE) without cancellation. Its power has an infinite slope at 0 for gamma < 1: there the
    # whole term is 0 to first order, so the clamp changes no value and keeps the gradient finite.
    wrong = -torch.expm1(-cross_entropy)
    return wrong.clamp_min(torch.finfo(cross_entropy.dtype).tiny).pow(gamma) * cross_entropy
