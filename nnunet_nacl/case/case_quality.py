"""Sums over a case that comes block by block, from which the quality of its segmentation is predicted."""

from __future__ import annotations

import math

import numpy as np

from nnunet_nacl.case.labels import Labels
from nnunet_nacl.numbers.expected_dice import ExpectedOverlap, ProbabilityHistogram, count_expected
from nnunet_nacl.numbers.voxel_uncertainty import mean_uncertainty


class QualitySums:
    """Sums over a case that comes block by block, for the segmentation that is measured; ignored voxels count nowhere.

    Args:
        labels: The structures.

    Attributes:
        overlap: Of the probabilities.
        network: Of the probabilities as the network gave them.
        largest: (S,) the largest probability of each structure.
    """

    def __init__(self, labels: Labels) -> None:
        self._labels, num = labels, len(labels.foreground)
        self.overlap = ExpectedOverlap(np.zeros(num), np.zeros(num, np.int64), np.zeros(num))
        self.network = ProbabilityHistogram.of(np.zeros((num, 0)))
        self.largest = np.zeros(num)
        self._uncertainty = dict.fromkeys(("entropy", "confidence"), 0.0)
        self._n = 0

    def add(
        self,
        probs: np.ndarray,
        segmentation: np.ndarray,
        valid: np.ndarray | None = None,
        network: np.ndarray | None = None,
    ) -> None:
        """Count the (K, *block) or (R, *block) probabilities and (*block) label map of a block.

        (*block) ``valid`` is False where the truth is ignored; None where nothing is. ``network`` are the probabilities
        as the network gave them; None: these are.
        """
        labels, predicted = self._labels, segmentation > 0 if valid is None else (segmentation > 0) & valid
        self.overlap += count_expected(probs, segmentation, regions=labels.region_values, valid=valid)
        first = labels.foreground[0]
        structures = probs[first:]
        largest = structures.max(tuple(range(1, probs.ndim)), initial=0, where=True if valid is None else valid)
        self.largest = np.maximum(self.largest, largest)
        self.network += ProbabilityHistogram.of(structures if network is None else network[first:], valid)
        if n := int(np.count_nonzero(predicted)):
            own = labels.channels_of(segmentation)[..., predicted]
            means = mean_uncertainty(probs[:, predicted], own, regions=labels.regions)
            self._uncertainty = {name: so_far + means[name] * n for name, so_far in self._uncertainty.items()}
            self._n += n

    @property
    def means(self) -> dict[str, float]:
        """``entropy`` and ``confidence`` over the predicted foreground; NaN where there is none."""
        return {name: total / self._n if self._n else math.nan for name, total in self._uncertainty.items()}
