"""The probability that a structure is in a scan, by a logistic regression on held-out cases.

A structure is judged by its expected volume and the largest expected Dice of any set of voxels,
both as the network gave them: a map that acts on voxels adds nothing. Cases are few, and the
question is often answered without an error, where plain logistic regression goes to infinity:
slopes of standardised features have a normal prior, and the intercept is held back by half a yes
and half a no at the mean of the features. Scans of a patient are alike: each patient counts once,
however many scans it has, else probabilities come too close to 0 and 1.
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

from nnunet_nacl.metrics.groups import (
    ByCase,
    assign_cross_fit_folds,
    look_up_patients,
    predict_out_of_fold,
)
from nnunet_nacl.utilities.json_types import LARGEST_COEFFICIENT, Array, Coefficient, Share, Size

FEWEST = 3
"""Patients who have a structure in a scan, and patients who lack it in one, to learn it from."""
_SLOPE_SD = 1.0  # of standardised features; chosen among a few on validation folds
_LEAST_DICE = 1e-3
_NUM_BINS = 10  # of the expected calibration error
# A structure is in `listed` if more than this share of the cases have it in several components: in
# some, anatomy falls apart.
_SHARE_FRAGMENTED = 0.5

Coefficients = Annotated[np.ndarray, Array(np.float64, largest=LARGEST_COEFFICIENT)]


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnedProbability:
    """The probability of a yes: 1 / (1 + exp(-(intercept + slopes @ standardised features))).

    Attributes:
        intercept: Log-odds at the mean of the features.
        slopes: (F,) of the standardised features, (features - centre) / spread.
        centre: (F,) means of the features; patients weigh the same.
        spread: (F,) their standard deviations; 1 where all are alike.
        n_patients: Whose rows it was learned from.
    """

    intercept: Coefficient
    slopes: Coefficients
    centre: Coefficients
    spread: Coefficients
    n_patients: NonNegativeInt

    def __post_init__(self) -> None:
        have_same_length = len(self.slopes) == len(self.centre) == len(self.spread)
        if not have_same_length or not (self.spread > 0).all():
            raise ValueError("its lists do not belong together")

    @classmethod
    def fit(
        cls, features: ArrayLike, yes: ArrayLike, patients: Iterable[Hashable]
    ) -> LearnedProbability:
        """Learn from rows that are a yes or a no; the rows of a patient together weigh 1.

        Args:
            features: (n, F) finite features.
            yes: (n,) whether each row is a yes.
            patients: To whom each row belongs.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        feature_rows = np.asarray(features, float)
        is_yes = np.asarray(yes, float)
        patient = pd.factorize(pd.Series(list(patients), dtype=object))[0]
        weight = 1 / np.bincount(patient)[patient]
        scaler = StandardScaler().fit(feature_rows, sample_weight=weight)
        at_mean = np.zeros((2, feature_rows.shape[1]))  # half a yes and half a no
        rows = np.vstack([scaler.transform(feature_rows), at_mean])
        outcomes = np.append(is_yes, [0, 1])
        weights = np.append(weight, [0.5, 0.5])
        regression = LogisticRegression(C=_SLOPE_SD**2, solver="newton-cholesky", tol=1e-8)
        regression.fit(rows, outcomes, weights)
        return cls(
            intercept=float(regression.intercept_[0]),
            slopes=regression.coef_[0],
            centre=scaler.mean_,
            spread=scaler.scale_,
            n_patients=int(patient.max()) + 1,
        )

    def predict(self, features: ArrayLike) -> np.ndarray:
        """(n,) probability of a yes by (n, F) features; NaN of NaN.

        It is at least half a patient's share away from 0 and 1.
        """
        from scipy.special import expit

        feature_rows = np.asarray(features, float).reshape(-1, len(self.centre))
        standardised = (feature_rows - self.centre) / self.spread
        least = 0.5 / (self.n_patients + 1)
        return np.clip(expit(self.intercept + standardised @ self.slopes), least, 1 - least)


def predict_left_out(
    features: np.ndarray, yes: ArrayLike, patients: Sequence[Hashable]
) -> np.ndarray:
    """(n,) probability of each row by what the rows of other patients teach.

    Arguments are those of :meth:`LearnedProbability.fit`. NaN with fewer than two patients.
    """
    is_yes = np.asarray(yes, float)
    owner = np.array(patients, object)
    if len(set(patients)) < 2:
        return np.full(len(is_yes), math.nan)

    def predict(others: np.ndarray, left_out: np.ndarray) -> np.ndarray:
        learned = LearnedProbability.fit(features[others], is_yes[others], owner[others])
        return learned.predict(features[left_out])

    folds = assign_cross_fit_folds([str(patient) for patient in patients])
    return predict_out_of_fold(folds, predict)


@dataclass(frozen=True, kw_only=True)
class ProbabilityCheck:
    """Scores of ``n`` probabilities of a yes; NaN without any.

    Attributes:
        brier: Brier score.
        brier_of_constant: Brier score of what knows nothing of the case.
        auroc: Area under the ROC curve; NaN unless there are both outcomes.
        ece: Expected calibration error, of ten equal bins. With few values it is far from 0 by
            chance.
        n: How many probabilities there are.
    """

    brier: Share
    brier_of_constant: Share
    auroc: Share
    ece: Share
    n: NonNegativeInt

    @classmethod
    def of(cls, probability: ArrayLike, constant: ArrayLike, yes: ArrayLike) -> ProbabilityCheck:
        """Check probabilities against the truth.

        Args:
            probability: (n,) of a yes; where it is NaN the row is left out.
            constant: (n,) of what knows nothing of the case.
            yes: (n,) the truth.
        """
        from sklearn.metrics import roc_auc_score

        probabilities = np.asarray(probability, float)
        is_known = ~np.isnan(probabilities)
        probabilities = probabilities[is_known]
        is_yes = np.asarray(yes, bool)[is_known]
        constants = np.asarray(constant, float)[is_known]
        n = len(probabilities)
        if not n:
            return cls(
                brier=math.nan, brier_of_constant=math.nan, auroc=math.nan, ece=math.nan, n=0
            )
        has_both = is_yes.any() and not is_yes.all()
        auroc = float(roc_auc_score(is_yes, probabilities)) if has_both else math.nan
        return cls(
            brier=float(np.mean((probabilities - is_yes) ** 2)),
            brier_of_constant=float(np.mean((constants - is_yes) ** 2)),
            auroc=auroc,
            ece=_calibration_error(probabilities, is_yes),
            n=n,
        )


def _calibration_error(probability: np.ndarray, is_yes: np.ndarray) -> float:
    """Expected calibration error over ten equal bins (lo, hi], 0 in the first."""
    bin_number = np.ceil(_NUM_BINS * probability).clip(1).astype(int)
    excess = np.bincount(bin_number, probability - is_yes)
    return float(np.abs(excess).sum() / len(probability))


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnedPresence:
    """What held-out cases taught about what is there.

    Attributes:
        voxel: Volume of a voxel, the median of the cases'.
        present: By structure, whether it is in a scan. Structures that are in all cases, or in
            none, are missing.
        listed: Structures that are absent from some cases, or fragmented in most: several
            components of them are no surprise. Of those that may be absent each component is a
            finding, see ``with_findings`` of
            :class:`~nnunet_nacl.calibration.map_parts.MapQuality`.
        checks: By structure, how its probability does on patients that it was not learned from.
        why_not: By structure why nothing was learned, though some cases lack it.
    """

    voxel: Size
    present: dict[str, LearnedProbability]
    listed: list[str]
    checks: dict[str, ProbabilityCheck] = field(default_factory=dict)
    why_not: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, learned in self.present.items():
            num_features = len(learned.slopes)
            if num_features != 2:
                raise ValueError(f"present.{key}: it takes 2 features, got {num_features}")

    def present_probability(self, structure: str, rows: pd.DataFrame) -> np.ndarray:
        """(n,) that a structure is in scans, by what the network gave; NaN: not learned.

        The rows are those of :func:`presence_features`.
        """
        learned = self.present.get(structure)
        if learned is None:
            return np.full(len(rows), math.nan)
        return learned.predict(presence_features(rows, self.voxel))


def presence_features(rows: pd.DataFrame, voxel_volume: float) -> np.ndarray:
    """(n, 2) log(volume + ``voxel_volume``) and log(largest expected Dice), which tell of presence.

    Args:
        rows: With ``network_volume``, the sum of the network's probabilities times
            ``voxel_volume``, and ``network_dice``, of
            :func:`~nnunet_nacl.metrics.expected_dice.largest_dice`, of which 0.001 is the least.
        voxel_volume: Of a voxel.
    """
    volume = rows.network_volume.clip(lower=0) + voxel_volume
    dice = rows.network_dice.clip(lower=_LEAST_DICE)
    return np.log(np.stack([volume, dice], axis=1).astype(float))


def learn_presence(table: pd.DataFrame, patients: ByCase) -> LearnedPresence:
    """Learn of structures that some held-out cases lack; checked on left-out patients.

    A structure is learned from at least ``FEWEST`` patients with a scan that has it, and as many
    with a scan that lacks it: the scans of fewer do not tell presence from who the patient is.

    Args:
        table: A row for each held-out case and structure, of
            :func:`nnunet_nacl.cases.record.table`. Used are ``case``, ``key``, ``voxel_volume``,
            ``true_volume``, ``true_pieces``, ``network_volume`` and ``network_dice``.
        patients: Patient of each case.
    """
    voxel_volume = float(table.voxel_volume.median())
    present: dict[str, LearnedProbability] = {}
    listed: list[str] = []
    checks: dict[str, ProbabilityCheck] = {}
    why_not: dict[str, str] = {}
    for name, rows in table.groupby("key", sort=False):
        key = str(name)
        is_present = (rows.true_volume > 0).to_numpy()
        is_fragmented = (rows.true_pieces > 1).mean() > _SHARE_FRAGMENTED
        if not is_present.all() or is_fragmented:
            listed.append(key)
        if is_present.all():
            continue
        owners = look_up_patients(rows.case, patients)
        too_few = _why_too_few(is_present, owners)
        if too_few:
            why_not[key] = too_few
            continue
        features = presence_features(rows, voxel_volume)
        checks[key] = _check_on_left_out(features, is_present, owners)
        if checks[key].brier < checks[key].brier_of_constant:
            present[key] = LearnedProbability.fit(features, is_present, owners)
        else:
            why_not[key] = "no better than the share of the other patients"
    return LearnedPresence(
        voxel=voxel_volume, present=present, listed=listed, checks=checks, why_not=why_not
    )


def _why_too_few(is_present: np.ndarray, owners: Sequence[Hashable]) -> str:
    """Why presence cannot be learned from so few patients, in words; empty where it can."""
    owner = pd.Series(list(owners), dtype=object)
    n_with = owner[is_present].nunique()
    n_without = owner[~is_present].nunique()
    if min(n_with, n_without) >= FEWEST:
        return ""
    return f"patients with it: {n_with}, without it: {n_without}; it takes {FEWEST} of each"


def _check_on_left_out(
    features: np.ndarray, is_present: np.ndarray, owners: Sequence[Hashable]
) -> ProbabilityCheck:
    # Of zeros the intercept alone is fitted, that is, the share of the other patients' rows.
    no_features = np.zeros((len(features), 1))
    probability = predict_left_out(features, is_present, owners)
    share_of_others = predict_left_out(no_features, is_present, owners)
    return ProbabilityCheck.of(probability, share_of_others, is_present)


def predict_presence_out_of_fold(table: pd.DataFrame, patients: ByCase, folds: ByCase) -> pd.Series:
    """Probability that the structure of each row is in its case, by cases of the other folds.

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
