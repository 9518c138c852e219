"""How far the networks of an ensemble disagree, found on the network's grid while they predict one after the other.

Each network's probabilities are looked at once, in blocks, and only sums are kept: nothing is resampled to the image,
and memory does not grow with the number of networks but for a byte or two a voxel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from nnunet_nacl.cases.labels import Labels
from nnunet_nacl.metrics.expected_dice import region_table
from nnunet_nacl.metrics.voxel_uncertainty import normalised_entropy

__all__ = ["Disagreement", "MemberSums"]

_BLOCK_VOXELS = 1 << 18


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Of M members about S structures: the K - 1 classes without the background, or the R regions.

    Attributes:
        dice: (S,) mean Dice between the segmentations of two members, over the pairs that have the structure in at
            least one of them; NaN without such a pair.
        voxels: (M, S) size of each structure in each member's segmentation, in voxels of the network's grid.
        mutual_information: (*grid) float16 entropy of the mean of the members' probabilities minus the mean of their
            entropies, both normalised, in [0, 1]; regions: of the region with the largest.
        foreground_mutual_information: Its mean over what the average of the members segments; NaN if that is nothing.
    """

    dice: np.ndarray
    voxels: np.ndarray
    mutual_information: np.ndarray
    foreground_mutual_information: float


class MemberSums:
    """Takes the members' logits one after the other.

    Args:
        labels: Of the data set.
        label_manager: nnU-Net's.
        shape: Of the logits, (C, *grid).
    """

    def __init__(self, labels: Labels, label_manager: Any, shape: tuple[int, ...]) -> None:
        self._labels, self._manager, self._grid = labels, label_manager, tuple(shape[1:])
        self._probs = np.zeros((shape[0], int(np.prod(self._grid))), np.float32)
        self._entropy = np.zeros((shape[0] if labels.regions else 1, self._probs.shape[1]), np.float32)
        self._segmentations: list[np.ndarray] = []

    def add(self, logits: np.ndarray) -> None:
        """The (C, *grid) logits of one more member, of any floating type."""
        segmentation = np.empty(self._probs.shape[1], np.uint8 if max(self._labels.known) < 256 else np.uint16)
        for part, probs in self._blocks(logits):
            self._probs[:, part] += probs
            self._entropy[:, part] += self._entropies(probs)
            segmentation[part] = self._label_map(probs)
        self._segmentations.append(segmentation)

    def result(self, average: np.ndarray) -> Disagreement:
        """What was found.

        Args:
            average: (C, *grid) logits that the segmentation is made of, the members' average.
        """
        n, information = len(self._segmentations), np.empty(self._probs.shape[1], np.float16)
        total, count = 0.0, 0
        for part, probs in self._blocks(average):
            mean = self._entropies(self._probs[:, part] / n)
            information[part] = values = (mean - self._entropy[:, part] / n).clip(0, 1).max(0)
            foreground = self._label_map(probs) != 0
            total, count = total + float(values[foreground].sum(dtype=np.float64)), count + int(foreground.sum())
        dice, voxels = _compare(self._segmentations, self._labels)
        mean_information = total / count if count else float("nan")
        return Disagreement(dice, voxels, information.reshape(self._grid), mean_information)

    def _blocks(self, logits: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        flat = logits.reshape(len(logits), -1)
        for start in range(0, flat.shape[1], _BLOCK_VOXELS):
            part = slice(start, start + _BLOCK_VOXELS)
            yield part, self._manager.apply_inference_nonlin(np.ascontiguousarray(flat[:, part])).numpy()

    def _entropies(self, probs: np.ndarray) -> np.ndarray:
        regions = self._labels.regions
        return np.atleast_2d(normalised_entropy(probs, regions=regions, aggregate=False, check_values=False))

    def _label_map(self, probs: np.ndarray) -> np.ndarray:
        return np.asarray(self._manager.convert_probabilities_to_segmentation(probs))


def _compare(segmentations: list[np.ndarray], labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """(S,) mean pairwise Dice and (M, S) sizes, from how often two members give a voxel each pair of labels."""
    anywhere = np.flatnonzero(np.logical_or.reduce([segmentation != 0 for segmentation in segmentations]))
    inside = [segmentation[anywhere].astype(np.int64) for segmentation in segmentations]
    n_labels = 1 + max(labels.known)
    table = region_table([labels.values[channel] for channel in labels.foreground], n_labels - 1).numpy().astype(float)
    voxels = np.stack([table @ np.bincount(one, minlength=n_labels) for one in inside])
    values = []
    for a, b in combinations(range(len(inside)), 2):
        joint = np.bincount(inside[a] * n_labels + inside[b], minlength=n_labels**2).reshape(n_labels, n_labels)
        common, size = np.einsum("sa,ab,sb->s", table, joint.astype(float), table), voxels[a] + voxels[b]
        values.append(np.divide(2 * common, size, out=np.full(len(table), np.nan), where=size > 0))
    pairs = np.array(values).reshape(-1, len(table))
    known = ~np.isnan(pairs)
    count = known.sum(0)
    mean = np.divide(np.where(known, pairs, 0).sum(0), count, out=np.full(len(table), np.nan), where=count > 0)
    return mean, voxels.astype(np.int64)
