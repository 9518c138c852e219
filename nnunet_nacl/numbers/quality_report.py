"""Compares predicted with true Dice: mean error, coverage of intervals, and how well the order finds bad cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from nnunet_nacl.numbers.calibration_error import nanmean
from nnunet_nacl.numbers.learned_quality import DICE, coverage

_SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)


def quality_report(table: pd.DataFrame, bad: Mapping[str, float] | None) -> dict[str, Any]:
    """Every number of one method, as calibration.json has them.

    Args:
        table: A row for each case and structure.
        bad: By key of each structure that counts, the Dice below which it is bad; None: nothing is called bad.

    Returns:
        ``MAE predicted``: mean absolute error of predicted Dice, over structures of cases; ``coverage`` and mean
        ``width`` of its intervals, None and NaN where there are none; ``orders``: AURC and rho of a case's lowest Dice,
        by name of the order (:func:`compare_orders`); ``workload``: what a look at some cases finds, by order
        (:func:`workload`); ``threshold``: what ``bad`` says, or its one number; ``n_cases`` and ``n_bad``.
    """
    true, counted = table.groupby("case", sort=False).Dice.min(), table[table.key.isin(bad or ())]
    limits = counted.key.map(bad or {}).astype(float)
    counted = counted.assign(Dice=counted.Dice - limits, predicted_dice=counted.predicted_dice - limits)
    above = counted.groupby("case", sort=False).Dice.min()
    predicted, low, high = table.reindex(columns=DICE).to_numpy(float).T
    return {
        "MAE predicted": nanmean(np.abs(predicted - table.Dice)),
        "threshold": None if not bad else dict(bad) if len(set(bad.values())) > 1 else next(iter(bad.values())),
        "coverage": coverage(low, high, table.Dice) if DICE[1] in table else None,
        "width": nanmean(high - low),
        "orders": compare_orders(true, trust_of(table)),
        "workload": {order: workload(values, above, 0.0) for order, values in trust_of(counted).items() if bad},
        "n_cases": int(true.notna().sum()),
        "n_bad": int((above < 0).sum()),
    }


def trust_of(table: pd.DataFrame) -> dict[str, pd.Series]:
    """By name of each order, (n,) trust in each case by its name, larger is better; NaN where nothing is known.

    ``folds``: how far the networks of several folds agree, where cases were predicted by more than one.
    """
    by_case = table.groupby("case", sort=False)
    trust = {"predicted Dice": by_case.predicted_dice.min(), "entropy": -by_case.entropy.first()}
    if "members_dice" in table and table.members_dice.notna().any():
        trust["folds"] = by_case.members_dice.min()
    return trust


def compare_orders(true: ArrayLike, orders: Mapping[str, ArrayLike]) -> dict[str, dict[str, float]]:
    """AURC with risk 1 - Dice, and Spearman's rho with Dice, of several orders of the cases that all have a value for.

    ``true`` are (n,) Dice, ``orders`` (n,) trust by name, larger is better. ``oracle`` (the true Dice) and ``random``
    (no order) are added. Ties have their mean rank; rho is NaN with fewer than three cases, or without an order.
    """
    from scipy.stats import spearmanr

    columns = {name: np.asarray(values, float) for name, values in {**orders, "oracle": true}.items()}
    cases, result = pd.DataFrame(columns).dropna().assign(random=0.0), {}
    for name, trust in cases.items():
        ordered = len(cases) > 2 and np.ptp(cases.oracle) > 0 and np.ptp(trust) > 0
        rho = float(spearmanr(trust, cases.oracle).statistic) if ordered else math.nan
        result[str(name)] = {"AURC": aurc(trust, 1 - cases.oracle), "rho": rho}
    return result


def aurc(trust: ArrayLike, risk: ArrayLike) -> float:
    """Area under the risk-coverage curve: mean over k = 1..n of the mean (n,) risk of the k most trusted cases.

    Lower is better: the mean risk where the order says nothing, less where what is trusted is good; NaN without a case.
    Cases of equal (n,) trust, such as predicted Dice, count as the mean over all their orders. (Geifman and El-Yaniv
    2017; over segmentations with risk 1 - Dice as in Zenk et al., Medical Image Analysis 2025.)
    """
    values = np.asarray(risk, float)
    if not len(values):
        return math.nan
    return float(np.mean(np.cumsum(_in_order(-np.asarray(trust, float), values)) / np.arange(1, len(values) + 1)))


def workload(
    trust: ArrayLike, true: ArrayLike, threshold: float, shares: Sequence[float] = _SHARES
) -> list[dict[str, Any]]:
    """What looking at ``shares`` of the cases finds, the least trusted ones first; a case is bad below the threshold.

    Of (n,) trust equal values count as in :func:`aurc`, and NaN is looked at first. NaN of (n,) true Dice is left out.
    For each share, ``looked_at``, there are ``n_cases``, rounded up, and the share of the bad ones that is ``caught``.
    """
    x, y = np.asarray(trust, float), np.asarray(true, float)
    x, y = np.where(np.isnan(x), -np.inf, x)[~np.isnan(y)], y[~np.isnan(y)]
    caught = np.append(0, np.cumsum(_in_order(x, (y < threshold).astype(float))))
    rows = []
    for share in shares:
        n_cases = math.ceil(share * len(y) - 1e-9)
        found = float(caught[n_cases] / caught[-1]) if caught[-1] else math.nan
        rows.append({"looked_at": share, "n_cases": n_cases, "caught": found})
    return rows


def _in_order(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values by rising key; those of equal keys are replaced by their mean, which is what random order gives."""
    ordered = pd.Series(values).groupby(keys).transform("mean")
    return ordered.to_numpy()[np.argsort(keys, kind="stable")]
