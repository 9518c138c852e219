"""Predicted Dice, which follows from the probabilities, against the true one: cases, and what is reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nnunet_nacl.numbers.calibration_error import nanmean
from nnunet_nacl.numbers.dice_estimate import Coverage, Values, coverage, defined

ORDERS = ("predicted Dice", "entropy", "confidence", "volume")
"""What cases are ordered by; ``volume``: how unusual the expected volumes are among the cases."""
FOLDS = "folds"
"""By how far the networks of several folds agree, where cases were predicted by more than one."""
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True, eq=False)
class QualityRows:
    """What probabilities promise of n cases with S structures, and what is true; NaN where a value is not defined.

    Attributes:
        structures: nnU-Net's key of each structure.
        predicted: (n, S, 3) predicted Dice, NaN where the segmentation lacks the structure, and the ends of its
            interval by what other cases taught; NaN where they taught nothing.
        true_dice: (n, S); NaN where it is in neither truth nor segmentation, 0 where it is in one of them alone.
        expected_volume: (n, S) sum of the probability times the voxel's volume.
        true_volume: (n, S) in the same unit; 0 where the truth is empty.
        entropy: (n,) mean normalised entropy over the predicted foreground; NaN if nothing was predicted.
        confidence: (n,) mean confidence there.
        units: The different units of the cases' volumes.
        level: Of the intervals; NaN where there are none.
        caveats: What must be said beside the intervals.
        voxel: Volume of a voxel, the median of the cases'; None where it is not known.
        members_dice: (n, S) mean Dice between the segmentations of two folds, NaN where neither has the structure; None
            where one network predicted the cases.
    """

    structures: tuple[str, ...]
    predicted: np.ndarray
    true_dice: np.ndarray
    expected_volume: np.ndarray
    true_volume: np.ndarray
    entropy: np.ndarray
    confidence: np.ndarray
    units: tuple[str, ...] = ()
    level: float = math.nan
    caveats: tuple[str, ...] = ()
    voxel: float | None = None
    members_dice: np.ndarray | None = None

    @property
    def lowest_predicted(self) -> np.ndarray:
        """(n,) smallest predicted Dice of the structures that were segmented: what a review list is ordered by."""
        return _lowest(self.predicted[..., 0])

    @property
    def has_intervals(self) -> bool:
        """Whether other cases taught how far predicted Dice is off."""
        return not math.isnan(self.level)

    @property
    def unusual_volume(self) -> np.ndarray:
        """(n,) largest distance of a structure's log expected volume from the cases' mean, in standard deviations.

        0 where no volume is known.
        """
        volumes = np.where(np.isnan(self.expected_volume), 0, self.expected_volume)
        logs = np.log(volumes + 0.01 * np.median(volumes, axis=0) + np.finfo(float).tiny)
        spread = logs.std(axis=0)
        return np.max(np.abs(logs - logs.mean(axis=0)) / np.where(spread > 0, spread, np.inf), axis=1)

    @property
    def trust(self) -> dict[str, np.ndarray]:
        """Of each case by the name of the order, larger is better."""
        trust = dict(zip(ORDERS, (self.lowest_predicted, -self.entropy, self.confidence, -self.unusual_volume)))
        return trust if self.members_dice is None else trust | {FOLDS: _lowest(self.members_dice)}

    @property
    def lowest_true(self) -> np.ndarray:
        """(n,) smallest Dice of the structures that truth or segmentation have."""
        return _lowest(self.true_dice)


def _lowest(values: np.ndarray) -> np.ndarray:
    return np.fmin.reduce(values, axis=1, initial=math.nan)


def spearman(trust: Values, true: Values) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN with fewer than three cases, or without an order."""
    from scipy.stats import spearmanr

    pair = defined(trust, true)
    if len(pair[0]) < 3 or any(np.ptp(values) == 0 for values in pair):
        return math.nan
    return float(spearmanr(*pair).statistic)


def aurc(trust: Values, risk: Values) -> float:
    """Area under the risk-coverage curve: mean over k = 1..n of the mean risk of the k most trusted cases.

    Lower is better: the mean risk where the order says nothing, less where what is trusted is good. (Geifman and
    El-Yaniv 2017; over segmentations with risk 1 - Dice as in Zenk et al., Medical Image Analysis 2025.)

    Args:
        trust: One value per case, such as predicted Dice or confidence; NaN is left out. Equal values are taken in
            random order: the mean over all orders.
        risk: Of the same cases; NaN is left out.

    Returns:
        A mean of risks; NaN without a case.
    """
    trust, risk = defined(trust, risk)
    if not len(risk):
        return math.nan
    return float(np.mean(np.cumsum(_in_order(-trust, risk)) / np.arange(1, len(risk) + 1)))


def compare_orders(true: Values, orders: Mapping[str, Values]) -> dict[str, dict[str, float]]:
    """AURC with risk 1 - Dice, and Spearman's rho with Dice, of several orders of the same cases.

    Args:
        true: True Dice.
        orders: Trust by name, larger is better: the negative of an entropy. Only the cases that all orders have a value
            for are compared.

    Returns:
        ``{"AURC": ..., "rho": ...}`` by name, ``oracle`` (the true Dice) and ``random`` (no order) added.
    """
    true, *trusts = defined(true, *orders.values())
    named = dict(zip(orders, trusts)) | {"oracle": true}
    result = {name: {"AURC": aurc(trust, 1 - true), "rho": spearman(trust, true)} for name, trust in named.items()}
    return result | {"random": {"AURC": aurc(np.zeros(len(true)), 1 - true), "rho": math.nan}}


@dataclass(frozen=True)
class WorkloadRow:
    """One row of the table "look at x % of the cases, catch y % of the bad ones".

    Attributes:
        looked_at: Share of the cases that are looked at.
        n_cases: How many these are, rounded up.
        caught: Share of the bad cases that are among them; NaN where no case is bad.
    """

    looked_at: float
    n_cases: int
    caught: float


def workload(trust: Values, true: Values, threshold: float, shares: Sequence[float] = _SHARES) -> list[WorkloadRow]:
    """What looking at the least trusted cases finds.

    Args:
        trust: One value per case; NaN, a case of which nothing is known, is looked at first. Equal values in random
            order: the mean over all orders.
        true: True Dice; NaN is left out.
        threshold: A case is bad where its true Dice is below.
        shares: How many to look at, each in [0, 1].
    """
    trust, true = defined(np.where(np.isnan(np.asarray(trust, float)), -np.inf, trust), true)
    caught = np.append(0, np.cumsum(_in_order(trust, (true < threshold).astype(float))))
    rows = []
    for share in shares:
        n_cases = math.ceil(share * len(true) - 1e-9)
        rows.append(WorkloadRow(share, n_cases, float(caught[n_cases] / caught[-1]) if caught[-1] else math.nan))
    return rows


@dataclass(frozen=True)
class QualityReport:
    """How far the promises hold.

    Attributes:
        threshold: A case is bad where the Dice of some structure is below: one, or by structure where they differ.
        error: Mean absolute error of predicted Dice, over structures of cases.
        coverage: Of its intervals; None where there are none.
        width: Mean width of the intervals; NaN where there are none.
        orders: ``AURC`` and ``rho`` of a case's lowest Dice, by name of the order: ``ORDERS``, ``FOLDS`` where
            several predicted the cases, ``oracle``, ``random``.
        workload: Rows by share, by name of the order; cases without any structure first.
        n_cases: Cases with a true Dice.
        n_bad: Those below the threshold.
    """

    threshold: float | dict[str, float]
    error: float
    coverage: Coverage | None
    width: float
    orders: dict[str, dict[str, float]]
    workload: dict[str, list[WorkloadRow]]
    n_cases: int
    n_bad: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        return {"MAE predicted": values.pop("error"), **values}


def quality_report(rows: QualityRows, threshold: float | Sequence[float]) -> QualityReport:
    """Every number that is reported of one method.

    Args:
        rows: Its cases.
        threshold: A case is bad where the Dice of some structure is below: one, or one a structure in their order.
    """
    true, limits = rows.lowest_true, np.broadcast_to(np.asarray(threshold, float), len(rows.structures))
    above = _lowest(rows.true_dice - limits)
    different = dict(zip(rows.structures, limits.tolist()))
    predicted, low, high = rows.predicted.reshape(-1, 3).T
    return QualityReport(
        different if len(set(limits.tolist())) > 1 else float(limits[0]),
        nanmean(np.abs(predicted - rows.true_dice.ravel())),
        coverage(low, high, rows.true_dice.ravel()) if rows.has_intervals else None,
        nanmean(high - low),
        compare_orders(true, rows.trust),
        {order: workload(trust, above, 0.0) for order, trust in rows.trust.items()},
        int(np.count_nonzero(~np.isnan(true))),
        int(np.count_nonzero(above < 0)),
    )


def _in_order(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values by rising key; those of equal keys are replaced by their mean, which is what random order gives."""
    _, group = np.unique(keys, return_inverse=True)
    means = np.bincount(group, weights=values) / np.bincount(group)
    return means[np.sort(group)]
