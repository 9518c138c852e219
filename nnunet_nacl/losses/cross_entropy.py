"""Cross-entropy: a loss, and the first term of most others."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from nnunet_nacl.losses.batch import Batch
from nnunet_nacl.losses.segmentation_loss import SegmentationLoss, call_loss


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy, ``-log p_y`` (eq. 1); for regions the binary cross-entropy.

    With an ignore label nnU-Net's own binary cross-entropy sums over the regions; this is always
    their mean. Arguments and result are those of all losses, see :mod:`nnunet_nacl.losses`.

    Examples:
        Two classes, a row of two voxels, logits (1, 2, 2):

        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(cross_entropy(logits, labels)), 4)  # log(1 + exp(-4))
        0.0181
    """
    return call_loss(CELoss, locals())


@dataclass(eq=False, repr=False, kw_only=True)
class CELoss(SegmentationLoss):
    """Plain cross-entropy, ``-log p_y`` (Murugesan et al. 2025, eq. 1), see :func:`cross_entropy`.

    ``ignore_label``, ``regions`` and ``check_labels`` are those of :class:`SegmentationLoss`.

    Shape:
        - ``logits``: (B, K, *spatial), or (B, R, *spatial) for regions.
        - ``target``: (B, 1, *spatial) or (B, *spatial); for regions (B, R, *spatial), or
          (B, R + 1, *spatial), whose last channel marks the ignored voxels.
        - Output: a scalar.

    Examples:
        >>> import torch
        >>> loss_function = CELoss(ignore_label=255)
        >>> logits = torch.zeros(2, 3, 16, 16, requires_grad=True)
        >>> labels = torch.randint(3, (2, 1, 16, 16))
        >>> loss = loss_function(logits, labels)
        >>> round(loss.item(), 4)  # log(3)
        1.0986
        >>> loss.backward()
    """

    def compute(self, batch: Batch) -> Tensor:
        """The loss of a checked batch, a scalar."""
        return batch.mean(voxelwise_cross_entropy(batch))


def voxelwise_cross_entropy(batch: Batch) -> Tensor:
    """``-log p_y`` of each voxel, (B, *spatial).

    For regions (B, R, *spatial): minus the logarithm of the probability of the side, in or out, on
    which the voxel lies.
    """
    if batch.regions:
        return soft_cross_entropy(batch, batch.labels)
    return F.cross_entropy(batch.logits, batch.labels.long(), reduction="none")


def soft_cross_entropy(batch: Batch, shares: Tensor) -> Tensor:
    """Cross-entropy of each voxel against shares of the classes, ``-sum_k q_k log p_k``, (B,
    *spatial).

    For regions ``-q_r log p_r - (1 - q_r) log(1 - p_r)``, (B, R, *spatial).

    Args:
        shares: q, in the shape of the logits.
    """
    if batch.regions:
        shares = shares.to(batch.logits.dtype)
        return F.binary_cross_entropy_with_logits(batch.logits, shares, reduction="none")
    return F.cross_entropy(batch.logits, shares, reduction="none")
