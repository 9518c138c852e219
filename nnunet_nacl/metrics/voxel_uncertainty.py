"""Confidence and entropy of each voxel, mutual information of several networks, and the least
certain place of a structure.

Confidence, entropy and mutual information lie in [0, 1]. Regions (sigmoid) are two-class problems,
in or out, so each region r with probability p_r has a binary form; its least certain region stands
for the voxel, since a mean over regions would let certain regions hide the uncertain one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.metrics.calibration_error import nanmean
from nnunet_nacl.metrics.inputs import check_probabilities, read_probs, split_blocks, split_range

Array = TypeVar("Array", np.ndarray, Tensor)

_MEMBER_BLOCK_VOXELS = 1 << 18
_BLOCK_MM = 5.0  # edge of the blocks among which the least certain one is looked for


def confidence(probs: Array, *, regions: bool = False) -> Array:
    """Probability of the predicted class: max_k p_k, from 1/K (undecided) to 1.

    Regions: c_r = max(p_r, 1 - p_r), from 1/2 to 1; the voxel has the smallest.

    Args:
        probs: (K, *spatial) class probabilities or (R, *spatial) region probabilities, any floating
            type.
        regions: Whether these are sigmoid regions.

    Returns:
        (*spatial) array or tensor, as given; float32, or float64 for float64.

    Raises:
        ValueError: Values are no probabilities, or do not sum to 1 over classes.

    Examples:
        >>> confidence(np.array([[0.7], [0.2], [0.1]]))
        array([0.7])
    """
    return _compute_by_block(_confidences, probs, regions)


def normalised_entropy(probs: Array, *, regions: bool = False) -> Array:
    """Entropy over the largest that there can be: -sum_k p_k log p_k / log K, from 0 (certain) to 1
    (uniform).

    Regions: h_r = -(p_r log p_r + (1 - p_r) log(1 - p_r)) / log 2; the voxel has the largest.
    Values that rounding pushes over 1 are set to 1. Computed in the type of the result, it differs
    from what double precision gives by less than 1e-6. Arguments, result and errors as
    :func:`confidence`.

    Examples:
        >>> normalised_entropy(np.array([[0.5], [0.5]]))
        array([1.])
    """
    return _compute_by_block(_largest_entropy, probs, regions)


def _compute_by_block(
    function: Callable[[Tensor, bool], Tensor], probs: Array, regions: bool, *, check: bool = True
) -> Array:
    """(*spatial) float32 or float64 of what ``function`` makes of (K, n) blocks and ``regions``."""
    tensor = read_probs(probs, regions)
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    result = torch.empty(tensor[0].numel(), dtype=dtype, device=tensor.device)
    for part, block in split_blocks(tensor):
        if check:
            check_probabilities(block, regions)
        result[part] = function(block, regions)
    result = result.reshape(tensor.shape[1:])
    return result.numpy() if isinstance(probs, np.ndarray) else result


def _confidences(block: Tensor, regions: bool) -> Tensor:
    """(n,) probability of the predicted class; of regions the smallest."""
    return torch.maximum(block, 1 - block).amin(0) if regions else block.amax(0)


def _largest_entropy(block: Tensor, regions: bool) -> Tensor:
    """(n,) normalised entropy; of regions the largest."""
    return _entropies(block, regions).amax(0)


def _entropies(probs: Tensor, regions: bool) -> Tensor:
    """(1, n) normalised entropy of classes, (R, n) of each region."""
    if regions:
        negative_entropy = _p_log_p(probs) + _p_log_p(1 - probs)
        largest_entropy = math.log(2)
    else:
        negative_entropy = _p_log_p(probs).sum(0, keepdim=True)
        largest_entropy = math.log(len(probs))
    return ((0 - negative_entropy) / largest_entropy).clamp_(0, 1)


def _p_log_p(probs: Tensor) -> Tensor:
    """p log p, 0 for p = 0; torch.special.entr, which is minus this, takes three times as long."""
    smallest = torch.finfo(probs.dtype).tiny
    return probs.clamp_min(smallest).log_().mul_(probs)


def label_confidence(probs: np.ndarray, labels: np.ndarray, *, regions: bool = False) -> np.ndarray:
    """(*spatial) probability of the label that each voxel has, whether it is the most probable one
    or not.

    Of (R, *spatial) booleans of regions: p_r where a voxel is in, 1 - p_r where not, the smallest
    of the voxel.
    """
    if regions:
        return np.where(labels, probs, 1 - probs).min(axis=0)
    return np.take_along_axis(probs, labels[None].astype(np.intp), axis=0)[0]


def mean_uncertainty(
    probs: np.ndarray,
    labels: np.ndarray,
    *,
    regions: bool = False,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Means of ``entropy`` and :func:`label_confidence` over (C, n) voxels, of (n,) ``weights``;
    NaN without any.

    That ``probs`` are probabilities is taken for granted.
    """
    if not probs.size:
        return {"entropy": math.nan, "confidence": math.nan}
    entropy = _compute_by_block(_largest_entropy, probs, regions, check=False)
    confidence_in_label = label_confidence(probs, labels, regions=regions)
    return {
        "entropy": float(np.average(entropy.astype(np.float64), weights=weights)),
        "confidence": float(np.average(confidence_in_label.astype(np.float64), weights=weights)),
    }


class VarianceByBlock:
    """Sums of p (1 - p) of each channel over blocks of about 5 mm, of an image taken box by box.

    Every border of a structure is uncertain, but thinly: a block that is uncertain throughout
    stands out.

    Args:
        num_channels: C.
        shape: Of the image.
        spacing_mm: Of the voxels along each axis.
    """

    def __init__(
        self, num_channels: int, shape: Sequence[int], spacing_mm: Sequence[float]
    ) -> None:
        self._shape = tuple(shape)
        self._steps = []  # voxels of a block along each axis
        for length, spacing in zip(shape, spacing_mm):
            voxels = min(length, round(_BLOCK_MM / spacing))
            self._steps.append(max(1, voxels))
        num_blocks = [-(-length // step) for length, step in zip(shape, self._steps)]
        self._sums = np.zeros((num_channels, *num_blocks))

    def add(self, where: tuple[slice, ...], probs: np.ndarray) -> None:
        """Take the (C, *block) probabilities of a box of the image."""
        if not probs.size:
            return
        sums = np.subtract(1, probs, dtype=np.float32)
        sums *= probs
        blocks = [slice(None)]
        for axis, (part, step) in enumerate(zip(where, self._steps), 1):
            first_block = part.start // step
            last_block = (part.stop - 1) // step
            starts = np.arange(first_block, last_block + 1) * step - part.start
            sums = np.add.reduceat(sums, starts.clip(0), axis=axis)
            blocks.append(slice(first_block, last_block + 1))
        self._sums[tuple(blocks)] += sums

    def least_certain_voxel(
        self, channel: int, probabilities_in: Callable[[tuple[slice, ...]], np.ndarray]
    ) -> tuple[int, ...] | None:
        """Index of the least certain voxel in the least certain block of a channel.

        None where all voxels are certain.

        Args:
            channel: Of the probabilities.
            probabilities_in: Gives the (C, *block) probabilities of a box of the image.
        """
        sums = self._sums[channel]
        if not sums.any():
            return None
        block_index = np.unravel_index(int(sums.argmax()), sums.shape)
        block = []
        for i, step, length in zip(block_index, self._steps, self._shape):
            start = int(i) * step
            block.append(slice(start, min(start + step, length)))
        probs = probabilities_in(tuple(block))[channel]
        variance = probs * (1 - probs)
        index_in_block = np.unravel_index(int(variance.argmax()), variance.shape)
        return tuple(part.start + int(i) for part, i in zip(block, index_in_block))


@dataclass(frozen=True, eq=False)
class Disagreement:
    """What M members of an ensemble disagree about, for S structures.

    Attributes:
        dice: (S,) mean Dice over the pairs of members of which at least one has the structure; NaN
            without such a pair.
        voxels: (M, S) sizes in voxels.
        mutual_information: (*grid) float32.
        foreground_mutual_information: Its mean over the foreground; NaN if there is none.
    """

    dice: np.ndarray
    voxels: np.ndarray
    mutual_information: np.ndarray
    foreground_mutual_information: float


@dataclass(eq=False)
class MemberSums:
    """Takes the members one after the other: memory grows with their number by a byte or two a
    voxel only.

    What they disagree about is H(mean_m p_m) - mean_m H(p_m), H the normalised entropy: 0 where all
    say the same, however unsure, 1 where each is sure, and of all K classes equally often; of
    regions, of the one with the largest.

    Attributes:
        structures: The label value of each of S structures, or the label values of each region.
        label_map: Makes the (n,) label map of (C, n) probabilities.
        regions: Whether the channels are sigmoid regions.
        to_probs: Makes (C, n) probabilities of what a member is given as, such as logits.
    """

    structures: Sequence[int | tuple[int, ...]]
    label_map: Callable[[np.ndarray], np.ndarray]
    regions: bool
    to_probs: Callable[[np.ndarray], np.ndarray]

    def __post_init__(self) -> None:
        # The first member decides the shapes: ``add`` makes the arrays anew.
        self._probs = np.empty((0, 0), np.float32)
        self._entropy = np.empty((0, 0), np.float32)
        self._segmentations: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        """One more member: (C, *grid) values that ``to_probs`` takes."""
        num_channels = len(values)
        num_voxels = values[0].size
        if not self._segmentations:
            self._probs = np.zeros((num_channels, num_voxels), np.float32)
            self._entropy = np.zeros((num_channels if self.regions else 1, num_voxels), np.float32)
        largest_label = max(int(np.max(value)) for value in self.structures)
        segmentation = np.empty(num_voxels, np.min_scalar_type(largest_label))
        for part, probs in self._blocks(values):
            self._probs[:, part] += probs
            self._entropy[:, part] += self._entropies(probs)
            segmentation[part] = self.label_map(probs)
        self._segmentations.append(segmentation)

    def result(self, average: np.ndarray) -> Disagreement:
        """What they disagree about; ``average`` are the (C, *grid) values of the ensemble, whose
        foreground counts."""
        num_members = len(self._segmentations)
        num_voxels = self._probs.shape[1]
        information = np.empty(num_voxels, np.float32)
        is_foreground = np.empty(num_voxels, bool)
        for part, probs in self._blocks(average):
            is_foreground[part] = self.label_map(probs) != 0
            entropy_of_mean = self._entropies(self._probs[:, part] / num_members)
            mean_entropy = self._entropy[:, part] / num_members
            information[part] = (entropy_of_mean - mean_entropy).clip(0, 1).max(0)
        in_foreground = information[is_foreground]
        has_foreground = len(in_foreground) > 0
        mean = float(in_foreground.mean(dtype=np.float64)) if has_foreground else math.nan
        dice, voxels = _compare_members(self._segmentations, self.structures)
        return Disagreement(dice, voxels, information.reshape(average.shape[1:]), mean)

    def _blocks(self, values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        flat = values.reshape(len(values), -1)
        for part in split_range(flat.shape[1], _MEMBER_BLOCK_VOXELS):
            yield part, self.to_probs(np.ascontiguousarray(flat[:, part]))

    def _entropies(self, probs: np.ndarray) -> np.ndarray:
        return _entropies(torch.from_numpy(probs), self.regions).numpy()


def _compare_members(
    segmentations: list[np.ndarray], structures: Sequence[int | tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """(S,) mean pairwise Dice and (M, S) sizes."""
    in_any_member = np.logical_or.reduce([segmentation != 0 for segmentation in segmentations])
    foreground = np.flatnonzero(in_any_member)
    labels = np.stack([segmentation[foreground] for segmentation in segmentations])
    mean_dice = []
    voxels = []
    for values in structures:
        masks = np.isin(labels, values)
        sizes = masks.sum(1)
        dice_of_pairs = []
        for first, second in combinations(range(len(masks)), 2):
            both_sizes = sizes[first] + sizes[second]
            if both_sizes:
                dice_of_pairs.append(2 * np.sum(masks[first] & masks[second]) / both_sizes)
        mean_dice.append(nanmean(dice_of_pairs))
        voxels.append(sizes)
    return np.array(mean_dice), np.stack(voxels, 1)
