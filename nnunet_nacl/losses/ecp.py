"""Explicit confidence penalty (ECP)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_nacl.losses.batch import Batch, check_class_reduction
from nnunet_nacl.losses.checks import check_not_negative
from nnunet_nacl.losses.cross_entropy import voxelwise_cross_entropy
from nnunet_nacl.losses.segmentation_loss import SegmentationLoss, call_loss


def ecp(
    logits: Tensor,
    target: Tensor,
    *,
    penalty_weight: float = 0.1,
    class_reduction: str = "mean",
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy minus alpha times the entropy, ``-log p_y - alpha R_k[-p_k log p_k]``.

    alpha is ``penalty_weight``, R_k the mean or the sum over classes k (``class_reduction``). It is
    the penalty of Pereyra et al. 2017. The settings are those of :class:`ECPLoss`; the other
    arguments and the result those of all losses, see :mod:`nnunet_nacl.losses`.

    Examples:
        Two classes, a row of two voxels, logits (1, 2, 2):

        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(ecp(logits, labels)), 4)  # cross-entropy - 0.1 entropy / 2
        0.0136
    """
    return call_loss(ECPLoss, locals())


@dataclass(eq=False, repr=False, kw_only=True)
class ECPLoss(SegmentationLoss):
    """Cross-entropy minus a multiple of the prediction's entropy (ECP; Pereyra et al. 2017).

    ``-log p_y - alpha R_k[-p_k log p_k]``; the authors of NACL average the terms of the entropy
    over the classes.

    ``ignore_label``, ``regions`` and ``check_labels`` are those of :class:`SegmentationLoss`. For
    regions it is the binary entropy for ``sum``, and half of it for ``mean``.

    Args:
        penalty_weight: alpha, not negative; 0 is cross-entropy.
        class_reduction: R, ``mean`` or ``sum`` over classes; they differ by the factor K.

    Shape:
        - ``logits``: (B, K, *spatial), or (B, R, *spatial) for regions.
        - ``target``: (B, 1, *spatial) or (B, *spatial); for regions (B, R, *spatial), or
          (B, R + 1, *spatial), whose last channel marks the ignored voxels.
        - Output: a scalar.

    Raises:
        ValueError: A setting is out of range.

    Examples:
        >>> import torch
        >>> loss_function = ECPLoss(penalty_weight=0.3)
        >>> logits = torch.zeros(2, 3, 16, 16, requires_grad=True)
        >>> labels = torch.randint(3, (2, 1, 16, 16))
        >>> loss = loss_function(logits, labels)
        >>> round(loss.item(), 4)  # log(3) - 0.3 log(3) / 3
        0.9888
        >>> loss.backward()
    """

    penalty_weight: float = 0.1
    class_reduction: str = "mean"

    def check_settings(self) -> None:
        """ValueError for a setting that is out of range."""
        check_not_negative("penalty_weight", self.penalty_weight)
        check_class_reduction(self.class_reduction)

    def compute(self, batch: Batch) -> Tensor:
        """The loss of a checked batch, a scalar."""
        factor = self.penalty_weight * batch.class_factor(self.class_reduction)
        loss = voxelwise_cross_entropy(batch)
        if factor != 0:
            loss = loss - factor * _entropy(batch)
        return batch.mean(loss)


def _entropy(batch: Batch) -> Tensor:
    """``-sum_k p_k log p_k`` of each voxel, (B, *spatial); for regions the binary one, (B, R,
    *spatial)."""
    if batch.regions:
        # The entropy is the cross-entropy of p against p itself, here in its stable binary form.
        return F.softplus(batch.logits) - batch.logits * torch.sigmoid(batch.logits)
    log_probs = torch.log_softmax(batch.logits, 1)
    return -(log_probs.exp() * log_probs).sum(1)
