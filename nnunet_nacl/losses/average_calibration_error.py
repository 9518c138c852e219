"""mL1-ACE: the calibration error of a batch as a term of the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_nacl.losses.batch import read_batch
from nnunet_nacl.losses.module import Loss

BINNINGS = ("hard", "soft")
SMALLEST_SOFT_COUNT = 0.01

__all__ = ["MarginalL1ACE", "marginal_l1_ace"]


def marginal_l1_ace(
    logits: Tensor,
    target: Tensor,
    *,
    num_bins: int = 20,
    binning: str = "hard",
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Marginal L1 average calibration error (Barfoot et al. 2024, arXiv 2403.06759).

    ``mean_ik mean_m |mean_v p_k(v) - mean_v [k = y(v)]|``, v the valid voxels of image i whose probability of class k
    lies in bin m: each bin that holds a voxel weighs the same, however many it holds, each class the same, the
    background and classes that the image does not show included, and each image that has a valid voxel.

    ``soft`` (Barfoot et al. 2025, arXiv 2506.03942) shares each voxel linearly between the two bins whose centres are
    next to its probability: means, and what a bin holds, are weighted. The shares have a gradient, too.

    Under ``hard`` which bin a voxel is in has no gradient; a probability is drawn by its bin's mean:
    ``d/dp_k(v) = sign(gap) / (voxels of the bin x filled bins x K x images)``. It does not lower the error of each
    voxel, so it is added to a loss that does.

    Args:
        logits: See :mod:`nnunet_nacl.losses.batch`, like all arguments not named here.
        target: Labels.
        num_bins: Equal bins (lo, hi] on [0, 1], p = 0 in the first; 20 as in the authors' code.
        binning: ``hard``, or ``soft``, where bins that hold less than 0.01 voxels count as empty.
        ignore_label: Label without ground truth.
        regions: Sigmoid heads: each region takes the place of a class.
        check_labels: Check the values of ``target``.

    Returns:
        Scalar in [0, 1]; 0 where no voxel is valid.

    Raises:
        ValueError: ``num_bins`` is not positive, no such ``binning``, or shapes or labels do not fit.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be a positive integer, got {num_bins!r}.")
    if binning not in BINNINGS:
        raise ValueError(f"binning must be one of {', '.join(BINNINGS)}, got {binning!r}.")
    batch = read_batch(logits, target, ignore_label, regions, check_labels)
    probs = (torch.sigmoid(batch.logits) if regions else torch.softmax(batch.logits, 1)).flatten(2)
    labels = batch.labels.flatten(2 if regions else 1)
    classes = torch.arange(logits.shape[1], device=labels.device)[:, None]
    truth = labels != 0 if regions else labels[:, None] == classes
    gap = probs - truth.to(probs.dtype)
    shape = (*probs.shape[:2], num_bins + 1)
    gaps, counts = probs.new_zeros(shape), probs.new_zeros(shape)
    for index, weight in _bins(probs, num_bins, binning):
        if batch.target.valid is not None:  # ignored voxels go to one bin more, which is not looked at
            index = index.masked_fill(~batch.target.valid.flatten(1)[:, None], num_bins)
        gaps = gaps.scatter_add(2, index, weight * gap)
        counts = counts.scatter_add(2, index, weight)
    gaps, counts = gaps[..., :num_bins], counts[..., :num_bins]
    filled = counts >= SMALLEST_SOFT_COUNT
    errors = torch.where(filled, gaps.abs() / counts.clamp_min(SMALLEST_SOFT_COUNT), torch.zeros_like(gaps))
    num_filled = filled.sum(2)
    return (errors.sum(2) / num_filled.clamp_min(1)).sum() / (num_filled > 0).sum().clamp_min(1)


def _bins(probs: Tensor, num_bins: int, binning: str) -> list[tuple[Tensor, Tensor]]:
    """The bins that each voxel belongs to, and its weight in each, all of the shape of ``probs``."""
    if binning == "hard":
        index = (probs.detach() * num_bins).ceil().long().sub(1).clamp(0, num_bins - 1)
        return [(index, torch.ones_like(probs))]
    position = (probs * num_bins - 0.5).clamp(0, num_bins - 1)  # in bins, from the first one's centre
    lower = position.detach().floor()
    share = position - lower
    index = lower.long()
    return [(index, 1 - share), ((index + 1).clamp(max=num_bins - 1), share)]


class MarginalL1ACE(Loss):
    """:func:`marginal_l1_ace` as a module."""

    function = staticmethod(marginal_l1_ace)
