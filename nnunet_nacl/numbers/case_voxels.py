"""The voxels of one case as calibration and fits take them: log-odds, labels, truth and weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.numbers.log_odds_map import clipped, is_certain, log_loss


@dataclass(frozen=True)
class LabelVoxels:
    """Voxels of one label, but for certain background, which no map changes.

    Attributes:
        odds: (m, n) clipped log-odds; of a region (1, n).
        target: (n,) true class, or whether the voxel is in the region.
        weights: (n,) float64; those of a case sum to at most 1.
    """

    odds: Tensor
    target: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Voxels:
    """Voxels of one case.

    Attributes:
        log_odds: (m, N), see :func:`nnunet_nacl.numbers.log_odds_map.log_odds`; not clipped.
        label: (N,) most probable class 0..m, or (m, N) whether the network chose in (1) or out of (0) each region.
        target: The true ones, alike.
        weights: (N,) how many voxels of the case each stands for; None for one each.
    """

    log_odds: Tensor
    label: Tensor
    target: Tensor
    weights: Tensor | None = None

    @property
    def regions(self) -> bool:
        """Whether the structures are regions."""
        return self.target.ndim == 2

    @property
    def all_weights(self) -> Tensor:
        """(N,) float64."""
        return torch.ones(self.log_odds.shape[1]).double() if self.weights is None else self.weights.double()

    @cached_property
    def by_label(self) -> dict[tuple[int, int], LabelVoxels]:
        """By label and, of regions, by region (else 0): the voxels that a map changes."""
        inner, result = torch.nonzero(~is_certain(self.log_odds)).ravel(), {}
        weights = self.all_weights / self.all_weights.sum() / (len(self.target) if self.regions else 1)
        for place, (label, target) in enumerate(zip(torch.atleast_2d(self.label), torch.atleast_2d(self.target))):
            own = slice(place, place + 1) if self.regions else slice(None)
            for value in label[inner].unique().tolist():
                here = inner[label[inner] == value]
                odds = clipped(self.log_odds[own, here].float(), self.regions).double()
                result[int(value), place] = LabelVoxels(odds, target[here].long(), weights[here])
        return result

    @cached_property
    def certain_loss(self) -> float:
        """What the voxels that no map changes add to the mean loss of the case."""
        certain = is_certain(self.log_odds)
        odds, target = self.log_odds[:, certain].double(), self.target[..., certain].long()
        if self.regions:
            losses = (torch.nn.functional.softplus(odds) - target * odds).mean(0)
        else:
            losses = log_loss(torch.zeros_like(odds[0]), odds, target)
        return float(losses @ self.all_weights[certain] / self.all_weights.sum())


def voxels_by_label(cases: Sequence[Voxels]) -> Iterator[tuple[int, int, LabelVoxels]]:
    """Label, region (0 of classes) and the voxels of all cases that have both, in order."""
    for label, place in sorted(set().union(*(case.by_label for case in cases))):
        own = [vars(case.by_label[label, place]) for case in cases if (label, place) in case.by_label]
        yield label, place, LabelVoxels(*(torch.cat([voxels[name] for voxels in own], -1) for name in own[0]))


def structures_there(cases: Iterable[Voxels]) -> np.ndarray:
    """(m,) whether a structure is in the truth of any case."""
    there = [
        case.target.any(1).numpy() if case.regions else np.isin(np.arange(1, 1 + len(case.log_odds)), case.target)
        for case in cases
    ]
    return np.any(there, axis=0)


def pack(inside: Iterable[np.ndarray], num: int) -> np.ndarray:
    """``num`` boolean arrays of one shape as integers, the first in bit 0."""
    dtype = np.min_scalar_type((1 << num) - 1)
    packed = np.zeros((), dtype)
    for bit, mask in enumerate(inside):
        packed = packed | mask.astype(dtype) << dtype.type(bit)
    return packed


def unpack(packed: np.ndarray, num: int) -> np.ndarray:
    """Inverse of :func:`pack`, as uint8."""
    return (packed >> np.arange(num, dtype=packed.dtype)[:, None] & packed.dtype.type(1)).astype(np.uint8)
