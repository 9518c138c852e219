"""Compares a batch of scans with the calibration scans: how many are unlike them, whether the whole
batch is, as of another scanner, and which scans stand out of such a batch.

The score of a scan is its distance to the calibration scans (:mod:`nnunet_nacl.estimators.unlike`).
Scans of a patient are alike, so that patients are compared: the mean scores of the batch's patients
with those of the calibration patients, by Mann-Whitney's test for larger ones. Means of many scans
vary less than single scores: the test keeps its level where patients of the batch have about as
many scans as the calibration patients have.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nnunet_nacl.estimators.unlike import LOG, ROUNDING, CalibrationProfiles

FEWEST_SCANS = 20
"""With fewer scans a batch is not compared with the calibration scans."""
LEVEL_OF_BATCH = 0.001
"""A batch is unlike the calibration scans if the p-value is below this: one batch of a thousand
that are like them."""
_MOST_NUMBERS = 3  # that are named
_SHARE_OF_STAND_OUTS = 0.05  # of a batch, at most
_TIMES_MEDIAN = 2.0  # so far from the others a scan that stands out is, in median distances


@dataclass(frozen=True, kw_only=True)
class UnlikeScans:
    """How many scans of a batch are unlike the calibration scans.

    Attributes:
        level: A scan is unlike if its p-value is at most this.
        n_scans: Scans of the batch.
        n_unlike: How many of them are unlike.
        n_patients: Patients of the calibration scans.
        probability: Of as many unlike scans or more, were all scans like the calibration scans,
            see :func:`batch_probability`; each patient counts by the share of its scans that are
            unlike. NaN where it is not known.
        two_sample: P-value of larger scores in the batch than among the calibration scans, see
            :func:`batch_p_value`; NaN with fewer than ``FEWEST_SCANS`` scans.
        why_not: Why no single scan could be unlike, in words; else empty.
    """

    level: float
    n_scans: int
    n_unlike: int
    n_patients: int
    probability: float
    two_sample: float
    why_not: str = ""

    @classmethod
    def of(
        cls,
        profiles: CalibrationProfiles,
        scans: Sequence[np.ndarray],
        patients: Sequence[Hashable],
        level: float,
    ) -> UnlikeScans:
        """Compare the (F,) profiles of a batch with the calibration scans.

        Args:
            profiles: Of the calibration scans.
            scans: Profiles of the batch; there may be none.
            patients: To whom each of these scans belongs.
            level: A scan is unlike if its p-value is at most this.
        """
        why_not = profiles.why_not(level)
        n_unlike = 0
        probability = math.nan
        batch_p = batch_p_value(profiles, np.array(scans), patients) if scans else math.nan
        if scans and not why_not:
            p_values = np.array([profiles.p_value(scan) for scan in scans])
            is_unlike = p_values <= level + ROUNDING
            n_unlike = int(np.count_nonzero(is_unlike))
            share_by_patient = _patient_means(is_unlike, patients)
            n_unlike_patients = math.floor(share_by_patient.sum() + ROUNDING)
            probability = batch_probability(
                n_unlike_patients, len(share_by_patient), profiles.n_patients, level
            )
        return cls(
            level=level,
            n_scans=len(scans),
            n_unlike=n_unlike,
            n_patients=profiles.n_patients,
            probability=probability,
            two_sample=batch_p,
            why_not=why_not,
        )

    @property
    def text(self) -> str:
        """One sentence; empty where no scan is unlike."""
        if not self.n_unlike:
            return ""
        verb = "is" if self.n_unlike == 1 else "are"
        return (
            f"{self.n_unlike} of {self.n_scans} {verb} unlike the calibration scans"
            f" (as many by chance: p = {self.probability:.2g}):"
            " intervals and flags are not supported there."
        )


@dataclass(frozen=True, kw_only=True)
class UnlikeBatch:
    """A batch whose scans differ from the calibration scans.

    Attributes:
        p: P-value of larger distances to the calibration scans, with patients as the units; the
            same as ``two_sample`` of :class:`UnlikeScans`.
        n_scans: Scans that were compared.
        n_patients: Patients that they belong to.
        numbers: What differs most of an image, at most three, such as ``size along y``; none where
            no number alone differs clearly.
        stand_outs: Scans that are far from the others of the batch, at most one of twenty.
    """

    p: float
    n_scans: int
    n_patients: int
    numbers: list[str]
    stand_outs: list[str]

    @property
    def differences(self) -> str:
        """What differs and how clearly, such as ``size along y, noise; p = 3e-18``."""
        p_value = f"p = {self.p:.1g}"
        return f"{', '.join(self.numbers)}; {p_value}" if self.numbers else p_value


def find_unlike_batch(
    profiles: CalibrationProfiles,
    scans: np.ndarray,
    cases: Sequence[str],
    patients: Sequence[Hashable],
    batch_p: float,
) -> UnlikeBatch | None:
    """The batch, if it is unlike the calibration scans; None if it is like them, or too small.

    Args:
        profiles: Of the calibration scans.
        scans: (m, F) profiles of the batch.
        cases: (m,) names of the scans.
        patients: (m,) to whom each scan belongs.
        batch_p: As :func:`batch_p_value` gives it.
    """
    if not batch_p < LEVEL_OF_BATCH:  # NaN is not
        return None
    return UnlikeBatch(
        p=batch_p,
        n_scans=len(cases),
        n_patients=len(set(patients)),
        numbers=find_numbers_that_differ(profiles, scans, patients),
        stand_outs=find_stand_outs(profiles.names, scans, cases, patients),
    )


def batch_probability(n_unlike: int, m: int, n_patients: int, level: float) -> float:
    """Probability of at least ``n_unlike`` of m scans with p <= ``level``, were all like these.

    The scans are of m patients: scans of one patient are alike, and small p-values of them come
    together. P-values that share their calibration scans are not independent: the number of small
    ones is beta-binomial with k and n + 1 - k, k = floor(level (n + 1)), n the calibration patients
    (Bates et al., Annals of Statistics 51, 2023). NaN where no p is so small.
    """
    from scipy.stats import betabinom

    k = math.floor(level * (n_patients + 1) + ROUNDING)
    if not k:
        return math.nan
    return float(betabinom.sf(n_unlike - 1, m, k, n_patients + 1 - k))


def batch_p_value(
    profiles: CalibrationProfiles, scans: np.ndarray, patients: Sequence[Hashable]
) -> float:
    """One-sided p-value of larger mean scores of the batch's patients (Mann-Whitney).

    NaN with fewer than ``FEWEST_SCANS`` scans, or calibration scans of one patient.
    """
    from scipy.stats import mannwhitneyu

    if len(scans) < FEWEST_SCANS or profiles.n_patients < 2:
        return math.nan
    scores = np.array([profiles.score(scan) for scan in scans])
    batch_means = _patient_means(scores, patients)
    calibration_means = _patient_means(profiles.scores, profiles.patient)
    return float(mannwhitneyu(batch_means, calibration_means, alternative="greater").pvalue)


def find_numbers_that_differ(
    profiles: CalibrationProfiles, scans: np.ndarray, patients: Sequence[Hashable]
) -> list[str]:
    """Names of the numbers of a profile in which the batch differs most, the clearest first.

    Each number is tested by patients (Mann-Whitney, two-sided, corrected for as many tests as there
    are numbers); those that differ are ordered by how rarely a patient of one side has the value of
    one of the other.
    """
    from scipy.stats import mannwhitneyu

    calibration_profiles = np.array(profiles.values, float)
    overlap_by_name = {}
    for column, name in enumerate(profiles.names):
        batch_means = _patient_means(scans[:, column], patients)
        calibration_means = _patient_means(calibration_profiles[:, column], profiles.patient)
        if not len(batch_means) or not len(calibration_means):
            continue
        test = mannwhitneyu(batch_means, calibration_means)
        if test.pvalue * len(profiles.names) < LEVEL_OF_BATCH:
            share_above = test.statistic / (len(batch_means) * len(calibration_means))
            overlap_by_name[name.removeprefix(LOG)] = min(share_above, 1 - share_above)
    return sorted(overlap_by_name, key=overlap_by_name.__getitem__)[:_MOST_NUMBERS]


def find_stand_outs(
    names: Sequence[str],
    scans: np.ndarray,
    cases: Sequence[str],
    patients: Sequence[Hashable],
) -> list[str]:
    """Scans that are far from the others of their batch, the farthest first.

    :meth:`CalibrationProfiles.stands_out` is another thing: it names a number of one scan.

    The distance of a scan is that to the five nearest scans of other patients of the batch, as of
    calibration scans. A scan stands out if its distance is more than twice the median of all and
    among the largest 5 %: so at most one scan of twenty does.
    """
    batch = CalibrationProfiles.learn(names, scans, patients)
    distances = pd.Series(batch.scores, list(cases)).dropna().sort_values(ascending=False)
    largest = distances[: math.floor(_SHARE_OF_STAND_OUTS * len(cases))]
    return largest.index[largest > _TIMES_MEDIAN * distances.median()].tolist()


def _patient_means(values: np.ndarray, patients: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Mean of each patient's values, NaN left out; patients without any value are left out."""
    return pd.Series(values).groupby(np.asarray(patients)).mean().dropna().to_numpy()
