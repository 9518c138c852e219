"""Margin-based label smoothing (MbLS)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from nnunet_nacl.losses.batch import Batch, check_class_reduction
from nnunet_nacl.losses.checks import check_not_negative
from nnunet_nacl.losses.cross_entropy import voxelwise_cross_entropy
from nnunet_nacl.losses.segmentation_loss import SegmentationLoss, call_loss


def mbls(
    logits: Tensor,
    target: Tensor,
    *,
    penalty_weight: float = 0.1,
    margin: float = 5.0,
    class_reduction: str = "mean",
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Margin-based label smoothing, ``-log p_y + lambda R_k[relu(max_j l_j - l_k - m)]``.

    lambda is ``penalty_weight``, m ``margin``, R_k the mean or the sum over classes k
    (``class_reduction``). It is eq. 7 of Liu et al. 2022. The settings are those of
    :class:`MbLSLoss`; the other arguments and the result those of all losses, see
    :mod:`nnunet_nacl.losses`.

    Examples:
        Two classes, a row of two voxels, logits (1, 2, 2):

        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(mbls(logits, labels, margin=1)), 4)  # log(1 + exp(-4)) + 0.1 (4 - 1) / 2
        0.1681
    """
    return call_loss(MbLSLoss, locals())


@dataclass(eq=False, repr=False, kw_only=True)
class MbLSLoss(SegmentationLoss):
    """Cross-entropy plus a penalty on logit differences beyond a margin (MbLS; Liu et al. 2022, eq.
    7).

    ``-log p_y + lambda R_k[relu(max_j l_j - l_k - m)]``.

    ``ignore_label``, ``regions`` and ``check_labels`` are those of :class:`SegmentationLoss`. For
    regions the penalty is relu(``|l_r|`` - m) for ``sum``, and half of it for ``mean``.

    Args:
        penalty_weight: lambda, not negative; 0 is cross-entropy.
        margin: m, how far the largest logit may exceed the others, not negative.
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
        >>> loss_function = MbLSLoss(margin=10.0)
        >>> logits = torch.zeros(2, 3, 16, 16, requires_grad=True)
        >>> labels = torch.randint(3, (2, 1, 16, 16))
        >>> loss = loss_function(logits, labels)
        >>> round(loss.item(), 4)  # log(3): no difference exceeds the margin
        1.0986
        >>> loss.backward()
    """

    penalty_weight: float = 0.1
    margin: float = 5.0
    class_reduction: str = "mean"

    def check_settings(self) -> None:
        """ValueError for a setting that is out of range."""
        check_not_negative("penalty_weight", self.penalty_weight)
        check_not_negative("margin", self.margin)
        check_class_reduction(self.class_reduction)

    def compute(self, batch: Batch) -> Tensor:
        """The loss of a checked batch, a scalar."""
        factor = self.penalty_weight * batch.class_factor(self.class_reduction)
        loss = voxelwise_cross_entropy(batch)
        if factor != 0:
            loss = loss + factor * _excess(batch, self.margin)
        return batch.mean(loss)


def _excess(batch: Batch, margin: float) -> Tensor:
    """``sum_k relu(max_j l_j - l_k - m)`` of each voxel, (B, *spatial).

    For regions (B, R, *spatial): the larger of the logits of the two classes, in and out, exceeds
    the other by ``|l_r|``.
    """
    if batch.regions:
        return F.relu(batch.logits.abs() - margin)
    # As in the authors' code the gradient flows through the maximum, too.
    largest = batch.logits.max(1, keepdim=True).values
    return F.relu(largest - batch.logits - margin).sum(1)
