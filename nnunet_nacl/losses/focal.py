"""Focal loss."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_nacl.losses.batch import read_batch, require_weight
from nnunet_nacl.losses.cross_entropy import voxelwise_cross_entropy
from nnunet_nacl.methods import METHODS

DEFAULTS = METHODS["Focal"].defaults


def focal(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = DEFAULTS["gamma"],
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Focal loss, -(1 - p_y)^gamma log p_y (Lin et al. 2017, eq. 4 without class weights), as a mean over voxels.

    Args:
        gamma: Focusing parameter, not negative; 0 is cross-entropy.
        regions: Sigmoid heads; p_y is then the probability of the true side.

    Other arguments, ignored voxels, the result and errors: see :mod:`nnunet_nacl.losses.batch`.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])  # (1, 2, 2): two classes, a row of two voxels
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(focal(logits, labels, gamma=1)), 4)  # (1 - p) * -log p, p = 0.982
        0.0003
    """
    require_weight("gamma", gamma)
    batch = read_batch(logits, target, ignore_label, regions, check_labels)
    cross_entropy = voxelwise_cross_entropy(batch)
    if gamma == 0:
        return batch.mean(cross_entropy)
    # 1 - p_y = -expm1(-CE) without cancellation. Its power has an infinite slope at 0 for gamma < 1: there the
    # whole term is 0 to first order, so the clamp changes no value and keeps the gradient finite.
    wrong = -torch.expm1(-cross_entropy)
    return batch.mean(wrong.clamp_min(torch.finfo(cross_entropy.dtype).tiny).pow(gamma) * cross_entropy)
