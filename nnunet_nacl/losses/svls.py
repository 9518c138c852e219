"""Spatially varying label smoothing (SVLS)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nnunet_nacl.losses.batch import Batch
from nnunet_nacl.losses.cross_entropy import soft_cross_entropy
from nnunet_nacl.losses.neighborhood import Neighborhood
from nnunet_nacl.losses.segmentation_loss import SegmentationLoss, call_loss


def svls(
    logits: Tensor,
    target: Tensor,
    *,
    sigma: float = 2.0,
    kernel_size: int | tuple[int, ...] = 3,
    padding: str = "replicate",
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy against spatially smoothed labels, ``-sum_k tau_k log p_k`` (eq. 3).

    The settings are those of :class:`SVLSLoss`; the other arguments and the result those of all
    losses, see :mod:`nnunet_nacl.losses`.

    Examples:
        Two classes, a row of two voxels, logits (1, 2, 2):

        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(svls(logits, labels)), 4)  # all neighbours agree: cross-entropy
        0.0181
    """
    return call_loss(SVLSLoss, locals())


@dataclass(eq=False, repr=False, kw_only=True)
class SVLSLoss(SegmentationLoss):
    """Cross-entropy against labels smoothed over the neighbourhood (SVLS; Islam and Glocker 2021).

    ``-sum_k tau_k log p_k`` (Murugesan et al. 2025, eq. 3), tau_k the share of class k in the
    voxel's neighbourhood under a Gaussian kernel whose centre weighs as much as all of its
    neighbours together.

    ``ignore_label``, ``regions`` and ``check_labels`` are those of :class:`SegmentationLoss`. For
    regions it is the binary cross-entropy against the share that lies in the region.

    Args:
        sigma: Width of the kernel in voxels.
        kernel_size: Odd size of the neighbourhood in voxels, one for all axes or one per axis.
        padding: What lies outside of the image: ``replicate`` (the authors' code), ``valid``,
            ``background`` or ``zeros``, see :class:`~nnunet_nacl.losses.neighborhood.Neighborhood`.

    Shape:
        - ``logits``: (B, K, *spatial), or (B, R, *spatial) for regions.
        - ``target``: (B, 1, *spatial) or (B, *spatial); for regions (B, R, *spatial), or
          (B, R + 1, *spatial), whose last channel marks the ignored voxels.
        - Output: a scalar.

    Raises:
        ValueError: A setting is out of range.

    Examples:
        >>> import torch
        >>> loss_function = SVLSLoss(sigma=1.0)
        >>> logits = torch.zeros(2, 3, 16, 16, requires_grad=True)
        >>> labels = torch.randint(3, (2, 1, 16, 16))
        >>> loss = loss_function(logits, labels)
        >>> round(loss.item(), 4)  # log(3), whatever the shares are
        1.0986
        >>> loss.backward()
    """

    sigma: float = 2.0
    kernel_size: int | tuple[int, ...] = 3
    padding: str = "replicate"

    def check_settings(self) -> None:
        """ValueError for a setting that is out of range."""
        self._neighborhood()

    def compute(self, batch: Batch) -> Tensor:
        """The loss of a checked batch, a scalar."""
        return batch.mean(soft_cross_entropy(batch, batch.shares(self._neighborhood())))

    def _neighborhood(self) -> Neighborhood:
        return Neighborhood(self.kernel_size, "svls", self.sigma, self.padding)
