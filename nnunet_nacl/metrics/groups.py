"""Calibration sums by disjoint group of voxels; every mask is a sum of groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.metrics.binning import BinStats, bin_index

__all__ = ["FIRST_EXTRA", "PREDICTED", "GroupSums", "add_at", "group_numbers"]

# bits of a group's number: in the true foreground, in the predicted foreground, in each further mask
TRUTH, PREDICTED, FIRST_EXTRA = 0, 1, 2


@dataclass
class GroupSums:
    """The fields of BinStats with a leading axis for the group, as tensors on the device of the probabilities."""

    count: Tensor
    confidence: Tensor
    correct: Tensor
    class_count: Tensor
    class_confidence: Tensor
    class_positive: Tensor
    nll: Tensor
    brier: Tensor

    @classmethod
    def zeros(
        cls, groups: int, num_classes: int, n_bins: int, regions: bool, device: torch.device
    ) -> GroupSums:
        rows = num_classes if regions else 1

        def make(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(groups, *shape, dtype=dtype, device=device)

        real = torch.float64
        return cls(
            make(rows, n_bins), make(rows, n_bins, dtype=real), make(rows, n_bins),
            make(num_classes, n_bins), make(num_classes, n_bins, dtype=real), make(num_classes, n_bins),
            make(rows, dtype=real), make(rows, dtype=real),
        )  # fmt: skip

    def by_mask(self, extra: list[str]) -> dict[str, BinStats]:
        arrays = [getattr(self, name).cpu().numpy() for name in self.__dataclass_fields__]
        groups = np.arange(len(arrays[0]))
        truth, predicted = groups >> TRUTH & 1 > 0, groups >> PREDICTED & 1 > 0
        chosen = {"all": groups >= 0, "foreground": truth, "predicted": predicted, "union": truth | predicted}
        chosen |= {name: groups >> FIRST_EXTRA + i & 1 > 0 for i, name in enumerate(extra)}
        return {name: BinStats(*(array[which].sum(axis=0) for array in arrays)) for name, which in chosen.items()}

    def add_class_bins(self, probs: Tensor, double: Tensor, group: Tensor) -> None:
        """Bin (K, m) probabilities by group: those above the lowest bin one by one, the others by a product.

        Args:
            probs: The probabilities.
            double: The same in double precision.
            group: (m,) group of each voxel.
        """
        groups, num_classes, n_bins = self.class_count.shape
        total_count = torch.bincount(group, minlength=groups)
        present = total_count.nonzero().squeeze(1)  # few of the groups: the product is that much cheaper
        column = torch.zeros(groups, dtype=torch.long, device=group.device)
        column[present] = torch.arange(len(present), device=group.device)
        members = torch.zeros(len(group), len(present), dtype=torch.float64, device=group.device)
        members.scatter_(1, column[group][:, None], 1)
        above = probs > 1.0 / n_bins
        self.class_confidence[present, :, 0] += (torch.where(above, 0, double) @ members).T
        which, voxel = above.nonzero(as_tuple=True)
        values = probs[which, voxel]
        index = (group[voxel] * num_classes + which) * n_bins + bin_index(values, n_bins)
        # an edge rounded upwards may leave a few values of the lowest bin among these: add, do not overwrite
        add_at(self.class_confidence, index, values.double())
        count = torch.bincount(index, minlength=self.class_count.numel()).view_as(self.class_count)
        count[..., 0] += total_count[:, None] - count.sum(-1)
        self.class_count += count


def group_numbers(truth_foreground: Tensor, masks: list[Tensor]) -> Tensor:
    """uint8 group of each voxel, the bit of the predicted foreground still 0."""
    numbers = truth_foreground.to(torch.uint8)
    for i, mask in enumerate(masks):
        numbers |= mask.view(torch.uint8) << FIRST_EXTRA + i
    return numbers


def add_at(target: Tensor, index: Tensor, weights: Tensor | None = None) -> None:
    """target.flat[index] += weights (or 1), duplicates included."""
    if len(index):
        flat = target.view(-1)
        flat += torch.bincount(index, weights=weights, minlength=flat.numel())
