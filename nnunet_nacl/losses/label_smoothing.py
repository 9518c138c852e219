"""Label smoothing (LS)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from nnunet_nacl.losses.batch import Batch
from nnunet_nacl.losses.cross_entropy import soft_cross_entropy
from nnunet_nacl.losses.segmentation_loss import SegmentationLoss, call_loss


def label_smoothing(
    logits: Tensor,
    target: Tensor,
    *,
    smoothing: float = 0.1,
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy against ``q_k = (1 - alpha) [k = y] + alpha / K`` (eq. 2).

    The setting is that of :class:`LabelSmoothingLoss`; the other arguments and the result are those
    of all losses, see :mod:`nnunet_nacl.losses`.

    Examples:
        Two classes, a row of two voxels, logits (1, 2, 2):

        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(label_smoothing(logits, labels)), 4)  # log(1 + exp(-4)) + 0.05 * 4
        0.2181
    """
    return call_loss(LabelSmoothingLoss, locals())


@dataclass(eq=False, repr=False, kw_only=True)
class LabelSmoothingLoss(SegmentationLoss):
    """Cross-entropy with label smoothing (LS; Szegedy et al. 2016).

    ``-sum_k q_k log p_k, q_k = (1 - alpha) [k = y] + alpha / K`` (Murugesan et al. 2025, eq. 2).

    ``ignore_label``, ``regions`` and ``check_labels`` are those of :class:`SegmentationLoss`. A
    region is smoothed as two classes, in and out: 1 becomes 1 - alpha / 2, and 0 becomes alpha / 2.

    Args:
        smoothing: alpha, in [0, 1]; 0 is cross-entropy.

    Shape:
        - ``logits``: (B, K, *spatial), or (B, R, *spatial) for regions.
        - ``target``: (B, 1, *spatial) or (B, *spatial); for regions (B, R, *spatial), or
          (B, R + 1, *spatial), whose last channel marks the ignored voxels.
        - Output: a scalar.

    Raises:
        ValueError: ``smoothing`` does not lie in [0, 1].

    Examples:
        >>> import torch
        >>> loss_function = LabelSmoothingLoss(smoothing=0.2)
        >>> logits = torch.zeros(2, 3, 16, 16, requires_grad=True)
        >>> labels = torch.randint(3, (2, 1, 16, 16))
        >>> loss = loss_function(logits, labels)
        >>> round(loss.item(), 4)  # log(3), whatever the smoothing is
        1.0986
        >>> loss.backward()
    """

    smoothing: float = 0.1

    def check_settings(self) -> None:
        """ValueError for a setting that is out of range."""
        if not 0 <= self.smoothing <= 1:
            raise ValueError(f"smoothing must lie in [0, 1], got {self.smoothing!r}.")

    def compute(self, batch: Batch) -> Tensor:
        """The loss of a checked batch, a scalar."""
        return batch.mean(_smoothed_cross_entropy(batch, self.smoothing))


def _smoothed_cross_entropy(batch: Batch, smoothing: float) -> Tensor:
    """``-sum_k q_k log p_k`` of each voxel, (B, *spatial); for regions (B, R, *spatial)."""
    if batch.regions:
        shares = batch.labels.to(batch.logits.dtype) * (1 - smoothing) + smoothing / 2
        return soft_cross_entropy(batch, shares)
    labels = batch.labels.long()
    return F.cross_entropy(batch.logits, labels, reduction="none", label_smoothing=smoothing)
