"""Marginal average calibration error as a loss (mL1-ACE)."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_nacl.losses.batch import Batch, read_batch, require_weight
from nnunet_nacl.losses.cross_entropy import voxelwise_cross_entropy
from nnunet_nacl.methods import METHODS

DEFAULTS = METHODS["ACE"].defaults


def ace(
    logits: Tensor,
    target: Tensor,
    *,
    penalty_weight: float = DEFAULTS["penalty_weight"],
    n_bins: int = DEFAULTS["n_bins"],
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy plus the marginal average calibration error (mL1-ACE; Barfoot et al., arXiv 2506.03942).

    ``CE + lambda mean_k mean_b |mean p_k - share of k|``, b the bins of p_k that hold a voxel of the image, k each
    class, background included; then the mean over the images with a valid voxel. Bins are hard: they have no gradient.

    Args:
        penalty_weight: lambda, not negative; 0 is cross-entropy.
        n_bins: Number of equal bins, (lo, hi]; 0 lies in the first.
        regions: Sigmoid heads: p_r against the share of the voxels inside, mean over regions.

    Other arguments, ignored voxels, the result and errors: see :mod:`nnunet_nacl.losses.batch`.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])  # (1, 2, 2): two classes, a row of two voxels
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(ace(logits, labels)), 4)  # log(1 + exp(-4)) + (|0.982 - 1| + |0.018 - 0|) / 2
        0.0361
    """
    require_weight("penalty_weight", penalty_weight)
    if not isinstance(n_bins, int) or n_bins < 1:
        raise ValueError(f"n_bins must be a positive integer, got {n_bins!r}.")
    batch = read_batch(logits, target, ignore_label, regions, check_labels)
    loss = batch.mean(voxelwise_cross_entropy(batch))
    return loss + penalty_weight * _average_error(batch, n_bins) if penalty_weight else loss


def _average_error(batch: Batch, n_bins: int) -> Tensor:
    """Mean over images and classes of the mean over non-empty bins of |mean p - share|; 0 if no voxel is valid."""
    if batch.regions:
        probs, truth = torch.sigmoid(batch.logits), batch.labels
    else:
        probs = torch.softmax(batch.logits, 1)
        classes = torch.arange(probs.shape[1], device=probs.device).view(-1, *[1] * (probs.ndim - 2))
        truth = batch.labels[:, None] == classes
    # Clamped as integers: where a network diverges NaN has no bin, and an index out of range would end the training.
    bins = (probs.detach() * n_bins).ceil().long().sub(1).clamp(0, n_bins - 1)
    if batch.valid is not None:
        bins = torch.where(batch.valid[:, None], bins, n_bins)
    bins, differences = bins.flatten(2), (probs - truth.to(probs.dtype)).flatten(2)
    empty = differences.new_zeros(*differences.shape[:2], n_bins + 1)
    sums = empty.scatter_add(-1, bins, differences)[..., :n_bins]
    counts = empty.long().scatter_add(-1, bins, bins.new_ones(()).expand_as(bins))[..., :n_bins]
    filled = counts > 0
    errors = (sums.abs() / counts.clamp_min(1)).sum(-1) / filled.sum(-1).clamp_min(1)
    return errors.sum() / filled.any(-1).sum().clamp_min(1)
