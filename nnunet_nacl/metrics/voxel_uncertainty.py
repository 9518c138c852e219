"""Confidence and entropy of each voxel, mutual information of several networks, and the least certain place.

Confidence, entropy and mutual information lie in [0, 1]. Regions (sigmoid) are two-class problems, in or out, so each
region r with probability p_r has a binary form; its least certain region stands for the voxel, since a mean over
regions would let certain regions hide the uncertain one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.metrics.binning import check_chunk, parts, read_probs
from nnunet_nacl.metrics.calibration_error import nanmean

Array = TypeVar("Array", np.ndarray, Tensor)

_BLOCK_VOXELS = 1 << 16  # the working memory stays in the cache, and double precision costs no second copy of a case
_MEMBER_BLOCK_VOXELS = 1 << 18
_LOOKED_AT_MM = 5.0


def confidence(probs: Array, *, regions: bool = False) -> Array:
    """Probability of the predicted class: max_k p_k, from 1/K (undecided) to 1.

    Regions: c_r = max(p_r, 1 - p_r), from 1/2 to 1; the voxel has the smallest.

    Args:
        probs: (K, *spatial) class probabilities or (R, *spatial) region probabilities, any floating type.
        regions: Whether these are sigmoid regions.

    Returns:
        (*spatial) array or tensor, as given; float32, or float64 for float64. ValueError for values that are no
        probabilities, or do not sum to 1 over classes.

    Examples:
        >>> confidence(np.array([[0.7], [0.2], [0.1]]))
        array([0.7])
    """

    def surest(chunk: Tensor) -> Tensor:
        return torch.maximum(chunk, 1 - chunk).amin(0) if regions else chunk.amax(0)

    return _by_block(surest, probs, regions)


def normalised_entropy(probs: Array, *, regions: bool = False) -> Array:
    """Entropy over the largest that there can be: -sum_k p_k log p_k / log K, from 0 (certain) to 1 (uniform).

    Regions: h_r = -(p_r log p_r + (1 - p_r) log(1 - p_r)) / log 2; the voxel has the largest. Values that rounding
    pushes over 1 are set to 1. Arguments, result and errors as :func:`confidence`.

    Examples:
        >>> normalised_entropy(np.array([[0.5], [0.5]]))
        array([1.])
    """
    return _by_block(lambda chunk: _entropies(chunk, regions).amax(0), probs, regions)


def _entropies(chunk: Tensor, regions: bool) -> Tensor:
    """(1, n) normalised entropy of classes, (R, n) of each region."""
    terms = torch.special.entr(chunk)
    if regions:
        return ((terms + torch.special.entr(1 - chunk)) / math.log(2)).clamp(0, 1)
    return (terms.sum(0, keepdim=True) / math.log(len(chunk))).clamp(0, 1)


def _by_block(function: Callable[[Tensor], Tensor], probs: Any, regions: bool) -> Any:
    """(*spatial) float32 or float64 of what ``function`` makes of (K, n) blocks in double precision."""
    tensor = read_probs(probs, regions)
    flat, dtype = tensor.reshape(len(tensor), -1), torch.promote_types(tensor.dtype, torch.float32)
    result = torch.empty(flat.shape[1], dtype=dtype, device=tensor.device)
    for part in parts(flat.shape[1], _BLOCK_VOXELS):
        chunk = flat[:, part].double()
        check_chunk(chunk, regions)
        result[part] = function(chunk)
    result = result.reshape(tensor.shape[1:])
    return result.numpy() if isinstance(probs, np.ndarray) else result


def label_confidence(probs: np.ndarray, labels: np.ndarray, *, regions: bool = False) -> np.ndarray:
    """(*spatial) probability of the label that each voxel has, whether it is the most probable one or not.

    Of (R, *spatial) booleans of regions: p_r where a voxel is in, 1 - p_r where not, the smallest of the voxel.
    """
    if regions:
        return np.where(labels, probs, 1 - probs).min(axis=0)
    return np.take_along_axis(probs, labels[None].astype(np.intp), axis=0)[0]


def mean_uncertainty(
    probs: np.ndarray, labels: np.ndarray, *, regions: bool = False, weights: np.ndarray | None = None
) -> dict[str, float]:
    """Means of ``entropy`` and :func:`label_confidence` over (C, n) voxels, of (n,) ``weights``; NaN without any."""
    if not probs.size:
        return {"entropy": math.nan, "confidence": math.nan}
    sure, entropy = label_confidence(probs, labels, regions=regions), normalised_entropy(probs, regions=regions)
    named = {"entropy": entropy, "confidence": sure}
    return {name: float(np.average(of.astype(np.float64), weights=weights)) for name, of in named.items()}


@dataclass(frozen=True)
class Place:
    """The index of a voxel, and the probability channel of the structure that the doubt there is most about."""

    index: tuple[int, ...]
    channel: int


def least_certain_place(
    doubt: np.ndarray,
    in_box: Callable[[tuple[slice, ...]], np.ndarray],
    foreground: Sequence[int],
    spacing_mm: Sequence[float],
) -> Place:
    """The block of about 5 mm with most doubt, summed over its voxels, and its least certain voxel.

    Every border of a structure is uncertain, but thinly: a block that is uncertain throughout stands out. ``doubt`` is
    (*spatial) 1 - :func:`confidence`, ``in_box`` gives the (C, *block) probabilities of a block, and ``foreground`` are
    the channels that are structures.
    """
    steps = [max(1, min(n, round(_LOOKED_AT_MM / step))) for n, step in zip(doubt.shape, spacing_mm)]
    sums = doubt
    for axis, step in enumerate(steps):
        sums = np.add.reduceat(sums, np.arange(0, doubt.shape[axis], step), axis=axis)
    block = np.unravel_index(int(sums.argmax()), sums.shape)
    inside = tuple(slice(int(i) * step, (int(i) + 1) * step) for i, step in zip(block, steps))
    voxel = np.unravel_index(int(doubt[inside].argmax()), doubt[inside].shape)
    probs = in_box(inside)
    channel = max(foreground, key=lambda k: float((probs[k] * (1 - probs[k])).sum()))
    return Place(tuple(part.start + int(i) for part, i in zip(inside, voxel)), channel)


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Of M members of an ensemble about S structures: mean Dice of their pairs, sizes in voxels, mutual information.

    ``dice`` is (S,), over pairs of members that have the structure in at least one, NaN without such a pair; ``voxels``
    (M, S); ``mutual_information`` (*grid) float32, beside its mean over the foreground, NaN if there is none.
    """

    dice: np.ndarray
    voxels: np.ndarray
    mutual_information: np.ndarray
    foreground_mutual_information: float


@dataclass(eq=False)
class MemberSums:
    """Takes the members one after the other: memory grows with their number by a byte or two a voxel only.

    What they disagree about is H(mean_m p_m) - mean_m H(p_m), H the normalised entropy: 0 where all say the same,
    however unsure, 1 where each is sure, and of all K classes equally often; of regions, of the one with the largest.
    ``structures`` are the label value of each of S structures, or the label values of each region; ``to_probs`` makes
    (C, n) probabilities of what a member is given as, such as logits, and ``label_map`` the (n,) label map of these.
    """

    structures: Sequence[int | tuple[int, ...]]
    label_map: Callable[[np.ndarray], np.ndarray]
    regions: bool
    to_probs: Callable[[np.ndarray], np.ndarray]

    def __post_init__(self) -> None:
        self._probs = self._entropy = np.empty((0, 0), np.float32)
        self._segmentations: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        """One more member: (C, *grid) values that ``to_probs`` takes."""
        if not self._segmentations:
            self._probs = np.zeros((len(values), values[0].size), np.float32)
            self._entropy = np.zeros((len(values) if self.regions else 1, values[0].size), np.float32)
        largest = int(np.max([np.max(value) for value in self.structures]))
        kept = np.empty(self._probs.shape[1], np.min_scalar_type(largest))
        for part, probs in self._blocks(values):
            self._probs[:, part] += probs
            self._entropy[:, part] += self._entropies(probs)
            kept[part] = self.label_map(probs)
        self._segmentations.append(kept)

    def result(self, average: np.ndarray) -> Disagreement:
        """What was found; ``average`` are the (C, *grid) values of the ensemble, whose foreground counts."""
        n, information = len(self._segmentations), np.empty(self._probs.shape[1], np.float32)
        foreground = np.empty(len(information), bool)
        for part, probs in self._blocks(average):
            foreground[part] = self.label_map(probs) != 0
            mean = self._entropies(self._probs[:, part] / n)
            information[part] = (mean - self._entropy[:, part] / n).clip(0, 1).max(0)
        inside = information[foreground]
        in_it = float(inside.mean(dtype=np.float64)) if inside.size else math.nan
        dice, voxels = _compare(self._segmentations, self.structures)
        return Disagreement(dice, voxels, information.reshape(average.shape[1:]), in_it)

    def _blocks(self, values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        flat = values.reshape(len(values), -1)
        for part in parts(flat.shape[1], _MEMBER_BLOCK_VOXELS):
            yield part, self.to_probs(np.ascontiguousarray(flat[:, part]))

    def _entropies(self, probs: np.ndarray) -> np.ndarray:
        return _entropies(torch.from_numpy(probs).double(), self.regions).float().numpy()


def _compare(
    segmentations: list[np.ndarray], structures: Sequence[int | tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """(S,) mean pairwise Dice and (M, S) sizes."""
    anywhere = np.flatnonzero(np.logical_or.reduce([segmentation != 0 for segmentation in segmentations]))
    inside, dice, voxels = np.stack([segmentation[anywhere] for segmentation in segmentations]), [], []
    for values in structures:
        masks = np.isin(inside, values)
        sizes = masks.sum(1)
        pairs = [(a, b) for a, b in combinations(range(len(masks)), 2) if sizes[a] + sizes[b]]
        dice.append(nanmean(2 * np.sum(masks[a] & masks[b]) / (sizes[a] + sizes[b]) for a, b in pairs))
        voxels.append(sizes)
    return np.array(dice), np.stack(voxels, 1)
