"""Explicit confidence penalty (ECP)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_nacl.losses.batch import Batch, read_batch, require_weight, share_of_each_class
from nnunet_nacl.losses.cross_entropy import voxelwise_cross_entropy
from nnunet_nacl.methods import METHODS

DEFAULTS = METHODS["ECP"].defaults


def ecp(
    logits: Tensor,
    target: Tensor,
    *,
    penalty_weight: float = DEFAULTS["penalty_weight"],
    class_reduction: str = DEFAULTS["class_reduction"],
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy less alpha times the entropy of the prediction (ECP, Pereyra et al. 2017).

    ``CE - alpha R_k[-p_k log p_k]``; the authors of NACL average the entropy's terms over the classes.

    Args:
        penalty_weight: alpha, not negative; 0 is cross-entropy.
        class_reduction: R, ``mean`` or ``sum`` over classes; they differ by the factor K.
        regions: Sigmoid heads: the binary entropy (``sum``) or half of it (``mean``).

    Other arguments, ignored voxels, the result and errors: see :mod:`nnunet_nacl.losses.batch`.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])  # (1, 2, 2): two classes, a row of two voxels
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(ecp(logits, labels)), 4)  # cross-entropy - 0.1 entropy / 2
        0.0136
    """
    require_weight("penalty_weight", penalty_weight)
    batch = read_batch(logits, target, ignore_label, regions, check_labels)
    factor = penalty_weight * share_of_each_class(class_reduction, logits.shape[1], regions)
    loss = voxelwise_cross_entropy(batch)
    return batch.mean(loss - factor * _entropy(batch) if factor else loss)


def _entropy(batch: Batch) -> Tensor:
    """-sum_k p_k log p_k of every voxel; for regions the binary entropy."""
    if batch.regions:
        # H(p) = CE(p, q = p): the stable binary cross-entropy, with p as its own soft target.
        return F.softplus(batch.logits) - batch.logits * torch.sigmoid(batch.logits)
    log_probs = torch.log_softmax(batch.logits, 1)
    return -(log_probs.exp() * log_probs).sum(1)
