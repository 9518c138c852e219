"""What the probabilities say about the quality of a case's segmentation: a block of the case's entry in a document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_nacl.decision.expected_dice import count_expected
from nnunet_nacl.evaluation.labels import Labels
from nnunet_nacl.evaluation.prediction_folder import CaseData
from nnunet_nacl.evaluation.results import CaseResult
from nnunet_nacl.json_files import NUMBER, mismatch
from nnunet_nacl.quality.foreground_mean import foreground_uncertainty

__all__ = ["QUALITY", "CaseQuality", "measure_quality"]

QUALITY = "quality"
"""Name of the block."""

_VALUES = ("expected_dice", "expected_volume", "volume", "true_volume")
_PATTERN = {"unit": str, "entropy": NUMBER, "confidence": NUMBER, "structures": {"*": dict.fromkeys(_VALUES, NUMBER)}}


def measure_quality(data: CaseData, labels: Labels, valid: np.ndarray | None, predicted: np.ndarray) -> dict[str, Any]:
    """The block of a case, for the segmentation that was measured; ignored voxels count nowhere.

    Args:
        data: The case.
        labels: Its structures.
        valid: (*spatial) False where the truth is ignored; None where nothing is.
        predicted: (*spatial) where the segmentation is no background, ignored voxels left out.

    Returns:
        JSON values: see docs/reference/calibration-json.md.
    """
    regions = labels.values if labels.regions else None
    sums = count_expected(data.probs, data.segmentation, regions=regions, valid=valid)
    size, structures = data.geometry.voxel_size, {}
    for i, channel in enumerate(labels.foreground):
        truth = labels.mask(data.truth, channel)
        n_true = int(np.count_nonzero(truth if valid is None else truth & valid))
        values = (sums.dice[i], sums.expected[i] * size, sums.chosen[i] * size, n_true * size)
        structures[labels.key(channel)] = dict(zip(_VALUES, map(float, values)))
    uncertainty = foreground_uncertainty(data.probs, predicted, regions=labels.regions)
    return {"unit": data.geometry.unit, **uncertainty, "structures": structures}


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
