"""What a model's held-out cases taught about its Dice and volumes: an estimate a structure, and scores of scans."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import NonNegativeInt

from nnunet_nacl.json_files import Number, Size
from nnunet_nacl.numbers.crossfit import parts_of
from nnunet_nacl.numbers.dice_estimate import DEFAULT_ALPHA, Coverage, StructureEstimate, coverage, predict_parts
from nnunet_nacl.numbers.quality_report import QualityRows
from nnunet_nacl.numbers.scan_score import ScanScores

SINGLE_NETWORKS = "from single networks; the errors of an average of networks may differ"
"""Said beside what was not learned from predictions as they are deployed."""
_VOLUMES = (0.0, math.inf)


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

    error: Size
    error_of_constant: Size
    bias: Number
    coverage: Coverage
    width: Size
    n: NonNegativeInt

    @property
    def says_nothing(self) -> bool:
        """Whether a constant is as near to the truth; no where there were too few patients to tell."""
        return self.error >= self.error_of_constant


@dataclass(frozen=True, eq=False)
class LearnedQuality:
    """Estimates of Dice and volume of nnU-Net's labels, and what flags are learned from.

    Attributes:
        as_deployed: Whether the cases were predicted as they will be in use (a held-out folder), not by the single
            networks of a cross-validation.
        dice: By structure.
        volume: By structure.
        checks: For ``dice`` and ``volume``, by structure, how they do on cases that were left out.
        scores: Of the calibration scans, by which scans are flagged.
    """

    as_deployed: bool
    dice: dict[str, StructureEstimate]
    volume: dict[str, StructureEstimate]
    checks: dict[str, dict[str, EstimateCheck]]
    scores: ScanScores

    def __post_init__(self) -> None:
        for what, estimates, bounds in (("dice", self.dice, (0.0, 1.0)), ("volume", self.volume, _VOLUMES)):
            for name, estimate in estimates.items():
                if estimate.bounds != bounds:
                    raise ValueError(f"{what} of {name} must lie within {bounds}, its bounds are {estimate.bounds}.")
        scores = self.scores
        for key in self.dice.keys() & scores.score.keys() - set(self.says_nothing):  # what is predicted has a score
            known = len(scores.patient if key in scores.always else self.dice[key].patient)
            if (n := np.count_nonzero(~np.isnan(scores.score[key]))) < known:
                raise ValueError(f"scores.score.{key}: {n} scans have a score, {known} were predicted.")

    @classmethod
    def learn(
        cls,
        rows: QualityRows,
        present: np.ndarray,
        patients: Sequence[str],
        *,
        as_deployed: bool,
    ) -> LearnedQuality:
        """Learn from held-out cases.

        Args:
            rows: The cases, each under a map that was fitted without it.
            present: (n, S) probability that each structure is in a case, by what others taught; NaN where unknown.
            patients: To whom each case belongs; the cases' names where each is a patient of its own.
            as_deployed: Whether they were predicted as they will be in use.

        Raises:
            ValueError: There is not a patient for each case.
        """
        dice, volume = (
            {key: StructureEstimate.fit(x, y, patients, **options) for key, x, y in columns}
            for columns, options in _pairs(rows).values()
        )
        checks = {
            kind: {key: check_estimate(x, y, patients, **options) for key, x, y in columns}
            for kind, (columns, options) in _pairs(rows).items()
        }
        columns = rows.predicted[..., 0], present, rows.true_dice
        predicted, there, true = (dict(zip(rows.structures, column.T)) for column in columns)
        always = [key for key, volumes in zip(rows.structures, rows.true_volume.T) if (volumes > 0).all()]
        scores = ScanScores.learn(predicted, there, true, rows.entropy, patients, always, _silent(checks))
        return cls(as_deployed, dice, volume, checks, scores)

    @property
    def says_nothing(self) -> list[str]:
        """Structures whose predicted Dice is no better than a constant on cases that were left out."""
        return _silent(self.checks)

    def predict_dice(self, rows: QualityRows, caveats: Sequence[str] = ()) -> QualityRows:
        """The rows with predicted Dice.

        Args:
            rows: Other cases than it was learned from.
            caveats: What must be said beside the predictions.
        """
        found = [self.dice[key].predict(rows.predicted[:, i, 0]) for i, key in enumerate(rows.structures)]
        return replace(rows, predicted=np.stack(found, axis=1), level=1 - DEFAULT_ALPHA, caveats=tuple(caveats))


def _pairs(rows: QualityRows) -> dict[str, tuple[list[tuple[str, np.ndarray, np.ndarray]], dict[str, Any]]]:
    """For ``dice`` and ``volume`` each structure with its predicted and true values, and what an estimate is told."""
    keys, volumes = rows.structures, {"bounds": _VOLUMES, "voxel": rows.voxel}
    seen = (rows.true_volume > 0).any(axis=0)  # scans that all lack a structure do not tell of those that have it
    dice, volume = (np.where(seen, x, math.nan) for x in (rows.predicted[..., 0], rows.expected_volume))
    return {
        "dice": (list(zip(keys, dice.T, rows.true_dice.T)), {}),
        "volume": (list(zip(keys, volume.T, rows.true_volume.T)), volumes),
    }


def _silent(checks: Mapping[str, Mapping[str, EstimateCheck]]) -> list[str]:
    return [key for key, check in checks.get("dice", {}).items() if check.says_nothing]


def predict_dice_parts(rows: QualityRows, patients: Sequence[Hashable], parts: Sequence[Hashable]) -> QualityRows:
    """The rows with predicted Dice, each case's by what the cases of other parts teach.

    Args:
        rows: Held-out cases.
        patients: To whom each case belongs.
        parts: Part of each case; a patient's cases lie in one part.
    """
    predicted = [predict_parts(x, y, patients, parts) for _, x, y in _pairs(rows)["dice"][0]]
    return replace(rows, predicted=np.stack(predicted, axis=1), level=1 - DEFAULT_ALPHA)


def check_estimate(predicted: np.ndarray, true: np.ndarray, patients: Sequence[str], **options: Any) -> EstimateCheck:
    """Predict each case by what the cases of other patients teach, in parts.

    Args:
        predicted: Predicted values, NaN where undefined.
        true: True ones.
        patients: To whom each case belongs.
        **options: Of :meth:`~nnunet_nacl.numbers.dice_estimate.StructureEstimate.fit`.
    """
    usable = ~np.isnan(predicted + true)
    x, y, names = predicted[usable], true[usable], [name for name, use in zip(patients, usable) if use]
    if len(set(names)) < 2:
        return EstimateCheck(math.nan, math.nan, math.nan, coverage([], [], []), math.nan, len(y))
    parts = np.array(parts_of(names))
    middle, low, high = predict_parts(x, y, names, parts.tolist(), **options).T
    weight = np.array([1 / names.count(name) for name in names])
    constant = [np.average(y[parts != part], weights=weight[parts != part]) for part in parts]
    error, error_of_constant = (float(np.mean(np.abs(each - y))) for each in (middle, constant))
    bias, width = float(np.mean(middle - y)), float(np.mean(high - low))
    return EstimateCheck(error, error_of_constant, bias, coverage(low, high, y), width, len(y))
