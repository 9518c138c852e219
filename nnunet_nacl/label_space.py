"""Interprets targets: classes (softmax) or regions (sigmoid), and which voxels are ignored.

*Classes* exclude each other: K logits, a softmax, an integer label map. *Regions* may overlap: R
logits, R sigmoids, R binary maps, and, where the data set has an ignore label, one more channel
that marks the ignored voxels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

_TOLERANCE = 1e-2  # of sums of probabilities in half precision


@dataclass(frozen=True)
class Target:
    """A checked target of a batch of B cases, for R regions where these are not classes.

    Attributes:
        labels: Label map (B, *spatial), ignored voxels set to 0; for regions binary maps
            (B, R, *spatial); any type.
        valid: Boolean, (B, *spatial), False where a voxel is ignored; None if nothing can be
            ignored.
    """

    labels: Tensor
    valid: Tensor | None


@dataclass(frozen=True)
class LabelSpace:
    """The meaning of the target's values.

    Args:
        regions: False for mutually exclusive classes (softmax), True for regions (sigmoid).
        ignore_label: Label of the voxels that have no ground truth; classes only, regions have a
            mask in the target.

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
                f"ignore_label={self.ignore_label!r} has no meaning with regions=True: append the "
                "ignore mask to the target as its last channel, as nnU-Net does."
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
        """Check ``target`` against ``logits`` and split it into labels and mask.

        Args:
            logits: (B, K, *spatial) for K classes, (B, R, *spatial) for R regions; one to three
                spatial axes.
            target: (B, 1, *spatial) or (B, *spatial) for classes; (B, R, *spatial) for regions, or
                (B, R + 1, *spatial), whose last channel is 1 where a voxel is ignored; any type.
            check_labels: Whether to look for labels that are no class, and to warn of logits that
                are a softmax's output. This reads values back from the device, so training loops do
                it for their first batch only. It is left out while torch.compile traces.
            names: What the caller calls the two, for errors of labels; logits of another name may
                be probabilities.

        Raises:
            ValueError: Shapes do not fit, logits are no floats, or a label is no class.
        """
        if not (3 <= logits.ndim <= 5) or not logits.is_floating_point():
            raise ValueError(
                "logits must be a floating point tensor of shape (batch, channels, *spatial) with"
                f" one to three spatial axes, got {logits.dtype} of shape {tuple(logits.shape)}."
            )
        look_at_labels = check_labels and not torch.compiler.is_compiling()
        name_of_logits, _ = names
        if look_at_labels and not self.regions and name_of_logits == "logits":
            _warn_of_probabilities(logits.detach())
        if self.regions:
            return _read_regions(logits, signed(target), look_at_labels, names)
        return self._read_classes(logits, signed(target), look_at_labels, names)

    def _read_classes(
        self,
        logits: Tensor,
        target: Tensor,
        check_labels: bool,
        names: tuple[str, str],
    ) -> Target:
        batch_size, num_classes, *spatial = logits.shape
        if num_classes < 2:
            raise ValueError(
                f"a softmax needs at least two classes, got logits of shape {tuple(logits.shape)}; "
                "for a single sigmoid output use regions=True."
            )
        has_channel = target.ndim == logits.ndim and target.shape[1] == 1
        labels = target[:, 0] if has_channel else target
        if tuple(labels.shape) != (batch_size, *spatial):
            is_one_hot = target.shape == logits.shape
            raise ValueError(
                f"target must have shape {(batch_size, 1, *spatial)} or {(batch_size, *spatial)}"
                f" for logits of shape {tuple(logits.shape)}, got {tuple(target.shape)}"
                f"{'; of one-hot labels give target.argmax(1)' if is_one_hot else ''}."
            )
        labels = _widen(labels, num_classes, self.ignore_label)
        if check_labels:
            _check_labels(labels, num_classes, self.ignore_label, names)
        if self.ignore_label is None:
            return Target(labels, valid=None)
        valid = labels != self.ignore_label
        return Target(torch.where(valid, labels, 0), valid)


def _warn_of_probabilities(logits: Tensor) -> None:
    """Warn, once in a process, of logits that went through a softmax: a loss would take a second
    one, and train to something else unseen."""
    if logits.numel() == 0 or not 0 <= logits.min() <= logits.max() <= 1:
        return
    if ((logits.float().sum(1) - 1).abs() < _TOLERANCE).all():
        warnings.warn(
            "these logits lie in [0, 1] and sum to 1 in every voxel, as a softmax gives them; give"
            " the network's output before the softmax.",
            stacklevel=2,
        )


def signed(labels: Tensor) -> Tensor:
    """Labels in a type that torch computes with: for the wider unsigned integers it lacks most
    operations."""
    if labels.dtype in (torch.uint32, torch.uint64):
        return labels.long()
    if labels.dtype == torch.uint16:
        return labels.int()
    return labels


def _read_regions(
    logits: Tensor,
    target: Tensor,
    check_labels: bool,
    names: tuple[str, str],
) -> Target:
    batch_size, num_regions, *spatial = logits.shape
    without_mask = (batch_size, num_regions, *spatial)
    with_mask = (batch_size, num_regions + 1, *spatial)
    if tuple(target.shape) not in (without_mask, with_mask):
        raise ValueError(
            f"target must have shape {without_mask}, or {with_mask} with the ignore mask as last "
            f"channel, for logits of {num_regions} regions, got {tuple(target.shape)}."
        )
    if check_labels and target.dtype != torch.bool:
        outside = (target != 0) & (target != 1)
        if outside.any():
            value = target[outside][0].item()
            raise ValueError(
                f"{names[1]} of regions must be 0 or 1, got {value:g}: convert label maps to"
                " regions first."
            )
    if tuple(target.shape) == without_mask:
        return Target(target, valid=None)
    return Target(target[:, :-1], valid=target[:, -1] == 0)


def _widen(labels: Tensor, num_classes: int, ignore_label: int | None) -> Tensor:
    """Labels in a type that holds all numbers they are compared with: torch would let -1 wrap to
    255."""
    if labels.is_floating_point():
        return labels
    if labels.dtype == torch.bool:
        labels = labels.int()
    limits = torch.iinfo(labels.dtype)
    compared = (num_classes, ignore_label or 0)
    if limits.min <= min(compared) and max(compared) <= limits.max:
        return labels
    return labels.long()


def _check_labels(
    labels: Tensor,
    num_classes: int,
    ignore_label: int | None,
    names: tuple[str, str],
) -> None:
    """ValueError that names some of the labels that are neither a class nor ignored."""
    if labels.numel() == 0:
        return
    outside = (labels < 0) | (labels >= num_classes)
    if labels.is_floating_point():
        outside |= labels != labels.floor()  # also NaN, for which every comparison above is False
    if ignore_label is not None:
        outside &= labels != ignore_label
    if not outside.any():
        return
    examples = torch.unique(labels[outside])[:5].tolist()
    listed = ", ".join(f"{value:g}" for value in examples)
    is_none = ignore_label is None
    ignored = "no ignore label is set" if is_none else f"the ignore label is {ignore_label}"
    name_of_logits, name_of_target = names
    raise ValueError(
        f"{name_of_target} holds label(s) {listed}, but the {name_of_logits} have classes 0 to"
        f" {num_classes - 1} and {ignored}. Correct the labels; voxels without a known label take"
        " an ignore_label."
    )
