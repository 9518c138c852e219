"""Checks a batch of logits and labels, brings it to one form for all losses, and averages over its
valid voxels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.losses.checks import check_choice
from nnunet_nacl.losses.neighborhood import Neighborhood, compute_shares


@dataclass(frozen=True)
class Batch:
    """Logits and what they are held against.

    Attributes:
        logits: (B, K, *spatial), or (B, R, *spatial) for regions; float32 or float64.
        labels: Label map (B, *spatial), in which ignored voxels are 0; for regions binary maps
            (B, R, *spatial); any type.
        valid: Boolean (B, *spatial), False where a voxel is ignored; None if nothing can be
            ignored.
        regions: Whether the channels are regions.
    """

    logits: Tensor
    labels: Tensor
    valid: Tensor | None
    regions: bool

    @property
    def num_axes(self) -> int:
        """Number of spatial axes."""
        return self.logits.ndim - 2

    def shares(self, neighborhood: Neighborhood) -> Tensor:
        """tau: the share of each class, or region, among a voxel's neighbours; shape of the
        logits."""
        num_classes = None if self.regions else self.logits.shape[1]
        return compute_shares(self.labels, num_classes, neighborhood, self.valid, self.logits.dtype)

    def class_factor(self, class_reduction: str) -> float:
        """What turns a voxel's sum over classes into ``class_reduction``; a region has two, in and
        out.

        ``sum`` (the paper's formulas) is 1, ``mean`` (the authors' code) 1 / K.
        """
        check_class_reduction(class_reduction)
        if class_reduction == "sum":
            return 1.0
        num_classes = 2 if self.regions else self.logits.shape[1]
        return 1.0 / num_classes

    def mean(self, voxelwise: Tensor) -> Tensor:
        """Mean of a voxelwise loss over the valid voxels; 0, with a gradient of 0, if there are
        none.

        Args:
            voxelwise: (B, *spatial), or (B, R, *spatial) for regions, over which is averaged, too.
        """
        if self.valid is None:
            return voxelwise.sum() / max(voxelwise.numel(), 1)
        num_values = self.valid.sum().clamp_min(1)
        valid = self.valid
        if self.regions:
            num_values = num_values * voxelwise.shape[1]
            valid = valid[:, None]
        return torch.where(valid, voxelwise, 0).sum() / num_values


def read_batch(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_label: int | None,
    regions: bool,
    check_labels: bool,
) -> Batch:
    """The batch that a loss is called with, checked; arguments as in :mod:`nnunet_nacl.losses`.

    Raises:
        TypeError: Logits or target are no tensor.
        ValueError: Shapes or labels do not fit, or ``ignore_label`` has no meaning.
    """
    _check_tensor("logits", logits)
    _check_tensor("target", target)
    label_space = LabelSpace(regions, ignore_label)
    read_target = label_space.read(logits, target, check_labels)
    if logits.dtype != torch.float64:
        # In half precision sums over a volume and exp() would overflow.
        logits = logits.float()
    return Batch(logits, read_target.labels, read_target.valid, regions)


def check_class_reduction(class_reduction: str) -> None:
    """ValueError unless it is the name of a reduction over classes."""
    check_choice("class_reduction", class_reduction, ("mean", "sum"))


def _check_tensor(name: str, value: object) -> None:
    """TypeError that says what to do, unless the value is a tensor."""
    if isinstance(value, Tensor):
        return
    if isinstance(value, (list, tuple)):
        raise TypeError(
            f"{name} must be one tensor, got a {type(value).__name__} of {len(value)}: for deep "
            "supervision add up the losses of the scales, as nnU-Net's DeepSupervisionWrapper does."
        )
    raise TypeError(
        f"{name} must be a torch.Tensor, got {type(value).__name__}; torch.as_tensor converts"
        " arrays."
    )
