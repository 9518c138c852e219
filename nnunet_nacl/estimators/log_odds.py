"""Log-odds of voxels: what calibration maps act on.

Class 0 is the background. With logits z and l_k = max(z_k - max_j z_j, -15), u_k = l_k - l_0 are
the log-odds of structure k to the background; of a region u = z clipped to +-15. v = log(1 + sum_j
exp u_j) is minus the log of the background's probability.

m is the number of structures: K - 1 for K classes, R for R regions. C is the number of channels: K
or R.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.metrics.grid import bounding_box

CLIP = 15.0
"""Log-odds to the most probable class beyond it count as this far: there is rounding, not
knowledge."""
CERTAIN = 1e-6
"""A voxel where no structure has a higher probability is certain background, and stays as it is."""

_SMALLEST = float(torch.finfo(torch.float32).tiny)  # as the metrics clip


def log_odds(probs: np.ndarray | Tensor, regions: bool = False) -> Tensor:
    """(m, ...) log-odds against the background, log p_k - log p_0, or of each region, log p - log(1
    - p).

    Probabilities of exactly 0 count as the smallest normal float32, as in the metrics. A region's
    probability of exactly 1 counts as halfway to 1 from the largest number below it: what z was
    cannot be known from it.

    Args:
        probs: (C, ...) probabilities of any floating type.
        regions: Whether the channels are regions.

    Returns:
        float32, or float64 for float64 probabilities; not clipped.
    """
    if isinstance(probs, np.ndarray):
        probs = torch.as_tensor(np.ascontiguousarray(probs))
    step = torch.finfo(probs.dtype).eps
    if probs.dtype != torch.float64:
        probs = probs.float()
    logs = probs.clamp_min(_SMALLEST).log_()
    if not regions:
        return logs[1:] - logs[:1]
    outside = (1 - probs.double()).clamp_min(step / 4)
    return logs - outside.log().to(probs.dtype)


def probabilities(odds: Tensor, regions: bool) -> Tensor:
    """(C, ...) probabilities of (m, ...) log-odds: inverse of :func:`log_odds`."""
    if regions:
        return odds.sigmoid()
    return torch.cat([torch.zeros_like(odds[:1]), odds]).softmax(0)


def is_certain_background(odds: Tensor) -> Tensor:
    """(n,) whether no structure has a probability above ``CERTAIN``, by (m, n) log-odds."""
    return odds.amax(0) <= math.log(CERTAIN)


def clip_log_odds(odds: Tensor, regions: bool) -> Tensor:
    """(m, n) log-odds u after the clipping of l_k; of regions: clipped to +-15."""
    if regions:
        return odds.clamp(-CLIP, CLIP)
    top = odds.amax(0).clamp_min_(0)  # of all classes, the background at 0 included
    background = (-top).clamp_min_(-CLIP)
    return (odds - top).clamp_min_(-CLIP).sub_(background)


def total_log_odds(odds: Tensor) -> Tensor:
    """(n,) v = log(1 + sum_j exp u_j) of (m, n) clipped log-odds u, which are too small to
    overflow."""
    return odds.exp().sum(0).log1p_()


def is_label(label: Tensor, num_structures: int) -> Tensor:
    """(m, n) whether each voxel has the label of each structure, by (n,) classes or (m, n)
    regions."""
    if label.ndim == 2:
        return label.bool()
    return label == torch.arange(1, num_structures + 1)[:, None]


def log_loss(background: Tensor, odds: Tensor, target: Tensor) -> Tensor:
    """(n,) minus the log probability of the true class.

    Args:
        background: (n,) logit of class 0.
        odds: (m, n) logits of the other classes.
        target: (n,) true class.
    """
    logits = torch.cat([background[None], odds])
    return logits.logsumexp(0) - logits.gather(0, target[None])[0]


def network_box(probs: np.ndarray, regions: bool = False) -> tuple[slice, ...] | None:
    """The part of the image that the network saw, nnU-Net's crop; None if no structure is probable
    anywhere.

    nnU-Net fills what lies outside with background 1 and all else exactly 0 (regions: 0
    throughout), and inside a probability of 0 takes logits more than 100 apart. So the crop is the
    box of the voxels with a structure above 0.
    """
    structures = probs if regions else probs[1:]
    return bounding_box(structures.max(axis=0) > 0)
