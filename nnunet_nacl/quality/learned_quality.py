"""Intervals of the true Dice and volume around the predicted ones, learned from held-out cases; and
how they hold.

Predicted Dice is the expectation under the calibrated probabilities (the Soft Dice Confidence of
Borges et al., 2024, arXiv 2402.10665), predicted volume their sum. How far both are off is alike
from case to case, and is learned from cases that the network did not train on. Errors of volumes
are taken relative to the predicted volume plus one voxel.

Intervals are jackknife+ (Barber et al., Annals of Statistics 49, 2021) with patients in the place
of cases. A mean error that is not 0 shifts the interval; the prediction stays what the
probabilities say. For a new patient like those before, an interval of level 1 - alpha typically
contains the true value with a probability of 1 - alpha. The proof (at least 1 - 2 alpha) is for
predictions that are given; these follow from calibration maps, those of the other cases from maps
that were fitted with that patient, so what the intervals contain is known by trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import NonNegativeInt

from nnunet_nacl.json_types import Array, Patients, Share, Size
from nnunet_nacl.metrics.calibration_error import nanmean
from nnunet_nacl.metrics.groups import (
    ByCase,
    assign_cross_fit_folds,
    look_up_patients,
    predict_out_of_fold,
)
from nnunet_nacl.quality.flags import DIGITS, ScanScores, patients_needed, structure_score
from nnunet_nacl.quality.presence import predict_presence_out_of_fold

DEFAULT_ALPHA = 0.1
DICE = ["predicted_dice", "predicted_dice_low", "predicted_dice_high"]
"""Columns of predicted Dice and the ends of its intervals, whose level is 1 - ``DEFAULT_ALPHA``."""
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Of the cases that are looked at."""
SINGLE_NETWORKS = "from single networks; the errors of an ensemble may differ"
"""Said beside what was not learned from predictions as they are deployed."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StructureEstimate:
    """How far the true value of one structure (Dice, or a volume) lies from the predicted one.

    Attributes:
        difference: (n,) true less predicted value of each case; relative to the predicted one if
            ``voxel`` is given.
        patient: (n,) which patient a case belongs to, numbers from 0.
        voxel: Of volumes, that of a voxel: errors are relative to the predicted volume plus this.
            None of Dice.
    """

    difference: Annotated[np.ndarray, Array(np.float64)]
    patient: Patients
    voxel: float | None = None

    def __post_init__(self) -> None:
        if self.voxel is not None and not 0 < self.voxel < math.inf:
            raise ValueError(f"voxel must be a volume, got {self.voxel!r}.")
        if len(self.patient) != len(self.difference):
            raise ValueError("its lists do not belong together")

    @classmethod
    def fit(
        cls,
        predicted: ArrayLike,
        true: ArrayLike,
        patients: Sequence[Hashable],
        voxel: float | None = None,
    ) -> StructureEstimate:
        """Learn from (n,) Dice, or volumes if ``voxel`` is given, and to whom each case belongs;
        NaN is left out."""
        x, y = np.asarray(predicted, float), np.asarray(true, float)
        usable = ~np.isnan(x + y)
        number = pd.factorize(pd.Series(list(patients), dtype=object)[usable])[0]
        return cls(
            difference=(y - x)[usable] / _scale(x[usable], voxel), patient=number, voxel=voxel
        )

    @property
    def n_patients(self) -> int:
        """How many patients it was learned from."""
        return int(self.patient.max()) + 1 if len(self.patient) else 0

    @property
    def why_no_interval(self) -> str:
        """Why there is no interval, in words; empty if there is."""
        if self.n_patients >= (needed := patients_needed(DEFAULT_ALPHA)):
            return ""
        return (
            f"{self.n_patients} patients tell of it, an interval of {100 * (1 - DEFAULT_ALPHA):g} %"
            f" needs {needed}"
        )

    @cached_property
    def _ends(self) -> np.ndarray:
        """(2,) ends of the interval of a new difference, from those that each case allows, its
        patient left out."""
        counts = np.bincount(self.patient)
        means = np.bincount(self.patient, self.difference) / counts
        others = ((means.sum() - means) / (self.n_patients - 1))[self.patient]
        away = np.abs(self.difference - others)
        weight, level = 1 / counts[self.patient] / (self.n_patients + 1), 1 - DEFAULT_ALPHA
        return np.array(
            [-_quantile(away - others, weight, level), _quantile(others + away, weight, level)]
        )

    def predict(self, predicted: ArrayLike) -> np.ndarray:
        """(..., 3) predicted values and the ends of their intervals, which need not hold them if
        all are off one way.

        All are NaN where ``predicted``, (...), is NaN or nothing was learned; the ends with too few
        patients.
        """
        x = np.asarray(predicted, float)
        result = np.full((*x.shape, 3), math.nan)
        result[..., 0] = x if self.n_patients else math.nan
        if not self.why_no_interval:
            most = 1 if self.voxel is None else math.inf
            result[..., 1:] = np.clip(
                x[..., None] + self._ends * _scale(x, self.voxel)[..., None], 0, most
            )
        return result


def _scale(predicted: np.ndarray, voxel: float | None) -> np.ndarray:
    """What errors are relative to."""
    return np.ones_like(predicted) if voxel is None else np.maximum(predicted, 0) + voxel


def _quantile(values: np.ndarray, weight: np.ndarray, level: float) -> float:
    """The smallest value with at least ``level`` of the mass up to it; what the weights leave of 1
    lies at infinity."""
    order = np.argsort(values)
    reached = np.cumsum(weight[order]) >= level - 1e-9
    return float(values[order][reached.argmax()]) if reached.any() else math.inf


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Share of ``n`` true values in their intervals, with its 95 % interval (Clopper and Pearson
    1934); NaN of none."""

    share: Share
    low: Share
    high: Share
    n: NonNegativeInt


def coverage(low: ArrayLike, high: ArrayLike, true: ArrayLike) -> Coverage:
    """Share of the true values that lie in their intervals, ends included; NaN in any of the (n,)
    is left out."""
    from scipy.stats import binomtest

    values = np.array([low, high, true], float)
    lows, highs, trues = values[:, ~np.isnan(values).any(0)]
    if not (n := len(trues)):
        return Coverage(share=math.nan, low=math.nan, high=math.nan, n=0)
    inside = int(np.count_nonzero((lows <= trues) & (trues <= highs)))
    interval = binomtest(inside, n).proportion_ci(0.95, method="exact")
    return Coverage(share=inside / n, low=float(interval.low), high=float(interval.high), n=n)


@dataclass(frozen=True, kw_only=True)
class EstimateCheck:
    """How an estimate does on ``n`` cases that it has not seen, with a predicted and a true value.

    ``error`` is the mean absolute one, beside that of the mean of the other patients, ``width`` the
    mean one of the intervals, NaN without them.
    """

    error: Size
    error_of_constant: Size
    coverage: Coverage
    width: Size
    n: NonNegativeInt


def check_estimate(
    predicted: ArrayLike, true: ArrayLike, patients: Sequence[Hashable], voxel: float | None = None
) -> EstimateCheck:
    """Predict each case by what the cases of other patients teach; arguments as
    :meth:`StructureEstimate.fit`."""
    cases = pd.DataFrame({"x": np.asarray(predicted, float), "y": np.asarray(true, float)})
    cases = cases.assign(patient=[str(name) for name in patients]).dropna()
    x, y, names = cases.x.to_numpy(), cases.y.to_numpy(), cases.patient
    if names.nunique() < 2:
        return EstimateCheck(
            error=math.nan,
            error_of_constant=math.nan,
            coverage=coverage([], [], []),
            width=math.nan,
            n=len(y),
        )
    parts, weight = (
        assign_cross_fit_folds(list(names)),
        1 / names.map(names.value_counts()).to_numpy(),
    )
    middle, low, high = predict_parts(x, y, names, parts, voxel).T
    constant = predict_out_of_fold(
        parts,
        lambda others, left: np.full(left.sum(), np.average(y[others], weights=weight[others])),
    )
    error, error_of_constant = (float(np.mean(np.abs(values - y))) for values in (middle, constant))
    return EstimateCheck(
        error=error,
        error_of_constant=error_of_constant,
        coverage=coverage(low, high, y),
        width=float(np.mean(high - low)),
        n=len(y),
    )


def predict_parts(
    predicted: ArrayLike,
    true: ArrayLike,
    patients: Sequence,
    parts: Sequence[Hashable],
    voxel: float | None = None,
) -> np.ndarray:
    """(n, 3) as :meth:`StructureEstimate.predict`, each case by what the cases of other parts
    teach."""
    x, y, names = np.asarray(predicted, float), np.asarray(true, float), np.array(patients, object)

    def predict(others: np.ndarray, left: np.ndarray) -> np.ndarray:
        return StructureEstimate.fit(x[others], y[others], names[others].tolist(), voxel).predict(
            x[left]
        )

    return predict_out_of_fold(parts, predict)


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnedQuality:
    """Estimates of Dice and volume of nnU-Net's labels, and what flags are learned from.

    Attributes:
        as_deployed: Whether cases were predicted as in use (a held-out folder), not by networks of
            a cross-validation.
        dice, volume: By structure, how far true lie from predicted values.
        checks: For ``dice`` and ``volume``, by structure, how they do on cases that were left out.
        scores: Of the calibration scans, by which scans are flagged.
    """

    as_deployed: bool
    dice: dict[str, StructureEstimate]
    volume: dict[str, StructureEstimate]
    checks: dict[str, dict[str, EstimateCheck]]
    scores: ScanScores

    def __post_init__(self) -> None:
        for what, estimates, is_volume in (
            ("dice", self.dice, False),
            ("volume", self.volume, True),
        ):
            if any((estimate.voxel is not None) != is_volume for estimate in estimates.values()):
                raise ValueError(f"{what}: volumes, and they alone, have the volume of a voxel")
        scores = self.scores
        for key in self.dice.keys() & scores.score.keys():  # what is predicted has a score
            n_predicted = len(scores.patient if key in scores.always else self.dice[key].patient)
            if (n := np.count_nonzero(~np.isnan(scores.score[key]))) < n_predicted:
                raise ValueError(
                    f"scores.score.{key}: {n} scans have a score, {n_predicted} were predicted."
                )

    def predict_dice(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table of other cases than it was learned from, with the columns of ``DICE``."""
        return _with_intervals(table, lambda key, rows: self.dice[key].predict(rows.predicted_dice))


def learn(
    table: pd.DataFrame,
    patients: ByCase,
    parts: ByCase,
    *,
    as_deployed: bool,
    ignore_label: bool = False,
) -> LearnedQuality:
    """Learn from a table of held-out cases, each under a map that was fitted without it.

    ``parts`` of the cross-fit hold a patient's cases together. With ``ignore_label`` a structure
    may be where nobody annotated it: then scores know nothing of presence.
    """
    present = (
        pd.Series(math.nan, table.index)
        if ignore_label
        else predict_presence_out_of_fold(table, patients, parts)
    )
    voxel = float(table.voxel_volume.median())
    kinds = {
        "dice": ("predicted_dice", "Dice", None),
        "volume": ("predicted_volume", "true_volume", voxel),
    }
    estimates: dict[str, dict[str, StructureEstimate]] = {kind: {} for kind in kinds}
    checks: dict[str, dict[str, EstimateCheck]] = {kind: {} for kind in kinds}
    score, dice, always = {}, {}, []
    for key, rows in table.groupby("key", sort=False):
        names, is_always = look_up_patients(rows.case, patients), bool((rows.true_volume > 0).all())
        for kind, (predicted, true, scale) in kinds.items():
            pair = _seen(rows, predicted), rows[true]
            estimates[kind][key] = StructureEstimate.fit(*pair, names, scale)
            checks[kind][key] = check_estimate(*pair, names, scale)
        score[key] = structure_score(rows.predicted_dice, present[rows.index], is_always).tolist()
        dice[key] = rows.Dice.round(DIGITS).tolist()
        always += [key] if is_always else []
    entropy = table.groupby("case", sort=False).entropy.first()
    number = pd.factorize(pd.Series(look_up_patients(entropy.index, patients), dtype=object))[0]
    scores = ScanScores(
        score=score,
        dice=dice,
        entropy=entropy.round(DIGITS).tolist(),
        patient=number,
        always=always,
    )
    return LearnedQuality(
        as_deployed=as_deployed,
        dice=estimates["dice"],
        volume=estimates["volume"],
        checks=checks,
        scores=scores,
    )


def predict_dice_parts(table: pd.DataFrame, patients: ByCase, parts: ByCase) -> pd.DataFrame:
    """A table of :func:`learn` with the columns of ``DICE``, each case's by what the cases of other
    parts teach."""

    def predict(_: str, rows: pd.DataFrame) -> np.ndarray:
        names, own_parts = (
            look_up_patients(rows.case, patients),
            [parts[case] for case in rows.case],
        )
        return predict_parts(_seen(rows, DICE[0]), rows.Dice, names, own_parts)

    return _with_intervals(table, predict)


def _seen(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column of one structure; NaN where all scans lack it: they do not tell of those that have
    it."""
    return rows[column] if (rows.true_volume > 0).any() else rows[column] * math.nan


def _with_intervals(
    table: pd.DataFrame, predict: Callable[[str, pd.DataFrame], np.ndarray]
) -> pd.DataFrame:
    result = table.assign(**dict.fromkeys(DICE[1:], math.nan))
    for key, rows in table.groupby("key", sort=False):
        result.loc[rows.index, DICE] = predict(str(key), rows)
    return result


def quality_report(table: pd.DataFrame, bad: Mapping[str, float] | None) -> dict[str, Any]:
    """Every number of one method, as calibration.json has them.

    Args:
        table: A row for each case and structure.
        bad: By key of each structure that counts, the Dice below which it is bad; None: nothing is
            called bad.

    Returns:
        ``MAE predicted``: mean absolute error of predicted Dice, over structures of cases;
        ``coverage`` and mean ``width`` of its intervals, None and NaN where there are none;
        ``rho``: Spearman's rank correlation of a case's lowest predicted with its lowest true Dice;
        ``workload``: what a look at some cases finds (:func:`workload`), by name of the order;
        ``threshold``: what ``bad`` says, or its one number; ``n_cases``, and how many are bad.
    """
    true, trust = table.groupby("case", sort=False).Dice.min(), trust_of(table)["predicted Dice"]
    counted = table[table.key.isin(bad or ())]
    limits = counted.key.map(bad or {}).astype(float)
    counted = counted.assign(
        Dice=counted.Dice - limits, predicted_dice=counted.predicted_dice - limits
    )
    above = counted.groupby("case", sort=False).Dice.min()
    predicted, low, high = table.reindex(columns=DICE).to_numpy(float).T
    return {
        "MAE predicted": nanmean(np.abs(predicted - table.Dice)),
        "threshold": (
            None
            if not bad
            else dict(bad)
            if len(set(bad.values())) > 1
            else next(iter(bad.values()))
        ),
        "coverage": coverage(low, high, table.Dice) if DICE[1] in table else None,
        "width": nanmean(high - low),
        "rho": _correlate_ranks(trust, true),
        "workload": {
            order: workload(values, above) for order, values in trust_of(counted).items() if bad
        },
        "n_cases": int(true.notna().sum()),
        "n_bad": int((above < 0).sum()),
    }


def _correlate_ranks(trust: pd.Series, true: pd.Series) -> float:
    """Spearman's rho over the cases where both are known; NaN with fewer than three, or where all
    are alike."""
    from scipy.stats import spearmanr  # which takes long to load

    cases = pd.DataFrame({"trust": trust, "true": true}).dropna()
    if len(cases) < 3 or (cases.nunique() == 1).any():
        return math.nan
    return float(spearmanr(cases.trust, cases.true).statistic)


def trust_of(table: pd.DataFrame) -> dict[str, pd.Series]:
    """By name of each order, (n,) trust in each case by its name, larger is better; NaN where
    nothing is known.

    ``folds``: how far the networks of several folds agree, where cases were predicted by more than
    one.
    """
    by_case = table.groupby("case", sort=False)
    trust = {"predicted Dice": by_case.predicted_dice.min(), "entropy": -by_case.entropy.first()}
    if "members_dice" in table and table.members_dice.notna().any():
        trust["folds"] = by_case.members_dice.min()
    return trust


def workload(trust: ArrayLike, true: ArrayLike) -> list[dict[str, Any]]:
    """What looking at ``SHARES`` of the cases finds, the least trusted ones first.

    Args:
        trust: (n,) of each case, larger is better. NaN is looked at first; what is found among
            cases of equal trust is the mean over all their orders.
        true: (n,) Dice less the limit below which a case is bad; NaN is left out.

    Returns:
        For each share, ``looked_at``: the cases that this is, ``n_cases``, rounded up, and the
        share of the bad ones that is ``caught``, NaN where none is bad.
    """
    cases = pd.DataFrame(
        {"trust": np.asarray(trust, float), "true": np.asarray(true, float)}
    ).dropna(subset="true")
    cases = cases.fillna(-math.inf).sort_values("trust", kind="stable")
    caught = np.append(0, (cases.true < 0).groupby(cases.trust).transform("mean").cumsum())
    rows = []
    for share in SHARES:
        n_cases = math.ceil(share * len(cases) - 1e-9)
        found = float(caught[n_cases] / caught[-1]) if caught[-1] else math.nan
        rows.append({"looked_at": share, "n_cases": n_cases, "caught": found})
    return rows
