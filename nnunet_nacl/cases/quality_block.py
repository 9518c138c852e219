"""What the probabilities say about the quality of a case's segmentation: a block of the case's entry in a document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.labels import Labels
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.json_files import NUMBER, mismatch
from nnunet_nacl.metrics.expected_dice import ExpectedOverlap, count_expected
from nnunet_nacl.metrics.foreground_mean import foreground_uncertainty

__all__ = ["QUALITY", "CaseQuality", "QualitySums", "count_quality", "quality_of"]

QUALITY = "quality"
"""Name of the block."""

_VALUES = ("expected_dice", "expected_volume", "volume", "true_volume")
_PATTERN = {"unit": str, "entropy": NUMBER, "confidence": NUMBER, "structures": {"*": dict.fromkeys(_VALUES, NUMBER)}}


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
        structures[key] = dict(zip(_VALUES, map(float, values)))
    uncertainty = {name: value / n if n else math.nan for name, value in sums.uncertainty.items()}
    return {"unit": geometry.unit, **uncertainty, "structures": structures}


@dataclass(frozen=True)
class CaseQuality:
    """A case's block, and the true Dice beside it.

    Attributes:
        expected: Expected Dice by structure; NaN where the segmentation lacks it.
        true: Dice by structure; NaN where it is in neither truth nor segmentation.
        entropy: Mean normalised entropy over the predicted foreground; NaN if nothing was predicted.
        confidence: Mean confidence there.
    """

    expected: dict[str, float]
    true: dict[str, float]
    entropy: float
    confidence: float

    @classmethod
    def of(cls, case: CaseResult) -> CaseQuality | None:
        """What the entry of a case holds; None if it has no such block, or one that this version cannot read."""
        block: Any = case.blocks.get(QUALITY)
        if mismatch(block, _PATTERN) or block["structures"].keys() != case.structures.keys():
            return None
        expected = {key: _number(values["expected_dice"]) for key, values in block["structures"].items()}
        return cls(expected, case.dice, _number(block["entropy"]), _number(block["confidence"]))

    @property
    def lowest_expected(self) -> float:
        """Smallest expected Dice of the structures that were predicted: what the review list is ordered by."""
        return _lowest(self.expected)

    @property
    def lowest_true(self) -> float:
        """Smallest Dice of the structures that truth or segmentation have."""
        return _lowest(self.true)


def _lowest(values: Mapping[str, float]) -> float:
    return min((value for value in values.values() if not math.isnan(value)), default=math.nan)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
