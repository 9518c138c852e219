"""Margin-based label smoothing (MbLS)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nnunet_nacl.losses.batch import Batch, read_batch, require_weight, share_of_each_class
from nnunet_nacl.losses.cross_entropy import voxelwise_cross_entropy
from nnunet_nacl.methods import METHODS

DEFAULTS = METHODS["MbLS"].defaults


def mbls(
    logits: Tensor,
    target: Tensor,
    *,
    penalty_weight: float = DEFAULTS["penalty_weight"],
    margin: float = DEFAULTS["margin"],
    class_reduction: str = DEFAULTS["class_reduction"],
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Margin-based label smoothing, CE + lambda R_k[relu(max_j l_j - l_k - m)] (Liu et al. 2022, eq. 7).

    Args:
        penalty_weight: lambda, not negative; 0 is cross-entropy.
        margin: m, how far the largest logit may exceed the others, not negative.
        class_reduction: R, ``mean`` or ``sum`` over classes; they differ by the factor K.
        regions: Sigmoid heads: relu(|l_r| - m) (``sum``) or half of it (``mean``).

    Other arguments, ignored voxels, the result and errors: see :mod:`nnunet_nacl.losses.batch`.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])  # (1, 2, 2): two classes, a row of two voxels
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(mbls(logits, labels, margin=1)), 4)  # log(1 + exp(-4)) + 0.1 (4 - 1) / 2
        0.1681
    """
    require_weight("penalty_weight", penalty_weight)
    require_weight("margin", margin)
    batch = read_batch(logits, target, ignore_label, regions, check_labels)
    factor = penalty_weight * share_of_each_class(class_reduction, logits.shape[1], regions)
    loss = voxelwise_cross_entropy(batch)
    return batch.mean(loss + factor * _excess(batch, margin) if factor else loss)


def _excess(batch: Batch, margin: float) -> Tensor:
    """sum_k relu(max_j l_j - l_k - margin); for regions the larger of the two class logits against the other."""
    logits = batch.logits
    if batch.regions:
        return F.relu(logits.abs() - margin)
    # The authors' code lets the gradient flow through the maximum too, as max does here.
    return F.relu(logits.max(1, keepdim=True).values - logits - margin).sum(1)
