"""How well predicted Dice agrees with Dice, and how many bad cases a look at some finds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from nnunet_nacl.estimators.intervals import Coverage, coverage
from nnunet_nacl.estimators.learned_quality import DICE_COLUMNS, PREDICTED_DICE_LOW
from nnunet_nacl.metrics.calibration_error import nanmean
from nnunet_nacl.utilities.json_types import Number, Share, doc

SHARES_LOOKED_AT = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Of the cases that are looked at."""


class Look(TypedDict):
    """What a look at some of the cases finds, the least trusted first."""

    looked_at: Annotated[float, doc("Share of the cases that is looked at.")]
    n_cases: Annotated[NonNegativeInt, doc("How many that is, rounded up.")]
    caught: Annotated[Share, doc("Share of the bad cases among them; null where none is bad.")]


QualityReport = TypedDict(  # in this form, since a name has a space in it
    "QualityReport",
    {
        "MAE predicted": Annotated[
            Number, doc("Mean absolute error of predicted Dice, over structures of cases.")
        ],
        "threshold": Annotated[
            float | dict[str, float] | None,
            doc(
                "Dice below which a structure is bad: one, or by structure; null where no"
                " Dice was called bad."
            ),
        ],
        "coverage": Annotated[
            Coverage | None, doc("Share of true Dice in their intervals; null without intervals.")
        ],
        "width": Annotated[Number, doc("Mean width of the intervals.")],
        "rho": Annotated[
            Number,
            doc(
                "Spearman's rank correlation of a case's lowest predicted with its lowest true"
                " Dice."
            ),
        ],
        "workload": Annotated[
            dict[str, list[Look]],
            doc(
                "By name of an order of the cases, what a look at some finds; empty where"
                " no Dice was called bad."
            ),
        ],
        "n_cases": Annotated[NonNegativeInt, doc("Cases with a Dice.")],
        "n_bad": Annotated[NonNegativeInt, doc("Bad ones among them.")],
    },
)
"""Every number of one method, as calibration.json has them."""


def quality_report(table: pd.DataFrame, bad: Mapping[str, float] | None) -> QualityReport:
    """How well the predicted Dice of one method agrees with Dice.

    Args:
        table: A row for each case and structure, of :func:`nnunet_nacl.cases.record.table`. Used
            are ``case``, ``key``, ``Dice``, ``predicted_dice``, ``entropy``, and, where there are
            such, ``members_dice`` and the ends of the intervals in ``DICE_COLUMNS``.
        bad: By key of each structure that counts, the Dice below which it is bad; None: nothing is
            called bad.

    Returns:
        The numbers; without intervals ``coverage`` is None and ``width`` NaN.
    """
    limits = dict(bad or {})
    lowest_dice = table.groupby("case", sort=False).Dice.min()
    confidence = confidence_scores(table)["predicted Dice"]
    predicted, low, high = table.reindex(columns=DICE_COLUMNS).to_numpy(float).T
    has_intervals = PREDICTED_DICE_LOW in table

    margins = _dice_above_limits(table, limits)
    lowest_margin = margins.groupby("case", sort=False).Dice.min()
    looks = {}
    if limits:
        for order, scores in confidence_scores(margins).items():
            looks[order] = workload(scores, lowest_margin)
    return {
        "MAE predicted": nanmean(np.abs(predicted - table.Dice)),
        "threshold": _one_or_all(limits),
        "coverage": coverage(low, high, table.Dice) if has_intervals else None,
        "width": nanmean(high - low),
        "rho": _correlate_ranks(confidence, lowest_dice),
        "workload": looks,
        "n_cases": int(lowest_dice.notna().sum()),
        "n_bad": int((lowest_margin < 0).sum()),
    }


def _dice_above_limits(table: pd.DataFrame, limits: Mapping[str, float]) -> pd.DataFrame:
    """The rows of the structures that count, with true and predicted Dice minus their limit."""
    counted = table[table.key.isin(limits)]
    limit = counted.key.map(limits).astype(float)
    return counted.assign(Dice=counted.Dice - limit, predicted_dice=counted.predicted_dice - limit)


def _one_or_all(limits: dict[str, float]) -> float | dict[str, float] | None:
    """The limit of all structures where it is one, else each; None where there is none."""
    different = set(limits.values())
    if len(different) > 1:
        return limits
    return next(iter(different), None)


def _correlate_ranks(confidence: pd.Series, true: pd.Series) -> float:
    """Spearman's rho over the cases where both are known.

    NaN with fewer than three, or where all are alike.
    """
    from scipy.stats import spearmanr  # which takes long to load

    cases = pd.DataFrame({"confidence": confidence, "true": true}).dropna()
    if len(cases) < 3 or (cases.nunique() == 1).any():
        return math.nan
    return float(spearmanr(cases.confidence, cases.true).statistic)


def confidence_scores(table: pd.DataFrame) -> dict[str, pd.Series]:
    """By name of each order of the cases, the confidence in each case, by its name.

    Larger is better; NaN where nothing is known. ``predicted Dice`` is the lowest of a case's
    structures, ``entropy`` minus its mean entropy. ``folds``: how far the networks of several
    folds agree, where cases were predicted by more than one. The table is that of
    :func:`quality_report`.
    """
    by_case = table.groupby("case", sort=False)
    scores = {"predicted Dice": by_case.predicted_dice.min(), "entropy": -by_case.entropy.first()}
    if "members_dice" in table and table.members_dice.notna().any():
        scores["folds"] = by_case.members_dice.min()
    return scores


def workload(confidence: ArrayLike, margin: ArrayLike) -> list[Look]:
    """What looking at ``SHARES_LOOKED_AT`` of the cases finds, the least trusted ones first.

    Args:
        confidence: (n,) of each case, larger is better. NaN is looked at first; what is found among
            cases of equal confidence is the mean over all their orders.
        margin: (n,) Dice minus the limit below which a case is bad; NaN is left out.
    """
    cases = pd.DataFrame(
        {"confidence": np.asarray(confidence, float), "margin": np.asarray(margin, float)}
    )
    cases = cases.dropna(subset="margin").fillna(-math.inf)
    cases = cases.sort_values("confidence", kind="stable")
    is_bad = cases.margin < 0
    expected_bad = is_bad.groupby(cases.confidence).transform("mean")
    num_caught = np.append(0, expected_bad.cumsum())  # by the number of cases looked at
    num_bad = num_caught[-1]
    looks: list[Look] = []
    for share in SHARES_LOOKED_AT:
        n_cases = math.ceil(share * len(cases) - 1e-9)
        caught = float(num_caught[n_cases] / num_bad) if num_bad else math.nan
        looks.append({"looked_at": share, "n_cases": n_cases, "caught": caught})
    return looks
