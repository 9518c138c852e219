"""What the probabilities say about the quality of a case's segmentation: measured, and as it would be under a map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.case.results import CaseQuality, CaseResult, StructureQuality
from nnunet_nacl.case.sampling import Sample
from nnunet_nacl.numbers.expected_dice import (
    ExpectedOverlap,
    ProbabilityHistogram,
    count_expected,
)
from nnunet_nacl.numbers.log_odds_map import LogOddsMap, probabilities
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

    def of_case(self, n_true: Mapping[str, int], pieces: Mapping[str, int], geometry: Geometry) -> CaseQuality:
        """What was found, once all of the case has been counted.

        Args:
            n_true: Voxels of each structure in the truth, in their order.
            pieces: Connected components of each there.
            geometry: Where the image lies.
        """
        sums, size = self.overlap, geometry.voxel_size
        columns = sums.dice, sums.expected * size, sums.chosen * size, np.array([*n_true.values()]) * size
        rows: Any = np.stack([*columns, self.largest, self.network.largest_dice], axis=1).tolist()
        structures = {key: StructureQuality(*[*row, pieces[key]]) for key, row in zip(n_true, rows)}
        return CaseQuality(geometry.unit, size, structures=structures, **self.means)


def sampled_quality(result: CaseResult, labels: Labels, sample: Sample, calibration: LogOddsMap) -> CaseQuality:
    """What the probabilities of a case would say under a map, estimated from a sample.

    Sizes and sums of the network's own probabilities are those of the case; what the map adds to such a sum is
    estimated from the sample, and errs less than the whole sum would (difference estimator; Cochran, Sampling
    Techniques, 1977, chapter 7; see :meth:`Sample.sums`).

    Args:
        result: What was measured of the case.
        labels: The structures.
        sample: Of the case.
        calibration: Map that its probabilities are taken through.
    """
    voxels, own = sample.voxels(), result.quality
    odds, label = voxels.log_odds.double(), voxels.label.numpy()
    mapped = calibration.to_probabilities(odds, voxels.label)
    change = (mapped - probabilities(odds, labels.regions))[0 if labels.regions else 1 :]
    chosen = labels.label_map(label.astype(np.float32)) if labels.regions else label
    inside = np.stack([labels.mask(chosen, channel) for channel in labels.foreground])
    names = ("expected_volume", "volume", "expected_dice")
    expected, size, dice = np.array([[getattr(s, name) for name in names] for s in own.structures.values()]).T
    expected, size = expected / own.voxel, size / own.voxel
    common = np.where(size > 0, dice * (expected + size) / 2, 0.0)
    common += sample.sums(change * torch.from_numpy(inside), inside=True)
    sums = ExpectedOverlap(np.maximum(expected + sample.sums(change), 0), size, np.clip(common, 0, size))
    structures = {
        key: replace(structure, expected_dice=float(dice), expected_volume=float(volume))
        for (key, structure), dice, volume in zip(own.structures.items(), sums.dice, sums.expected * own.voxel)
    }
    there = chosen > 0
    probs, weights = mapped.numpy()[:, there], sample.weights[there]
    means: Any = mean_uncertainty(probs, label[..., there], regions=labels.regions, weights=weights)
    return replace(own, structures=structures, **means)
