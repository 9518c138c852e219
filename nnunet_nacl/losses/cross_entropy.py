"""Cross-entropy, the first term of most losses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nnunet_nacl.losses.batch import Batch, read_batch


def cross_entropy(
    logits: Tensor, target: Tensor, *, ignore_label: int | None = None, regions: bool = False, check_labels: bool = True
) -> Tensor:
    """Cross-entropy, -log p_y (eq. 1); binary cross-entropy for regions.

    With an ignore label nnU-Net's own binary cross-entropy sums over the regions; this one is always their mean.
    Arguments, ignored voxels, the result and errors: see :mod:`nnunet_nacl.losses.batch`.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])  # (1, 2, 2): two classes, a row of two voxels
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(cross_entropy(logits, labels)), 4)  # log(1 + exp(-4))
        0.0181
    """
    batch = read_batch(logits, target, ignore_label, regions, check_labels)
    return batch.mean(voxelwise_cross_entropy(batch))


def voxelwise_cross_entropy(batch: Batch) -> Tensor:
    """-log p_y of every voxel, (B, *spatial); for regions -log of the true side's probability, (B, R, *spatial)."""
    if batch.regions:
        return soft_cross_entropy(batch, batch.labels)
    return F.cross_entropy(batch.logits, batch.labels.long(), reduction="none")


def soft_cross_entropy(batch: Batch, shares: Tensor) -> Tensor:
    """-sum_k q_k log p_k for given shares q, as large as the logits; for regions -q log p - (1 - q) log(1 - p)."""
    if batch.regions:
        shares = shares.to(batch.logits.dtype)
        return F.binary_cross_entropy_with_logits(batch.logits, shares, reduction="none")
    return F.cross_entropy(batch.logits, shares, reduction="none")
