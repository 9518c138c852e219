"""Confidence and entropy of each voxel, mutual information of several networks, and the least certain place.

Confidence, entropy and mutual information lie in [0, 1]. Regions (sigmoid) are two-class problems, in or out, so each
region r with probability p_r has a binary form; its least certain region stands for the voxel, since a mean over
regions would let certain regions hide the uncertain one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.numbers.binning import check_chunk, parts, read_probs
from nnunet_nacl.numbers.calibration_error import nanmean
from nnunet_nacl.numbers.expected_dice import Regions, region_table

Array = TypeVar("Array", np.ndarray, Tensor)

_BLOCK_VOXELS = 1 << 16  # the working memory stays in the cache, and double precision costs no second copy of a case
_MEMBER_BLOCK_VOXELS = 1 << 18
_LOOKED_AT_MM = 5.0


def confidence(probs: Array, *, regions: bool = False, check_values: bool = True) -> Array:
    """Probability of the predicted class: max_k p_k, from 1/K (undecided) to 1.

    Regions: c_r = max(p_r, 1 - p_r), from 1/2 to 1; the voxel has the smallest.

    Args:
        probs: (K, *spatial) class probabilities or (R, *spatial) region probabilities, any floating type.
        regions: Whether these are sigmoid regions.
        check_values: ValueError for values that are no probabilities, or do not sum to 1 over classes.

    Returns:
        (*spatial) array or tensor, as given; float32, or float64 for float64.

    Example:
        >>> confidence(np.array([[0.7], [0.2], [0.1]]))
        array([0.7])
    """

    def surest(chunk: Tensor) -> Tensor:
        return torch.maximum(chunk, 1 - chunk).amin(0) if regions else chunk.amax(0)

    return _by_block(surest, probs, regions, check_values)[0]


def normalised_entropy(probs: Array, *, regions: bool = False, check_values: bool = True) -> Array:
    """Entropy over the largest that there can be: -sum_k p_k log p_k / log K, from 0 (certain) to 1 (uniform).

    Regions: h_r = -(p_r log p_r + (1 - p_r) log(1 - p_r)) / log 2; the voxel has the largest. Values that rounding
    pushes over 1 are set to 1. Arguments, result and errors as :func:`confidence`.

    Example:
        >>> normalised_entropy(np.array([[0.5], [0.5]]))
        array([1.])
    """
    return _by_block(lambda chunk: _entropies(chunk, regions).amax(0), probs, regions, check_values)[0]


def mutual_information(members: Sequence[Array] | Array, *, regions: bool = False) -> Array:
    """What M members disagree about: H(mean_m p_m) - mean_m H(p_m), H the normalised entropy; (*spatial).

    From 0 (all members say the same, however unsure, or there is one) to 1 (each sure, all K classes equally often), in
    units of log K. Regions: of the region with the largest, in units of log 2.

    Args:
        members: M arrays or tensors of one shape, or one with a leading axis of members; see :func:`confidence`.
        regions: Whether these are sigmoid regions.

    Raises:
        ValueError: No member, members of several shapes, or values that are no probabilities.

    Example:
        >>> mutual_information([np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]])])
        array([1.])
    """
    tensors = [read_probs(probs, regions) for probs in members]
    shapes = list(dict.fromkeys(tuple(tensor.shape) for tensor in tensors))
    if len(shapes) != 1:
        raise ValueError(f"members must be arrays of one shape, got {' and '.join(map(str, shapes)) or 'none'}.")
    mean = sum(tensors[1:], tensors[0]) / len(tensors)
    shared = sum(_entropy_maps(tensor, regions, True) for tensor in tensors) / len(tensors)
    disputed = (_entropy_maps(mean, regions, True) - shared).clamp(0, 1).amax(0)
    return disputed if isinstance(members[0], Tensor) else disputed.numpy()


def _entropies(chunk: Tensor, regions: bool) -> Tensor:
    """(1, n) normalised entropy of classes, (R, n) of each region."""
    terms = torch.special.entr(chunk)
    if regions:
        return ((terms + torch.special.entr(1 - chunk)) / math.log(2)).clamp(0, 1)
    return (terms.sum(0, keepdim=True) / math.log(len(chunk))).clamp(0, 1)


def _by_block(function: Callable[[Tensor], Tensor], probs: Any, regions: bool, check: bool, rows: int = 1) -> Any:
    """(rows, *spatial) float32 or float64 of what ``function`` makes of (K, n) blocks in double precision."""
    tensor = read_probs(probs, regions)
    flat, dtype = tensor.reshape(len(tensor), -1), torch.promote_types(tensor.dtype, torch.float32)
    result = torch.empty((rows, flat.shape[1]), dtype=dtype, device=tensor.device)
    for part in parts(flat.shape[1], _BLOCK_VOXELS):
        chunk = flat[:, part].double()
        if check:
            check_chunk(chunk, regions)
        result[:, part] = function(chunk)
    result = result.reshape(rows, *tensor.shape[1:])
    return result.numpy() if isinstance(probs, np.ndarray) else result


def _entropy_maps(probs: Any, regions: bool, check: bool) -> Any:
    """(1, *spatial) normalised entropy of classes, (R, *spatial) of each region."""
    return _by_block(partial(_entropies, regions=regions), probs, regions, check, len(probs) if regions else 1)


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

    ``structures`` are the label value of each of S structures, or the label values of each region; ``to_probs`` makes
    (C, n) probabilities of what a member is given as, such as logits, and ``label_map`` the (n,) label map of these.
    """

    structures: Regions
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
            self._entropy[:, part] += _entropy_maps(probs, self.regions, False)
            kept[part] = self.label_map(probs)
        self._segmentations.append(kept)

    def result(self, average: np.ndarray) -> Disagreement:
        """What was found; ``average`` are the (C, *grid) values of the ensemble, whose foreground counts."""
        foreground = np.concatenate([self.label_map(probs) for _, probs in self._blocks(average)]) != 0
        n, information = len(self._segmentations), np.empty(self._probs.shape[1], np.float32)
        for part in parts(len(information), _MEMBER_BLOCK_VOXELS):
            mean = _entropy_maps(self._probs[:, part] / n, self.regions, False)
            information[part] = (mean - self._entropy[:, part] / n).clip(0, 1).max(0)
        inside = information[foreground]
        in_it = float(inside.mean(dtype=np.float64)) if inside.size else float("nan")
        dice, voxels = _compare(self._segmentations, self.structures)
        return Disagreement(dice, voxels, information.reshape(average.shape[1:]), in_it)

    def _blocks(self, values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        flat = values.reshape(len(values), -1)
        for part in parts(flat.shape[1], _MEMBER_BLOCK_VOXELS):
            yield part, self.to_probs(np.ascontiguousarray(flat[:, part]))


def _compare(segmentations: list[np.ndarray], structures: Regions) -> tuple[np.ndarray, np.ndarray]:
    """(S,) mean pairwise Dice and (M, S) sizes, from how often two members give a voxel each pair of labels."""
    anywhere = np.flatnonzero(np.logical_or.reduce([segmentation != 0 for segmentation in segmentations]))
    inside = [segmentation[anywhere].astype(np.int64) for segmentation in segmentations]
    table = region_table(structures, max(labels.max(initial=0) for labels in inside)).numpy().astype(float)
    n_labels = table.shape[1]
    voxels = np.stack([table @ np.bincount(labels, minlength=n_labels) for labels in inside])
    pairs = []
    for a, b in combinations(range(len(inside)), 2):
        joint = np.bincount(inside[a] * n_labels + inside[b], minlength=n_labels**2).reshape(n_labels, n_labels)
        common, size = np.einsum("sa,ab,sb->s", table, joint.astype(float), table), voxels[a] + voxels[b]
        pairs.append(2 * common / np.where(size > 0, size, np.nan))
    dice = np.array([nanmean(of_structure) for of_structure in np.reshape(pairs, (-1, len(table))).T])
    return dice, voxels.astype(np.int64)
