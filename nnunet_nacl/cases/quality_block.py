"""What the probabilities say about the quality of a case's segmentation: a block of the case's entry in a document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nnunet_nacl.calibration.quality_report import QualityRows
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.labels import Labels
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode
from nnunet_nacl.metrics.expected_dice import ExpectedOverlap, count_expected
from nnunet_nacl.metrics.foreground_mean import foreground_uncertainty

__all__ = ["QUALITY", "QualitySums", "count_quality", "quality_of", "quality_rows"]

QUALITY = "quality"
"""Name of the block."""


@dataclass(frozen=True)
class QualitySums:
    """Of any number of voxels; ``a + b`` holds those of both sets.

    Attributes:
        overlap: Behind expected Dice and volume.
        uncertainty: By name, the sum over the predicted foreground.
        n_predicted: Voxels there.
    """

    overlap: ExpectedOverlap
    uncertainty: dict[str, float]
    n_predicted: int

    def __add__(self, other: QualitySums) -> QualitySums:
        uncertainty = {name: value + other.uncertainty[name] for name, value in self.uncertainty.items()}
        return QualitySums(self.overlap + other.overlap, uncertainty, self.n_predicted + other.n_predicted)


def count_quality(
    probs: np.ndarray, segmentation: np.ndarray, labels: Labels, valid: np.ndarray | None, predicted: np.ndarray
) -> QualitySums:
    """The sums of a block, for the segmentation that is measured; ignored voxels count nowhere.

    Args:
        probs: (K, *block) or (R, *block) probabilities.
        segmentation: (*block) label map.
        labels: The structures.
        valid: (*block) False where the truth is ignored; None where nothing is.
        predicted: (*block) where the segmentation is no background, ignored voxels left out.
    """
    overlap = count_expected(probs, segmentation, regions=labels.values if labels.regions else None, valid=valid)
    n = int(np.count_nonzero(predicted))
    means = foreground_uncertainty(probs, predicted, regions=labels.regions)
    return QualitySums(overlap, {name: mean * n if n else 0.0 for name, mean in means.items()}, n)


def quality_of(sums: QualitySums, labels: Labels, n_true: Mapping[str, int], geometry: Geometry) -> dict[str, Any]:
    """The block of a case.

    Args:
        sums: Of all its voxels.
        labels: Its structures.
        n_true: Voxels of each in the truth.
        geometry: Where the image lies.

    Returns:
        JSON values: see docs/reference/calibration-json.md.
    """
    size, overlap, n = geometry.voxel_size, sums.overlap, sums.n_predicted
    structures = {}
    for i, channel in enumerate(labels.foreground):
        key = labels.key(channel)
        values = (overlap.dice[i], overlap.expected[i] * size, overlap.chosen[i] * size, n_true[key] * size)
        structures[key] = asdict(_Values(*map(float, values)))
    uncertainty = {name: value / n if n else math.nan for name, value in sums.uncertainty.items()}
    return {"unit": geometry.unit, **uncertainty, "structures": structures}


@dataclass(frozen=True)
class _Values:
    """Of a structure, as the block has them."""

    expected_dice: float
    expected_volume: float
    volume: float
    true_volume: float


@dataclass(frozen=True)
class _Block:
    unit: str
    entropy: float
    confidence: float
    structures: dict[str, _Values]


def quality_rows(cases: Sequence[CaseResult], block: str = QUALITY) -> QualityRows | None:
    """What the blocks of cases hold, beside their true Dice.

    Args:
        cases: Of one evaluation, at least one.
        block: Name of the block.

    Returns:
        None if a case has no such block, or one that this version cannot read.
    """
    try:
        blocks = [decode(_Block, case.blocks.get(block), case.case) for case in cases]
    except UserError:
        return None
    keys = tuple(cases[0].structures)
    if any(found.structures.keys() != set(keys) for found in blocks):
        return None

    def table(name: str) -> np.ndarray:
        return np.array([[getattr(found.structures[key], name) for key in keys] for found in blocks])

    return QualityRows(
        keys,
        table("expected_dice"),
        np.array([[case.dice[key] for key in keys] for case in cases]),
        table("expected_volume"),
        table("true_volume"),
        np.array([found.entropy for found in blocks]),
        np.array([found.confidence for found in blocks]),
    )
