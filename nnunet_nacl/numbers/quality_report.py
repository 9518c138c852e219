"""Compares predicted with true Dice: mean error, coverage of intervals, and how well the order finds bad cases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from nnunet_nacl.numbers.calibration_error import nanmean
from nnunet_nacl.numbers.learned_quality import DICE, coverage

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Of the cases that are looked at."""


def quality_report(table: pd.DataFrame, bad: Mapping[str, float] | None) -> dict[str, Any]:
    """Every number of one method, as calibration.json has them.

    Args:
        table: A row for each case and structure.
        bad: By key of each structure that counts, the Dice below which it is bad; None: nothing is called bad.

    Returns:
        ``MAE predicted``: mean absolute error of predicted Dice, over structures of cases; ``coverage`` and mean
        ``width`` of its intervals, None and NaN where there are none; ``rho``: Spearman's rank correlation of a case's
        lowest predicted with its lowest true Dice; ``workload``: what a look at some cases finds (:func:`workload`), by
        name of the order; ``threshold``: what ``bad`` says, or its one number; ``n_cases``, and how many are bad.
    """
    true, trust = table.groupby("case", sort=False).Dice.min(), trust_of(table)["predicted Dice"]
    counted = table[table.key.isin(bad or ())]
    limits = counted.key.map(bad or {}).astype(float)
    counted = counted.assign(Dice=counted.Dice - limits, predicted_dice=counted.predicted_dice - limits)
    above = counted.groupby("case", sort=False).Dice.min()
    predicted, low, high = table.reindex(columns=DICE).to_numpy(float).T
    return {
        "MAE predicted": nanmean(np.abs(predicted - table.Dice)),
        "threshold": None if not bad else dict(bad) if len(set(bad.values())) > 1 else next(iter(bad.values())),
        "coverage": coverage(low, high, table.Dice) if DICE[1] in table else None,
        "width": nanmean(high - low),
        "rho": _rank_correlation(pd.DataFrame({"true": true, "trust": trust}).dropna()),
        "workload": {order: workload(values, above) for order, values in trust_of(counted).items() if bad},
        "n_cases": int(true.notna().sum()),
        "n_bad": int((above < 0).sum()),
    }


def _rank_correlation(cases: pd.DataFrame) -> float:
    """Spearman's rho; NaN with fewer than three cases, or where all are alike."""
    ranks = cases.rank()
    return float(ranks.corr().iloc[0, 1]) if len(ranks) > 2 and (ranks.nunique() > 1).all() else math.nan


def trust_of(table: pd.DataFrame) -> dict[str, pd.Series]:
    """By name of each order, (n,) trust in each case by its name, larger is better; NaN where nothing is known.

    ``folds``: how far the networks of several folds agree, where cases were predicted by more than one.
    """
    by_case = table.groupby("case", sort=False)
    trust = {"predicted Dice": by_case.predicted_dice.min(), "entropy": -by_case.entropy.first()}
    if "members_dice" in table and table.members_dice.notna().any():
        trust["folds"] = by_case.members_dice.min()
    return trust


def workload(trust: ArrayLike, true: ArrayLike) -> list[dict[str, Any]]:
    """What looking at ``SHARES`` of the cases finds, the least trusted ones first.

    Args:
        trust: (n,) of each case, larger is better. NaN is looked at first; what is found among cases of equal trust is
            the mean over all their orders.
        true: (n,) Dice less the limit below which a case is bad; NaN is left out.

    Returns:
        For each share, ``looked_at``: the cases that this is, ``n_cases``, rounded up, and the share of the bad ones
        that is ``caught``, NaN where none is bad.
    """
    cases = pd.DataFrame({"trust": np.asarray(trust, float), "true": np.asarray(true, float)}).dropna(subset="true")
    cases = cases.fillna(-math.inf).sort_values("trust", kind="stable")
    caught = np.append(0, (cases.true < 0).groupby(cases.trust).transform("mean").cumsum())
    rows = []
    for share in SHARES:
        n_cases = math.ceil(share * len(cases) - 1e-9)
        found = float(caught[n_cases] / caught[-1]) if caught[-1] else math.nan
        rows.append({"looked_at": share, "n_cases": n_cases, "caught": found})
    return rows
