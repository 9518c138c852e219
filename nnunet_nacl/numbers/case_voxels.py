"""The voxels of one case as calibration and fits take them: log-odds, labels, truth, masks and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.numbers.log_odds_map import clipped, is_certain, log_loss

MASK_BITS = ("foreground", "union", "dilated", "boundary", "predicted", "near")
"""The bits of a voxel's masks, lowest first; every voxel is in ``all``."""


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


@dataclass(frozen=True)
class HeldOutCase:
    """What calibration needs of one case: N voxels that the network saw and that have a truth.

    Attributes:
        target: (N,) true class, or for regions the integer whose bit r says whether the voxel lies in region r.
        label: (N,) most probable class, or the integer of the regions that are predicted.
        masks: (N,) bits of ``MASK_BITS`` for each.
        outside: (V, 3) target, masks and number of the voxels that the network did not see.
        regions: Whether the structures are regions.
        odds: Gives (m, n) log-odds block by block, in the order of the voxels.
    """

    target: np.ndarray
    label: np.ndarray
    masks: np.ndarray
    outside: np.ndarray
    regions: bool
    odds: Callable[[], Iterator[Tensor]]


def read_voxels(data: Any, labels: Any, settings: Any) -> HeldOutCase:
    """Take apart one case in memory.

    Args:
        data: Its label maps and probabilities, as an evaluation loads them.
        labels: Its structures, as an evaluation knows them.
        settings: ``dilation_mm`` and ``boundary_mm`` of the masks.

    Raises:
        ValueError: The network saw no voxel that has a truth.
    """
    known = data.truth_and_masks(settings.dilation_mm, settings.boundary_mm)
    truth, regions = known.labels, labels.regions
    valid = np.ones(truth.shape, dtype=bool) if known.valid is None else known.valid
    if regions:
        codes = pack((labels.mask(truth, channel) for channel in labels.foreground), len(labels.values))
    else:
        codes = truth.astype(np.uint8 if len(labels.values) <= 256 else np.uint16)
    label = np.zeros(truth.shape, dtype=codes.dtype)
    for where, odds in data.probabilities.odds_blocks():
        label[where] = _labels(odds, regions)
    predicted = label != 0
    foreground = codes != 0
    masks = {"foreground": foreground, "union": foreground | predicted, **known.around, "predicted": predicted}
    masks["near"] = data.near(predicted, settings.dilation_mm)
    bits = pack((masks[name] for name in MASK_BITS), len(MASK_BITS))
    inner, crop = np.zeros(truth.shape, dtype=bool), data.probabilities.crop
    if crop is not None:
        inner[crop] = valid[crop]
    if not inner.any():
        raise ValueError("nothing but certain background, or nothing with a ground truth; leave this case out.")

    def odds_inside() -> Iterator[Tensor]:
        for where, odds in data.probabilities.odds_blocks():
            known = inner[where]
            yield odds.flatten(1) if known.all() else odds[:, torch.from_numpy(known)]

    outside = _kinds(codes, bits, valid & ~inner)
    return HeldOutCase(codes[inner], label[inner], bits[inner], outside, regions, odds_inside)


def _labels(odds: Tensor, regions: bool) -> np.ndarray:
    """(*block) what the network chose, by (m, *block) log-odds: the lower one of equal classes."""
    if regions:
        return pack((odds > 0).numpy(), len(odds))
    largest, place = odds.max(0)
    return torch.where(largest > 0, place + 1, 0).numpy()


def _kinds(codes: np.ndarray, bits: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """(V, 3) the different pairs of target and masks outside the crop, and how many voxels have each."""
    plain = outer & (codes == 0) & (bits == 0)  # nearly all of them: they need no sorting
    special = outer & ~plain
    pairs = np.stack([codes[special], bits[special]], 1).astype(np.int64)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    rows = np.column_stack([pairs.reshape(-1, 2), counts])
    n_plain = int(np.count_nonzero(plain))
    return np.concatenate([np.array([[0, 0, n_plain]], np.int64), rows]) if n_plain else rows
