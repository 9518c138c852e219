"""Checks a batch of logits and labels, brings it to one form for all losses, and averages over the valid voxels.

Common to all losses (their own descriptions name only what each adds):

* ``logits``: (B, K, *spatial) for K classes, (B, R, *spatial) with ``regions=True``; one to three spatial axes.
* ``target``: classes (B, 1, *spatial) or (B, *spatial), any dtype; regions (B, R, *spatial) binary, or
  (B, R + 1, *spatial) whose last channel marks ignored voxels.
* ``ignore_label``: voxels with this label give no loss and no gradient and enter no neighbourhood.
* ``check_labels``: raise ValueError for labels that are no class. Reads the target back from the device; left out
  under torch.compile. Inside of torch.func.vmap over targets it must be False.
* The result is the mean over the N valid voxels (regions: and over regions), a scalar in float32, or float64 for
  float64 logits, also under autocast. N = 0 gives 0 with zero gradient.
* ValueError for shapes and labels that do not fit and for settings out of range.

Formulas are those of Murugesan et al. 2025 (arXiv 2401.14487) unless said otherwise. y is the label, p the softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.losses.priors import Neighborhood, require_choice, shares


@dataclass(frozen=True)
class Batch:
    """Logits and what they are held against.

    Attributes:
        logits: (B, K, *spatial) or (B, R, *spatial), float32 or float64.
        labels: (B, *spatial), or (B, R, *spatial) for regions.
        valid: Boolean, (B, *spatial); None if nothing can be ignored.
        regions: Whether the channels are regions.
    """

    logits: Tensor
    labels: Tensor
    valid: Tensor | None
    regions: bool

    def shares(self, neighborhood: Neighborhood) -> Tensor:
        """tau of every channel, as large as the logits."""
        num_classes = None if self.regions else self.logits.shape[1]
        return shares(self.labels, num_classes, neighborhood, self.valid, self.logits.dtype)

    def mean(self, per_voxel: Tensor) -> Tensor:
        """Mean over valid voxels, and over regions where there are any; 0 if no voxel is valid."""
        valid = self.valid
        if valid is None:
            return per_voxel.sum() / max(per_voxel.numel(), 1)
        num_values = valid.sum().clamp_min(1) * (per_voxel.numel() // max(valid.numel(), 1))
        return torch.where(valid if per_voxel.ndim == valid.ndim else valid[:, None], per_voxel, 0).sum() / num_values


def read_batch(logits: Tensor, target: Tensor, ignore_label: int | None, regions: bool, check_labels: bool) -> Batch:
    """The batch that a loss is called with; ValueError where shapes or labels do not fit."""
    read = LabelSpace(regions, ignore_label).read(logits, target, check_labels)
    # Half precision logits are computed in float32: their sums over a volume and exp() would overflow.
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return Batch(logits, read.labels, read.valid, regions)


def require_weight(name: str, value: float) -> None:
    """ValueError unless ``value`` is a finite number and not negative."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number, not negative; got {value!r}.")


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {"l1": torch.abs, "l2": torch.square}
"""P on the distance between a logit and its constraint (section 3.3, table 4): the same pull at any distance, or one
that fades near the constraint."""


def share_of_each_class(name: str, num_channels: int, regions: bool) -> float:
    """Factor that turns a sum over the classes of one softmax, or over one region's in and out, into ``name``.

    1 for ``sum`` (the paper's formulas); for ``mean`` (the authors' code) 1 / K, or 1 / 2 for a region, in two classes.
    """
    require_choice("class_reduction", name, ("mean", "sum"))
    return 1.0 if name == "sum" else 0.5 if regions else 1.0 / num_channels
