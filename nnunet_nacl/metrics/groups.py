"""Calibration sums by disjoint group of voxels; every mask is a sum of groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.metrics.binning import BinStats

__all__ = ["FIRST_EXTRA", "PREDICTED", "GroupSums", "group_numbers"]

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
    def zeros(cls, groups: int, num_classes: int, n_bins: int, regions: bool, device: torch.device) -> GroupSums:
        """Sums of no voxel at all, in every group."""
        single = BinStats.zeros(num_classes, n_bins=n_bins, regions=regions)
        arrays = (torch.as_tensor(getattr(single, name), device=device) for name in cls.__dataclass_fields__)
        return cls(*(array.repeat(groups, *[1] * array.ndim) for array in arrays))

    def by_mask(self, extra: list[str]) -> dict[str, BinStats]:
        arrays = [getattr(self, name).cpu().numpy() for name in self.__dataclass_fields__]
        groups = np.arange(len(arrays[0]))
        truth, predicted = groups >> TRUTH & 1 > 0, groups >> PREDICTED & 1 > 0
        chosen = {"all": groups >= 0, "foreground": truth, "predicted": predicted, "union": truth | predicted}
        chosen |= {name: groups >> FIRST_EXTRA + i & 1 > 0 for i, name in enumerate(extra)}
        return {name: BinStats(*(array[which].sum(axis=0) for array in arrays)) for name, which in chosen.items()}


def group_numbers(truth_foreground: Tensor, masks: list[Tensor]) -> Tensor:
    """uint8 group of each voxel, the bit of the predicted foreground still 0."""
    numbers = truth_foreground.to(torch.uint8)
    for i, mask in enumerate(masks):
        numbers |= mask.to(torch.uint8) << FIRST_EXTRA + i
    return numbers
