"""How far the members of an ensemble disagree, found while they come one after the other.

Each member's probabilities are looked at once, in blocks, and only sums are kept: memory does not grow with the number
of members but for a byte or two a voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nnunet_nacl.numbers.calibration_error import nanmean
from nnunet_nacl.numbers.checks import parts
from nnunet_nacl.numbers.expected_dice import region_table
from nnunet_nacl.numbers.voxel_uncertainty import normalised_entropy

_BLOCK_VOXELS = 1 << 18

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Of M members about S structures.

    Attributes:
        dice: (S,) mean Dice between the segmentations of two members, over the pairs that have the structure in at
            least one of them; NaN without such a pair.
        voxels: (M, S) size of each structure in each member's segmentation.
        mutual_information: (*grid) float32 entropy of the mean of the members' probabilities minus the mean of their
            entropies, both normalised, in [0, 1]; regions: of the region with the largest.
        foreground_mutual_information: Its mean over the foreground; NaN if there is none.
    """

    dice: np.ndarray
    voxels: np.ndarray
    mutual_information: np.ndarray
    foreground_mutual_information: float


class MemberSums:
    """Takes the members one after the other.

    Args:
        structures: Label value of each of S structures, or the label values of each region.
        label_map: Makes the (n,) label map of (C, n) probabilities.
        regions: Whether the probabilities are of sigmoid regions.
        to_probs: Makes (C, n) probabilities of what a member is given as, such as logits.
    """

    def __init__(
        self,
        structures: Sequence[int | tuple[int, ...]],
        label_map: Function,
        *,
        regions: bool,
        to_probs: Function,
    ) -> None:
        self._structures, self._label_map, self._regions, self._to_probs = structures, label_map, regions, to_probs
        self._grid: tuple[int, ...] = ()
        self._probs: np.ndarray = np.empty((0, 0))
        self._entropy = self._probs
        self._segmentations: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        """One more member: (C, *grid) values that ``to_probs`` takes."""
        if not self._segmentations:
            self._grid, size = values.shape[1:], int(np.prod(values.shape[1:]))
            self._probs = np.zeros((len(values), size), np.float32)
            self._entropy = np.zeros((len(values) if self._regions else 1, size), np.float32)
        largest = np.max([np.max(value) for value in self._structures])
        kept = np.empty(self._probs.shape[1], np.min_scalar_type(int(largest)))
        for part, probs in self._blocks(values):
            self._probs[:, part] += probs
            self._entropy[:, part] += self._entropies(probs)
            kept[part] = self._label_map(probs)
        self._segmentations.append(kept)

    def result(self, average: np.ndarray) -> Disagreement:
        """What was found; ``average`` are the (C, *grid) values of the ensemble, whose foreground counts."""
        foreground = np.concatenate([self._label_map(probs) for _, probs in self._blocks(average)]) != 0
        n, information = len(self._segmentations), np.empty(self._probs.shape[1], np.float32)
        for part in parts(self._probs.shape[1], _BLOCK_VOXELS):
            mean = self._entropies(self._probs[:, part] / n)
            information[part] = (mean - self._entropy[:, part] / n).clip(0, 1).max(0)
        inside = information[foreground]
        in_it = float(inside.mean(dtype=np.float64)) if inside.size else float("nan")
        dice, voxels = _compare(self._segmentations, self._structures)
        return Disagreement(dice, voxels, information.reshape(self._grid), in_it)

    def _blocks(self, values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        flat = values.reshape(len(values), -1)
        for part in parts(flat.shape[1], _BLOCK_VOXELS):
            yield part, self._to_probs(np.ascontiguousarray(flat[:, part]))

    def _entropies(self, probs: np.ndarray) -> np.ndarray:
        return np.atleast_2d(normalised_entropy(probs, regions=self._regions, aggregate=False, check_values=False))


def _compare(
    segmentations: list[np.ndarray], structures: Sequence[int | tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """(S,) mean pairwise Dice and (M, S) sizes, from how often two members give a voxel each pair of labels."""
    anywhere = np.flatnonzero(np.logical_or.reduce([segmentation != 0 for segmentation in segmentations]))
    inside = [segmentation[anywhere].astype(np.int64) for segmentation in segmentations]
    table = region_table(structures, max(one.max(initial=0) for one in inside)).numpy().astype(float)
    n_labels = table.shape[1]
    voxels = np.stack([table @ np.bincount(one, minlength=n_labels) for one in inside])
    values = []
    for a, b in combinations(range(len(inside)), 2):
        joint = np.bincount(inside[a] * n_labels + inside[b], minlength=n_labels**2).reshape(n_labels, n_labels)
        common, size = np.einsum("sa,ab,sb->s", table, joint.astype(float), table), voxels[a] + voxels[b]
        values.append(np.divide(2 * common, size, out=np.full(len(table), np.nan), where=size > 0))
    pairs = np.array(values).reshape(-1, len(table))
    return np.array([nanmean(pair) for pair in pairs.T]), voxels.astype(np.int64)
