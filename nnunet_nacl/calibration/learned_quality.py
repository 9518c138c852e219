"""What a model's held-out cases taught about its Dice and volumes: an estimate a structure, for one way of deciding."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnunet_nacl.calibration.crossfit import parts_of
from nnunet_nacl.calibration.dice_estimate import DEFAULT_ALPHA, StructureEstimate, predict_parts
from nnunet_nacl.calibration.quality_report import Coverage, QualityRows, coverage, mean_absolute_error

DELIVERED = ("argmax", "decided")
"""Which segmentation a quality is that of: their Dice is not the same, and neither is what it is learned from."""
SEGMENTATIONS = {"argmax": "nnU-Net's labels", "decided": "decided"}
"""What they are called for people."""
SINGLE_NETWORKS = (
    "from single networks; for the average of five, intervals of a nominal 0.90 held for 0.89 of 45 Dice and 0.90 of "
    "60 volumes (EMIDEC, small networks)"
)
"""Said beside what was not learned from predictions as they are deployed."""
_VOLUMES = (0.0, math.inf)


@dataclass(frozen=True, eq=False)
class LearnedQuality:
    """Estimates of Dice and volume.

    Attributes:
        delivered: ``argmax`` or ``decided``: the segmentations that it was learned from and may be asked about.
        as_deployed: Whether they were predicted as they will be in use (a held-out folder), not by the single networks
            of a cross-validation, whose intervals held for the average of the folds where that was measured.
        dice: By structure.
        volume: By structure.
    """

    delivered: str
    as_deployed: bool
    dice: dict[str, StructureEstimate]
    volume: dict[str, StructureEstimate]

    def __post_init__(self) -> None:
        if self.delivered not in DELIVERED:
            raise ValueError(f"delivered must be one of {', '.join(DELIVERED)}, got {self.delivered!r}.")
        for what, estimates, bounds in (("dice", self.dice, (0.0, 1.0)), ("volume", self.volume, _VOLUMES)):
            for name, estimate in estimates.items():
                if estimate.bounds != bounds:
                    raise ValueError(f"{what} of {name} must lie within {bounds}, its bounds are {estimate.bounds}.")

    @classmethod
    def learn(
        cls,
        rows: QualityRows,
        patients: Sequence[Hashable],
        *,
        delivered: str,
        as_deployed: bool,
        alpha: float = DEFAULT_ALPHA,
    ) -> LearnedQuality:
        """Learn from held-out cases.

        Args:
            rows: The cases.
            patients: To whom each case belongs; the cases' names where each is a patient of its own.
            delivered: Which segmentation it is.
            as_deployed: Whether they were predicted as they will be in use.
            alpha: The intervals have level 1 - alpha.

        Raises:
            ValueError: ``delivered`` is neither, or there is not a patient for each case.
        """
        dice, volume = {}, {}
        for i, key in enumerate(rows.structures):
            pair = rows.expected_dice[:, i], rows.true_dice[:, i]
            dice[key] = StructureEstimate.fit(*pair, patients, alpha=alpha)
            pair = rows.expected_volume[:, i], rows.true_volume[:, i]
            volume[key] = StructureEstimate.fit(*pair, patients, alpha=alpha, bounds=_VOLUMES, voxel=rows.voxel)
        return cls(delivered, as_deployed, dice, volume)

    @property
    def alpha(self) -> float:
        """Of the intervals."""
        return next(iter(self.dice.values())).alpha

    def predict_dice(self, rows: QualityRows, caveats: Sequence[str] = ()) -> QualityRows:
        """The rows with predicted Dice.

        Args:
            rows: Other cases than it was learned from.
            caveats: What must be said beside the predictions.
        """
        found = [self.dice[key].predict_all(rows.expected_dice[:, i]) for i, key in enumerate(rows.structures)]
        predicted = np.stack(found, axis=1)
        return replace(rows, predicted=predicted, level=1 - self.alpha, caveats=tuple(caveats))


def predict_dice_parts(
    rows: QualityRows, patients: Sequence[Hashable], parts: Sequence[Hashable], alpha: float = DEFAULT_ALPHA
) -> QualityRows:
    """The rows with predicted Dice, each case's by what the cases of other parts teach.

    Args:
        rows: Held-out cases.
        patients: To whom each case belongs.
        parts: Part of each case; a patient's cases lie in one part.
        alpha: The intervals have level 1 - alpha.
    """
    pairs = zip(rows.expected_dice.T, rows.true_dice.T)
    predicted = [predict_parts(*pair, patients, parts, alpha=alpha) for pair in pairs]
    return replace(rows, predicted=np.stack(predicted, axis=1), level=1 - alpha)


@dataclass(frozen=True)
class EstimateCheck:
    """How an estimate does on cases that it has not seen.

    Attributes:
        error: Mean absolute error.
        error_of_constant: That of the mean of the other patients, which knows nothing of the case.
        bias: Mean of predicted less true value.
        coverage: Of the intervals.
        width: Mean width of the intervals; NaN without them.
        n: Cases with an expected and a true value.
    """

    error: float
    error_of_constant: float
    bias: float
    coverage: Coverage
    width: float
    n: int

    @property
    def ratio(self) -> float:
        """``error`` / ``error_of_constant``; NaN where all true values are alike."""
        return self.error / self.error_of_constant if self.error_of_constant else math.nan


def check_estimate(
    expected: np.ndarray,
    true: np.ndarray,
    patients: Sequence[str],
    *,
    alpha: float = DEFAULT_ALPHA,
    bounds: tuple[float, float] = (0.0, 1.0),
    voxel: float | None = None,
) -> EstimateCheck:
    """Predict each case by what the cases of other patients teach, in parts.

    Args:
        expected: Expected values, NaN where undefined.
        true: True ones.
        patients: To whom each case belongs.
        alpha: Intervals of level 1 - alpha.
        bounds: The least and the greatest possible value.
        voxel: Of volumes, that of a voxel: errors are then relative to the expected volume.
    """
    usable = ~np.isnan(expected + true)
    x, y, names = expected[usable], true[usable], [name for name, use in zip(patients, usable) if use]
    if len(set(names)) < 2:
        return EstimateCheck(math.nan, math.nan, math.nan, coverage([], [], []), math.nan, len(y))
    parts = np.array(parts_of(names))
    middle, low, high = predict_parts(x, y, names, parts.tolist(), alpha=alpha, bounds=bounds, voxel=voxel).T
    weight = np.array([1 / names.count(name) for name in names])
    constant = [np.average(y[parts != part], weights=weight[parts != part]) for part in parts]
    errors = mean_absolute_error(middle, y), mean_absolute_error(constant, y)
    return EstimateCheck(
        *errors, float(np.mean(middle - y)), coverage(low, high, y), float(np.mean(high - low)), len(y)
    )


def check_rows(rows: QualityRows, patients: Sequence[str]) -> dict[str, dict[str, EstimateCheck]]:
    """The checks of ``dice`` and ``volume`` by structure, on cases that were not learned from."""
    pairs: dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]] = {
        "dice": (rows.expected_dice, rows.true_dice, {}),
        "volume": (rows.expected_volume, rows.true_volume, {"bounds": _VOLUMES, "voxel": rows.voxel}),
    }
    return {
        kind: {
            key: check_estimate(expected[:, i], true[:, i], patients, **options)
            for i, key in enumerate(rows.structures)
        }
        for kind, (expected, true, options) in pairs.items()
    }
