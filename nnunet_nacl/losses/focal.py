"""Focal loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_nacl.losses.batch import Batch
from nnunet_nacl.losses.checks import check_not_negative
from nnunet_nacl.losses.cross_entropy import voxelwise_cross_entropy
from nnunet_nacl.losses.segmentation_loss import SegmentationLoss, call_loss


def focal(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 3.0,
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Focal loss, ``-(1 - p_y)^gamma log p_y`` (Lin et al. 2017, eq. 4), as a mean over voxels.

    There are no weights of classes. The setting is that of :class:`FocalLoss`; the other arguments
    and the result are those of all losses, see :mod:`nnunet_nacl.losses`.

    Examples:
        Two classes, a row of two voxels, logits (1, 2, 2):

        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(focal(logits, labels, gamma=1)), 4)  # (1 - p) * -log p, p = 0.982
        0.0003
    """
    return call_loss(FocalLoss, locals())


@dataclass(eq=False, repr=False, kw_only=True)
class FocalLoss(SegmentationLoss):
    """Focal loss, ``-(1 - p_y)^gamma log p_y`` (Lin et al. 2017, eq. 4 without weights of classes).

    ``ignore_label``, ``regions`` and ``check_labels`` are those of :class:`SegmentationLoss`. For
    regions p_y is the probability of the side, in or out, on which the voxel lies.

    Args:
        gamma: Focusing parameter, not negative; 0 is cross-entropy.

    Shape:
        - ``logits``: (B, K, *spatial), or (B, R, *spatial) for regions.
        - ``target``: (B, 1, *spatial) or (B, *spatial); for regions (B, R, *spatial), or
          (B, R + 1, *spatial), whose last channel marks the ignored voxels.
        - Output: a scalar.

    Raises:
        ValueError: ``gamma`` is negative or not finite.

    Examples:
        >>> import torch
        >>> loss_function = FocalLoss(gamma=2.0)
        >>> logits = torch.zeros(2, 3, 16, 16, requires_grad=True)
        >>> labels = torch.randint(3, (2, 1, 16, 16))
        >>> loss = loss_function(logits, labels)
        >>> round(loss.item(), 4)  # (2 / 3)^2 log(3)
        0.4883
        >>> loss.backward()
    """

    gamma: float = 3.0

    def check_settings(self) -> None:
        """ValueError for a setting that is out of range."""
        check_not_negative("gamma", self.gamma)

    def compute(self, batch: Batch) -> Tensor:
        """The loss of a checked batch, a scalar."""
        cross_entropy = voxelwise_cross_entropy(batch)
        if self.gamma == 0:
            return batch.mean(cross_entropy)
        # 1 - p_y from -log p_y, without cancellation.
        prob_of_others = -torch.expm1(-cross_entropy)
        # For gamma < 1 the power has an infinite slope at 0. There the whole term is 0 to first
        # order, so the clamp changes no value and keeps the gradient finite.
        smallest = torch.finfo(cross_entropy.dtype).tiny
        return batch.mean(prob_of_others.clamp_min(smallest).pow(self.gamma) * cross_entropy)
