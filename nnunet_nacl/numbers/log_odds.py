"""Log-odds of voxels against the background, or of a region, and the probabilities and labels that they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

CLIP = 15.0
"""Log-odds to the most probable class beyond it count as this far: what lies there is rounding, not knowledge."""

CERTAIN = 1e-6
"""A voxel where no structure has a higher probability is background for certain, and stays as it is."""

SLOPES = (0.5, 1.0, 1.5, 2.0)
"""Of temperatures under which sums are kept: multiples of the first."""

_SMALLEST = float(torch.finfo(torch.float32).tiny)  # as the metrics clip


def clipped(odds: Tensor, regions: bool) -> Tensor:
    """(m, n) log-odds after the clipping of l_k, see above; regions: clipped to +-15."""
    if regions:
        return odds.clamp(-CLIP, CLIP)
    top = odds.amax(0).clamp_min_(0)
    return (odds - top).clamp_min_(-CLIP).sub_((-top).clamp_min_(-CLIP))


def with_total(odds: Tensor) -> Tensor:
    """(m + 1, n) clipped log-odds, and v = log(1 + sum_j exp u_j) below them."""
    return torch.cat([odds, torch.logsumexp(torch.cat([torch.zeros_like(odds[:1]), odds]), 0, keepdim=True)])


def is_certain(odds: Tensor) -> Tensor:
    """(n,) whether no structure has a probability above ``CERTAIN``, by (m, n) log-odds to the background (or out)."""
    return odds.amax(0) <= math.log(CERTAIN)


def most_probable(probs: Tensor, regions: bool) -> Tensor:
    """(n,) most probable class, the lower one of equals; or (R, n) whether the region is predicted."""
    return probs > 0.5 if regions else torch.max(probs, 0)[1]


def probabilities(odds: Tensor, regions: bool) -> Tensor:
    """(C, ...) probabilities of (m, ...) log-odds: inverse of :func:`log_odds`."""
    if regions:
        return odds.sigmoid()
    return torch.cat([torch.zeros_like(odds[:1]), odds]).softmax(0)


def tempered(odds: Tensor, regions: bool) -> Iterator[Tensor]:
    """(m, n) probabilities of the structures at each of ``SLOPES``; 0 where background is certain."""
    root = (clipped(odds, regions) * SLOPES[0]).exp_()
    power, changes = root, (~is_certain(odds)).to(odds)
    for _ in SLOPES:
        yield power * (changes / (1 + (power if regions else power.sum(0))))
        power = power * root


def is_label(label: Tensor, num: int) -> Tensor:
    """(num, n) whether each voxel has the label of each structure, by (n,) classes or (num, n) regions."""
    return label.bool() if label.ndim == 2 else label == torch.arange(1, num + 1)[:, None]


def log_odds(probs: np.ndarray | Tensor, regions: bool = False) -> Tensor:
    """Log-odds against the background, log p_k - log p_0, or of each region, log p - log(1 - p).

    Probabilities of exactly 0 count as the smallest normal float32, as in the metrics. A region's probability of
    exactly 1 counts as halfway to 1 from the largest number below it: float32's sigmoid is 1 from z = 17 on, and what
    z was cannot be known from it.

    Args:
        probs: (C, ...) probabilities of any floating type.
        regions: Whether they are of sigmoid regions.

    Returns:
        (m, ...) float32, or float64 if that was given.
    """
    probs = torch.as_tensor(np.ascontiguousarray(probs) if isinstance(probs, np.ndarray) else probs)
    step = torch.finfo(probs.dtype).eps
    if probs.dtype != torch.float64:
        probs = probs.float()
    if regions:
        return probs.clamp_min(_SMALLEST).log() - (1 - probs.double()).clamp_min(step / 4).log().to(probs.dtype)
    logs = probs.clamp_min(_SMALLEST).log()
    return logs[1:] - logs[:1]


def network_box(probs: np.ndarray, regions: bool = False) -> tuple[slice, ...] | None:
    """The part of the image that the network saw: nnU-Net's crop.

    nnU-Net fills what lies outside with background 1 and all else exactly 0 (regions: 0 throughout). Inside, a
    probability of exactly 0 takes logits more than 100 apart. So the box of the voxels where any structure has a
    probability above 0 is the crop.

    Args:
        probs: (C, *spatial) probabilities.
        regions: Whether they are of sigmoid regions.

    Returns:
        A slice for each spatial axis; None if no structure has any probability anywhere.
    """
    seen = (probs if regions else probs[1:]).max(axis=0) > 0
    if not seen.any():
        return None
    axes = range(seen.ndim)
    hits = [np.flatnonzero(seen.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
    return tuple(slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)


def log_loss(rest: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """(n,) log loss of the true class, 0 being ``rest``."""
    every = torch.cat([rest[None], logits])
    return every.logsumexp(0) - every.gather(0, target[None])[0]
