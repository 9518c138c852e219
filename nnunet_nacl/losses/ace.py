"""Marginal average calibration error as a loss (mL1-ACE)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_nacl.losses.batch import Batch
from nnunet_nacl.losses.checks import check_not_negative
from nnunet_nacl.losses.cross_entropy import voxelwise_cross_entropy
from nnunet_nacl.losses.segmentation_loss import SegmentationLoss, call_loss


def ace(
    logits: Tensor,
    target: Tensor,
    *,
    penalty_weight: float = 1.0,
    n_bins: int = 20,
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy plus lambda times the marginal average calibration error (mL1-ACE).

    ``-log p_y``, its mean over voxels, plus ``lambda mean_k mean_b |mean p_k - share of k|``
    (Barfoot et al., arXiv 2506.03942), b the bins of p_k. The settings are those of
    :class:`ACELoss`; the other arguments and the result those of all losses, see
    :mod:`nnunet_nacl.losses`.

    Examples:
        Two classes, a row of two voxels, logits (1, 2, 2):

        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])
        >>> labels = torch.tensor([[0, 0]])
        >>> # log(1 + exp(-4)) + (|0.982 - 1| + |0.018 - 0|) / 2
        >>> round(float(ace(logits, labels)), 4)
        0.0361
    """
    return call_loss(ACELoss, locals())


@dataclass(eq=False, repr=False, kw_only=True)
class ACELoss(SegmentationLoss):
    """Cross-entropy plus the average calibration error of each class's probability (mL1-ACE).

    ``CE + lambda mean_k mean_b |mean p_k - share of k|`` (Barfoot et al., arXiv 2506.03942): in
    each image and for each class k, the background included, the valid voxels are sorted into bins
    b of p_k; the mean is over the bins that hold a voxel, then over the classes, then over the
    images that have a valid voxel. Bins are hard: they have no gradient.

    ``ignore_label``, ``regions`` and ``check_labels`` are those of :class:`SegmentationLoss`. For
    regions p_r is held against the share of the voxels inside, and the mean is over regions.

    Args:
        penalty_weight: lambda, not negative; 0 is cross-entropy.
        n_bins: Number of bins of equal width, (low, high]; 0 lies in the first.

    Shape:
        - ``logits``: (B, K, *spatial), or (B, R, *spatial) for regions.
        - ``target``: (B, 1, *spatial) or (B, *spatial); for regions (B, R, *spatial), or
          (B, R + 1, *spatial), whose last channel marks the ignored voxels.
        - Output: a scalar.

    Raises:
        ValueError: A setting is out of range.

    Examples:
        >>> import torch
        >>> loss_function = ACELoss(n_bins=15)
        >>> logits = torch.zeros(2, 3, 16, 16, requires_grad=True)
        >>> labels = torch.ones(2, 1, 16, 16)
        >>> loss = loss_function(logits, labels)
        >>> round(loss.item(), 4)  # log(3) + (1 / 3 + |1 / 3 - 1| + 1 / 3) / 3
        1.5431
        >>> loss.backward()
    """

    penalty_weight: float = 1.0
    n_bins: int = 20

    def check_settings(self) -> None:
        """ValueError for a setting that is out of range."""
        check_not_negative("penalty_weight", self.penalty_weight)
        if not isinstance(self.n_bins, int) or self.n_bins < 1:
            raise ValueError(f"n_bins must be a positive integer, got {self.n_bins!r}.")

    def compute(self, batch: Batch) -> Tensor:
        """The loss of a checked batch, a scalar."""
        loss = batch.mean(voxelwise_cross_entropy(batch))
        if self.penalty_weight != 0:
            loss = loss + self.penalty_weight * _average_error(batch, self.n_bins)
        return loss


def _average_error(batch: Batch, n_bins: int) -> Tensor:
    """Mean over images and classes of the mean over non-empty bins of |mean p - share|.

    0 if no voxel is valid.
    """
    if batch.regions:
        probs = torch.sigmoid(batch.logits)
        gaps = probs - batch.labels.to(probs.dtype)
    else:
        probs = torch.softmax(batch.logits, 1)
        gaps = _subtract_one_at(batch.labels, probs)
    bins = _number_bins(probs.detach(), n_bins, batch.valid).flatten(2)
    # (B, K, 1 + n_bins): a column for each bin, and the first for the ignored voxels.
    zeros = probs.new_zeros(*probs.shape[:2], 1 + n_bins)
    gap_sums = zeros.scatter_add(-1, bins, gaps.flatten(2))[..., 1:]
    one_each = bins.new_ones(()).expand_as(bins)
    num_voxels = zeros.long().scatter_add(-1, bins, one_each)[..., 1:]
    filled = num_voxels > 0
    bin_errors = gap_sums.abs() / num_voxels.clamp_min(1)
    class_errors = bin_errors.sum(-1) / filled.sum(-1).clamp_min(1)
    # In an image without a valid voxel no class has a filled bin.
    num_classes_in_images = filled.any(-1).sum()
    return class_errors.sum() / num_classes_in_images.clamp_min(1)


def _subtract_one_at(labels: Tensor, probs: Tensor) -> Tensor:
    """``p_k - [k = y]`` for the label map y, in the shape of the probabilities (B, K, *spatial).

    Only the label's class is touched; a comparison of the label with each class takes three passes
    over the probabilities.
    """
    index = labels.long()[:, None]
    minus_one = probs.new_full((), -1.0).expand_as(index)
    return probs.scatter_add(1, index, minus_one)


def _number_bins(probs: Tensor, n_bins: int, valid: Tensor | None) -> Tensor:
    """Number of the bin, from 1 to ``n_bins``, in which each probability lies; 0 for ignored
    voxels."""
    # 0 lies in the first bin. Clamped as integers: where a network diverges NaN has no bin, and a
    # number out of range would end the training.
    bins = (probs * n_bins).ceil_().long().clamp(1, n_bins)
    if valid is not None:
        bins = torch.where(valid[:, None], bins, 0)
    return bins
