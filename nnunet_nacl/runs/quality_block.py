"""What the probabilities say about the quality of a case's segmentation: a block of the case's entry in a document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nnunet_nacl.calibration.log_odds import probabilities
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.calibration.quality_report import QualityRows
from nnunet_nacl.calibration.sampling import Sample
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.errors import UserError
from nnunet_nacl.io.geometry import Geometry
from nnunet_nacl.io.labels import Labels
from nnunet_nacl.json_files import decode
from nnunet_nacl.metrics.expected_dice import (
    ExpectedOverlap,
    ProbabilityHistogram,
    count_expected,
)
from nnunet_nacl.metrics.voxel_uncertainty import mean_uncertainty

QUALITY = "quality"
"""Name of the block."""


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

    def block(self, n_true: Mapping[str, int], pieces: Mapping[str, int], geometry: Geometry) -> dict[str, Any]:
        """The block of the case, once all of it has been counted.

        Args:
            n_true: Voxels of each structure in the truth, in their order.
            pieces: Connected components of each there.
            geometry: Where the image lies.

        Returns:
            JSON values: see docs/reference/files.md.
        """
        block = _block(self.overlap, n_true, geometry.unit, geometry.voxel_size)
        largest = zip(self.largest, self.network.largest_dice)
        for (key, values), (p, dice) in zip(block["structures"].items(), largest):
            values |= {"max_probability": float(p), "largest_dice": float(dice), "true_pieces": pieces[key]}
        return block | self.means


def sampled_quality(result: CaseResult, labels: Labels, sample: Sample, calibration: LogOddsMap) -> dict[str, Any]:
    """The block of a case as it would be under a map, estimated from a sample.

    Sizes and sums of the network's own probabilities are those of the case; what the map adds to such a sum is
    estimated from the sample, and errs less than the whole sum would (difference estimator; Cochran, Sampling
    Techniques, 1977, chapter 7; see :meth:`Sample.sums`).

    Args:
        result: What was measured of the case.
        labels: The structures.
        sample: Of the case.
        calibration: Map that its probabilities are taken through.

    Raises:
        UserError: An earlier version measured the case.
    """
    block = decode(QualityBlock, result.blocks.get(QUALITY), f"{result.case}: {QUALITY}", fix="measure it again")
    voxels = sample.voxels()
    odds, own = voxels.log_odds.double(), voxels.label.numpy()
    mapped = calibration.to_probabilities(odds, voxels.label)
    change = (mapped - probabilities(odds, labels.regions))[0 if labels.regions else 1 :]
    chosen = labels.label_map(own.astype(np.float32)) if labels.regions else own
    inside = np.stack([labels.mask(chosen, channel) for channel in labels.foreground])
    sums = _counted(block)
    sums = ExpectedOverlap(
        np.maximum(sums.expected + sample.sums(change), 0),
        sums.chosen,
        np.clip(sums.common + sample.sums(change * torch.from_numpy(inside), inside=True), 0, sums.chosen),
    )
    inside, probs = chosen > 0, mapped.numpy()
    weights = sample.weights[inside]
    means = mean_uncertainty(probs[:, inside], own[..., inside], regions=labels.regions, weights=weights)
    n_true = {key: structure.n_ref for key, structure in result.metrics.items()}
    return _block(sums, n_true, block.unit, block.voxel) | means


def _counted(block: QualityBlock) -> ExpectedOverlap:
    """The sums over all voxels of which a block is made."""
    names = ("expected_volume", "volume", "expected_dice")
    expected, chosen, dice = np.array([[getattr(s, name) for name in names] for s in block.structures.values()]).T
    expected, chosen = expected / block.voxel, chosen / block.voxel
    return ExpectedOverlap(expected, chosen, np.where(chosen > 0, dice * (expected + chosen) / 2, 0.0))


def _block(sums: ExpectedOverlap, n_true: Mapping[str, int], unit: str, size: float) -> dict[str, Any]:
    structures = {}
    for key, *values in zip(n_true, sums.dice, sums.expected * size, sums.chosen * size):
        names = ("expected_dice", "expected_volume", "volume")
        structures[key] = dict(zip(names, map(float, values))) | {"true_volume": float(n_true[key] * size)}
    return {"unit": unit, "voxel": float(size), "structures": structures}


@dataclass(frozen=True)
class StructureQuality:
    """Of a structure, as a block has it; NaN where a block has none: under a map, or of a single network."""

    expected_dice: float
    expected_volume: float
    volume: float
    true_volume: float
    members_dice: float = math.nan
    max_probability: float = math.nan
    largest_dice: float = math.nan
    true_pieces: int = 0


@dataclass(frozen=True)
class QualityBlock:
    """What a block holds, see docs/reference/files.md."""

    unit: str
    structures: dict[str, StructureQuality]
    voxel: float
    entropy: float
    confidence: float


def quality_rows(cases: Sequence[CaseResult]) -> QualityRows | None:
    """What the blocks of cases hold, beside their true Dice.

    Args:
        cases: Of one evaluation, at least one.

    Returns:
        None if a case has no such block, or one that this version cannot read.
    """
    keys = tuple(cases[0].metrics)
    try:
        blocks = decode(list[QualityBlock], [case.blocks.get(QUALITY) for case in cases], QUALITY)
    except UserError:
        return None
    if any(block.structures.keys() != set(keys) for block in blocks):
        return None
    names = ("expected_dice", "expected_volume", "true_volume", "members_dice")
    tables = [np.array([[getattr(block.structures[key], name) for key in keys] for block in blocks]) for name in names]
    dice, volume, true_volume, members = tables
    return QualityRows(
        keys,
        np.stack([dice, *np.full((2, *dice.shape), math.nan)], axis=-1),
        np.array([[case.dice[key] for key in keys] for case in cases]),
        volume,
        true_volume,
        np.array([block.entropy for block in blocks]),
        np.array([block.confidence for block in blocks]),
        tuple(sorted({block.unit for block in blocks})),
        voxel=float(np.median([block.voxel for block in blocks])),
        members_dice=None if np.isnan(members).all() else members,
    )
