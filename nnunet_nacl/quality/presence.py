"""The probability that a structure is in a scan, by a logistic regression on held-out cases.

A structure is judged by its expected volume and the largest expected Dice of any set of voxels,
both as the network gave them: a map that acts on voxels adds nothing. Cases are few, and the
question is often answered without an error, where plain logistic regression goes to infinity:
slopes of standardised features have a normal prior, and the intercept is held back by half a yes
and half a no at the mean of the features.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import NonNegativeInt

from nnunet_nacl.json_types import LARGEST_COEFFICIENT, Array, Coefficient, Share, Size
from nnunet_nacl.metrics.groups import (
    ByCase,
    assign_cross_fit_folds,
    look_up_patients,
    predict_out_of_fold,
)

FEWEST = 3
"""Patients who have a structure in a scan, and patients who lack it in one, to learn it from."""
_SLOPE_SD = 1.0  # of standardised features; chosen among a few on validation folds
_LEAST_DICE = 1e-3
# share of the cases with a structure in which it must be in pieces: anatomy falls apart in some
_IN_PIECES = 0.5

Table = Annotated[np.ndarray, Array(np.float64, largest=LARGEST_COEFFICIENT)]


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnedProbability:
    """The probability of a yes: 1 / (1 + exp(-(intercept + slopes @ (features - centre) /
    spread))).

    ``centre`` and ``spread`` are (F,) means and standard deviations of the features, 1 where all
    are alike, among the rows of ``n_patients`` patients.
    """

    intercept: Coefficient
    slopes: Table
    centre: Table
    spread: Table
    n_patients: NonNegativeInt

    def __post_init__(self) -> None:
        if (
            not len(self.slopes) == len(self.centre) == len(self.spread)
            or not (self.spread > 0).all()
        ):
            raise ValueError("its lists do not belong together")

    @classmethod
    def fit(
        cls, features: ArrayLike, yes: ArrayLike, patients: Iterable[Hashable]
    ) -> LearnedProbability:
        """Learn from (n,) whether rows of (n, F) finite features are a yes, and to whom they
        belong."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        x, y = np.asarray(features, float), np.asarray(yes, float)
        scaler = StandardScaler().fit(x)
        # half a yes and half a no at the mean
        rows = np.vstack([scaler.transform(x), np.zeros((2, x.shape[1]))])
        regression = LogisticRegression(C=_SLOPE_SD**2, solver="newton-cholesky", tol=1e-8)
        regression.fit(rows, np.append(y, [0, 1]), np.append(np.ones(len(y)), [0.5, 0.5]))
        return cls(
            intercept=float(regression.intercept_[0]),
            slopes=regression.coef_[0],
            centre=scaler.mean_,
            spread=scaler.scale_,
            n_patients=len(set(patients)),
        )

    def predict(self, features: ArrayLike) -> np.ndarray:
        """(n,) probability of a yes by (n, F) features, as far from 0 and 1 as half a patient's
        share; NaN of NaN."""
        from scipy.special import expit

        x = (np.asarray(features, float).reshape(-1, len(self.centre)) - self.centre) / self.spread
        least = 0.5 / (self.n_patients + 1)
        return np.clip(expit(self.intercept + x @ self.slopes), least, 1 - least)


def predict_left_out(
    features: np.ndarray, yes: ArrayLike, patients: Sequence[Hashable]
) -> np.ndarray:
    """(n,) probability of each row by what the rows of other patients teach; NaN where there are
    fewer than two."""
    y, names = np.asarray(yes, float), np.array(patients, object)
    if len(set(patients)) < 2:
        return np.full(len(y), math.nan)

    def predict(others: np.ndarray, left: np.ndarray) -> np.ndarray:
        return LearnedProbability.fit(features[others], y[others], names[others]).predict(
            features[left]
        )

    return predict_out_of_fold(
        assign_cross_fit_folds([str(patient) for patient in patients]), predict
    )


@dataclass(frozen=True, kw_only=True)
class ProbabilityCheck:
    """Brier score, area under the ROC curve and expected calibration error of ``n`` probabilities;
    NaN without any.

    ``brier_of_constant`` is the score of what knows nothing of the case. The area is NaN unless
    there are both outcomes. With few values the error, of ten equal bins, is far from 0 by chance.
    """

    brier: Share
    brier_of_constant: Share
    auroc: Share
    ece: Share
    n: NonNegativeInt

    @classmethod
    def of(cls, probability: ArrayLike, constant: ArrayLike, yes: ArrayLike) -> ProbabilityCheck:
        """The check of (n,) probabilities, and of those that know nothing, NaN where there is none,
        against truths."""
        from sklearn.metrics import roc_auc_score

        p, y, same = (
            np.asarray(probability, float),
            np.asarray(yes, bool),
            np.asarray(constant, float),
        )
        y, same, p = (values[~np.isnan(p)] for values in (y, same, p))
        if not len(p):
            return cls(
                brier=math.nan, brier_of_constant=math.nan, auroc=math.nan, ece=math.nan, n=0
            )
        ece = np.abs(np.bincount(np.ceil(10 * p).clip(1).astype(int), p - y)).sum() / len(p)
        area = roc_auc_score(y, p) if y.any() and not y.all() else math.nan
        brier, of_constant = (float(np.mean((values - y) ** 2)) for values in (p, same))
        return cls(
            brier=brier, brier_of_constant=of_constant, auroc=float(area), ece=float(ece), n=len(p)
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnedPresence:
    """What held-out cases taught about what is there.

    Attributes:
        voxel: Volume of a voxel, the median of the cases'.
        present: By structure, whether it is in a scan. Structures that are in all cases, or in
            none, are missing.
        listed: Structures that are absent from some cases, or in pieces in most.
        checks: By structure, how its probability does on patients that it was not learned from.
        why_not: By structure why nothing was learned, though some cases lack it.
    """

    voxel: Size
    present: dict[str, LearnedProbability]
    listed: list[str]
    checks: dict[str, ProbabilityCheck] = field(default_factory=dict)
    why_not: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if other := [key for key, learned in self.present.items() if len(learned.slopes) != 2]:
            raise ValueError(
                f"present.{other[0]}: it takes 2 features, got {len(self.present[other[0]].slopes)}"
            )

    def present_probability(self, structure: str, rows: pd.DataFrame) -> np.ndarray:
        """(n,) that a structure is in scans, by what the network gave (:func:`presence_features`);
        NaN: not learned."""
        found = self.present.get(structure)
        return (
            found.predict(presence_features(rows, self.voxel))
            if found
            else np.full(len(rows), math.nan)
        )


def presence_features(rows: pd.DataFrame, voxel: float) -> np.ndarray:
    """(n, 2) what tells whether a structure is in a scan: log(volume + ``voxel``), and log(largest
    expected Dice).

    ``network_volume`` is the sum of the network's probabilities times ``voxel``, the volume of one;
    ``network_dice``, of which .001 is the least, comes from
    :func:`~nnunet_nacl.metrics.expected_dice.largest_dice`.
    """
    volume, dice = (
        rows.network_volume.clip(lower=0) + voxel,
        rows.network_dice.clip(lower=_LEAST_DICE),
    )
    return np.log(np.stack([volume, dice], 1).astype(float))


def learn_presence(table: pd.DataFrame, patients: ByCase) -> LearnedPresence:
    """Learn from a table of held-out cases of structures that some of them lack; checked on
    left-out patients.

    A structure is learned from at least ``FEWEST`` patients with a scan that has it, and as many
    with a scan that lacks it: the scans of fewer do not tell presence from who the patient is.
    """
    learned = LearnedPresence(voxel=float(table.voxel_volume.median()), present={}, listed=[])
    for name, rows in table.groupby("key", sort=False):
        key = str(name)
        is_present = (rows.true_volume > 0).to_numpy()
        is_fragmented = (rows.true_pieces > 1).mean() > _IN_PIECES
        if not is_present.all() or is_fragmented:
            learned.listed.append(key)
        if is_present.all():
            continue

        owners = look_up_patients(rows.case, patients)
        n_with = len({owner for owner, present in zip(owners, is_present) if present})
        n_without = len({owner for owner, present in zip(owners, is_present) if not present})
        if min(n_with, n_without) < FEWEST:
            learned.why_not[key] = (
                f"patients with it: {n_with}, without it: {n_without}; it takes {FEWEST} of each"
            )
            continue

        features = presence_features(rows, learned.voxel)
        no_features = np.zeros((len(rows), 1))
        probability = predict_left_out(features, is_present, owners)
        share_of_others = predict_left_out(no_features, is_present, owners)
        check = ProbabilityCheck.of(probability, share_of_others, is_present)
        learned.checks[key] = check
        if check.brier < check.brier_of_constant:
            learned.present[key] = LearnedProbability.fit(features, is_present, owners)
        else:
            learned.why_not[key] = "no better than the share of the other patients"
    return learned


def predict_presence_out_of_fold(table: pd.DataFrame, patients: ByCase, folds: ByCase) -> pd.Series:
    """Probability that the structure of each row is in its case, by what the cases of the other
    folds teach.

    Args:
        table: A row for each held-out case and structure, as for :func:`learn_presence`.
        patients: Patient of each case.
        folds: Fold of the cross-fit of each case; a patient's cases lie in one.

    Returns:
        Probabilities by the table's index; NaN where nothing was learned.
    """
    probability = pd.Series(math.nan, table.index)
    fold_of_row = table.case.map(folds)
    for fold in fold_of_row.unique():
        is_left_out = fold_of_row == fold
        learned = learn_presence(table[~is_left_out], patients)
        for key, rows in table[is_left_out].groupby("key"):
            probability[rows.index] = learned.present_probability(str(key), rows)
    return probability
