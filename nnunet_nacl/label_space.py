"""Interprets targets: classes (softmax) or regions (sigmoid), and which voxels are ignored.

*Classes* exclude each other: K logits, a softmax, an integer label map. *Regions* may overlap: R logits, R sigmoids, R
binary maps, and, where the data set has an ignore label, one more channel that marks the ignored voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """A checked target.

    Attributes:
        labels: Label map (B, *spatial), ignored voxels set to 0; for regions binary maps (B, R, *spatial); any dtype.
        valid: Boolean, (B, *spatial), False where a voxel is ignored; None if nothing can be ignored.
    """

    labels: Tensor
    valid: Tensor | None


@dataclass(frozen=True)
class LabelSpace:
    """The meaning of the target's values.

    Args:
        regions: False for mutually exclusive classes (softmax), True for regions (sigmoid).
        ignore_label: Label of the voxels that have no ground truth; classes only, regions have a mask in the target.

    Raises:
        ValueError: ``ignore_label`` is given together with ``regions``, or is not an integer.
    """

    regions: bool = False
    ignore_label: int | None = None

    def __post_init__(self) -> None:
        if self.ignore_label is None:
            return
        if self.regions:
            raise ValueError(
                f"ignore_label={self.ignore_label!r} has no meaning with regions=True: append the ignore mask to the "
                "target as its last channel, as nnU-Net does."
            )
        if isinstance(self.ignore_label, bool) or int(self.ignore_label) != self.ignore_label:
            raise ValueError(f"ignore_label must be an integer or None, got {self.ignore_label!r}.")

    def read(
        self,
        logits: Tensor,
        target: Tensor,
        check_labels: bool = True,
        *,
        names: tuple[str, str] = ("logits", "target"),
    ) -> Target:
        """Check ``target`` against ``logits`` and split it into labels and mask, see :mod:`nnunet_nacl.losses.batch`.

        ``check_labels`` reads the target back from the device, so training loops check their first batch only; it is
        left out while torch.compile traces. ValueError where shapes do not fit, logits are no floats, or a label is no
        class: there the two have the ``names`` that the caller's arguments have.
        """
        if not (3 <= logits.ndim <= 5) or not logits.is_floating_point():
            raise ValueError(
                "logits must be a floating point tensor of shape (batch, channels, *spatial) with one to three "
                f"spatial axes, got {logits.dtype} of shape {tuple(logits.shape)}."
            )
        split = self._split_regions if self.regions else self._split_classes
        return split(logits, signed(target), check_labels and not torch.compiler.is_compiling(), names)

    def _split_classes(self, logits: Tensor, target: Tensor, check_labels: bool, names: tuple[str, str]) -> Target:
        batch, num_classes, *spatial = logits.shape
        if num_classes < 2:
            raise ValueError(
                f"a softmax needs at least two classes, got logits of shape {tuple(logits.shape)}; "
                "for a single sigmoid output use regions=True."
            )
        labels = target[:, 0] if target.ndim == logits.ndim and target.shape[1] == 1 else target
        if tuple(labels.shape) != (batch, *spatial):
            raise ValueError(
                f"target must have shape {(batch, 1, *spatial)} or {(batch, *spatial)} for logits of shape "
                f"{tuple(logits.shape)}, got {tuple(target.shape)}."
            )
        labels = _widen(labels, num_classes, self.ignore_label or 0)
        if check_labels:
            _check_labels(labels, num_classes, self.ignore_label, names)
        if self.ignore_label is None:
            return Target(labels, None)
        valid = labels != self.ignore_label
        return Target(torch.where(valid, labels, 0), valid)

    def _split_regions(self, logits: Tensor, target: Tensor, check_labels: bool, names: tuple[str, str]) -> Target:
        batch, num_regions, *spatial = logits.shape
        with_mask = (batch, num_regions + 1, *spatial)
        if tuple(target.shape) not in (tuple(logits.shape), with_mask):
            raise ValueError(
                f"target must have shape {tuple(logits.shape)}, or {with_mask} with the ignore mask as last channel, "
                f"for logits of {num_regions} regions, got {tuple(target.shape)}."
            )
        if check_labels and target.dtype != torch.bool:
            outside = (target != 0) & (target != 1)
            if outside.any():
                value = target[outside][0].item()
                raise ValueError(
                    f"{names[1]} of regions must be 0 or 1, got {value:g}: convert label maps to regions first."
                )
        if target.shape[1] == num_regions:
            return Target(target, None)
        return Target(target[:, :-1], target[:, -1] == 0)


def signed(labels: Tensor) -> Tensor:
    """Labels in a dtype that torch computes with: for the wider unsigned integers it lacks most operations."""
    if labels.dtype in (torch.uint32, torch.uint64):
        return labels.long()
    return labels.int() if labels.dtype == torch.uint16 else labels


def _widen(labels: Tensor, *numbers: int) -> Tensor:
    """Labels in a dtype that holds every number they are compared with: torch would let -1 wrap to 255."""
    labels = labels.int() if labels.dtype == torch.bool else labels
    limits = None if labels.is_floating_point() else torch.iinfo(labels.dtype)
    return labels if limits is None or limits.min <= min(numbers) <= max(numbers) <= limits.max else labels.long()


def _check_labels(labels: Tensor, num_classes: int, ignore_label: int | None, names: tuple[str, str]) -> None:
    if labels.numel() == 0:
        return
    outside = (labels < 0) | (labels >= num_classes)
    if labels.is_floating_point():
        outside |= labels != labels.floor()  # also catches NaN, for which every comparison above is False
    if ignore_label is not None:
        outside &= labels != ignore_label
    if outside.any():
        found = ", ".join(f"{value:g}" for value in torch.unique(labels[outside])[:5].tolist())
        ignored = "no ignore label is set" if ignore_label is None else f"the ignore label is {ignore_label}"
        raise ValueError(
            f"{names[1]} holds label(s) {found}, but the {names[0]} have classes 0 to {num_classes - 1} and {ignored}. "
            "Correct the labels; voxels without a known label take an ignore_label."
        )
