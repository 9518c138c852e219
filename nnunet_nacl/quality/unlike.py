"""Tests whether a scan is unlike the calibration scans, by the distance of its profile to theirs.

A profile is a row of numbers of one scan (:mod:`nnunet_nacl.nnunet.profile`), in units in which
0.05 is little. They are scaled by median and spread of the calibration scans: 1.4826 times the
median absolute deviation; where that is below 0.05, the standard deviation, at least 0.05. A gap,
as of a structure that was not segmented, counts as the median. The score of a scan is its mean
distance to the five nearest calibration scans of other patients; that of a calibration scan is
found without its patient, in scale, too. With n patients

    p = (1 + sum over patients of the share of their scans with a score at least as large) / (n + 1)

is small with a probability of at most p, were the scan exchangeable with them and its score found
alike. The left-out scores have one patient less to be near to, so this is approximate.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from nnunet_nacl.json_types import Number, Patients
from nnunet_nacl.quality.risk_control import patients_needed

DEFAULT_UNLIKE = 0.05
"""Level: a scan is unlike the calibration scans if its p-value is at most this."""
LOG = "log "
"""Begins the name of a number that is a logarithm."""
FEWEST_TO_COMPARE = 20
"""Scans of a batch without which its scores are not compared with those of the calibration
scans."""
_DIGITS = 5  # of the numbers of a profile that are kept
_NEIGHBOURS = 5  # whose mean distance is the score
_LEAST_SPREAD = 0.05  # of a number, where all calibration scans are nearly alike
_MAD_TO_STANDARD_DEVIATION = 1.4826  # of a normal distribution
_ROUNDING = 1e-9  # how far a p-value may exceed the level, and level (n + 1) miss a whole number


@dataclass(frozen=True, eq=False, kw_only=True)
class CalibrationProfiles:
    """Profiles of the calibration scans, to which new scans are compared.

    Attributes:
        names: (F,) name of each number of a profile.
        values: (n, F) profiles; NaN for a gap.
        patient: (n,) to whom each scan belongs, numbers from 0.
    """

    names: list[str]
    values: list[list[Number]]
    patient: Patients

    def __post_init__(self) -> None:
        num_scans = len(self.patient)
        row_lengths = {len(row) for row in self.values}
        if not num_scans or len(self.values) != num_scans or row_lengths != {len(self.names)}:
            raise ValueError("its lists do not belong together")

    @classmethod
    def learn(
        cls, names: Sequence[str], values: np.ndarray, patients: Sequence[Hashable]
    ) -> CalibrationProfiles:
        """Keep (n, F) profiles, rounded to five digits, and to whom each of the scans belongs."""
        patient_number = pd.factorize(np.array(patients, object))[0]
        rounded = np.round(values, _DIGITS).tolist()
        return cls(names=list(names), values=rounded, patient=patient_number)

    @property
    def n_patients(self) -> int:
        """How many patients there are."""
        return int(self.patient.max()) + 1

    def why_not(self, unlike: float) -> str:
        """Why no scan can be unlike at this level, in words; empty if one can."""
        needed = patients_needed(unlike)
        if self.n_patients >= needed:
            return ""
        return f"it takes {needed} patients to tell at {unlike:g}, there are {self.n_patients}"

    @cached_property
    def _profiles(self) -> np.ndarray:
        """(n, F) profiles as an array."""
        return np.array(self.values, float)

    @cached_property
    def _reference(self) -> _ReferenceScans:
        """All of them, for new scans; their scale is found once."""
        return _ReferenceScans(self._profiles)

    @cached_property
    def scores(self) -> np.ndarray:
        """(n,) of the calibration scans, each found without the scans of its patient.

        NaN where there is no other patient.
        """
        scores = np.full(len(self.patient), math.nan)
        if self.n_patients < 2:
            return scores
        for number in range(self.n_patients):
            is_left_out = self.patient == number
            left_out = self._profiles[is_left_out]
            others = _ReferenceScans(self._profiles[~is_left_out])
            scores[is_left_out] = others.mean_distance_to_nearest(left_out)
        return scores

    def score(self, profile: np.ndarray) -> float:
        """Score of a new scan by its (F,) profile."""
        return float(self._reference.mean_distance_to_nearest(profile[None])[0])

    def p_value(self, profile: np.ndarray) -> float:
        """How probable a score as large as that of an (F,) profile is for a scan like these.

        The formula is that of the module. NaN with one patient.
        """
        if self.n_patients < 2:
            return math.nan
        is_as_large = self.scores >= self.score(profile)
        scans_by_patient = np.bincount(self.patient)
        share_by_patient = np.bincount(self.patient, is_as_large) / scans_by_patient
        return float((1 + share_by_patient.sum()) / (self.n_patients + 1))

    def stands_out(self, profile: np.ndarray) -> str:
        """The number of an (F,) profile that is farthest off: name, value, range of these scans.

        Such as ``noise 0.31 (0.02 to 0.08)``; of a logarithm the number itself.
        """
        farthest = int(np.argmax(np.abs(self._reference.scale(profile))))
        name = self.names[farthest]
        known = self._profiles[:, farthest]
        value_and_range = np.array([profile[farthest], np.nanmin(known), np.nanmax(known)])
        if name.startswith(LOG):
            value_and_range = np.exp(value_and_range)
        value, lowest, highest = value_and_range
        return f"{name.removeprefix(LOG)} {value:.3g} ({lowest:.3g} to {highest:.3g})"


@dataclass(frozen=True, kw_only=True)
class UnlikeScans:
    """How many scans of a batch are unlike the calibration scans.

    Attributes:
        level: A scan is unlike if its p-value is at most this.
        n_scans: Scans of the batch.
        n_unlike: How many of them are unlike.
        n_patients: Patients of the calibration scans.
        probability: Of as many unlike scans or more, were all scans like the calibration scans;
            NaN where it is not known.
        two_sample: P-value of larger scores in the batch than among the calibration scans
            (Mann-Whitney, one-sided); NaN with fewer than ``FEWEST_TO_COMPARE`` scans.
        why_not: Why none could be unlike, in words; else empty.
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
        cls, profiles: CalibrationProfiles, scans: Sequence[np.ndarray], level: float
    ) -> UnlikeScans:
        """Compare the (F,) profiles of a batch with those of the calibration scans."""
        why_not = profiles.why_not(level)
        n_unlike = 0
        probability = math.nan
        two_sample = math.nan
        if scans and not why_not:
            p_values = np.array([profiles.p_value(scan) for scan in scans])
            n_unlike = int(np.count_nonzero(p_values <= level + _ROUNDING))
            probability = batch_probability(n_unlike, len(scans), profiles.n_patients, level)
            if len(scans) >= FEWEST_TO_COMPARE:
                two_sample = _test_larger_scores(profiles, scans)
        return cls(
            level=level,
            n_scans=len(scans),
            n_unlike=n_unlike,
            n_patients=profiles.n_patients,
            probability=probability,
            two_sample=two_sample,
            why_not=why_not,
        )

    @property
    def text(self) -> str:
        """One sentence; empty where neither a scan nor the batch is unlike."""
        if self.n_unlike:
            verb = "is" if self.n_unlike == 1 else "are"
            return (
                f"{self.n_unlike} of {self.n_scans} {verb} unlike the calibration scans"
                f" (by chance p = {self.probability:.2g}):"
                " intervals and flags are not supported there."
            )
        if self.two_sample <= self.level:  # NaN is not
            return (
                f"The batch is unlike the calibration scans (p = {self.two_sample:.2g}),"
                " though no single scan is: rely less on intervals and flags."
            )
        return ""


def batch_probability(n_unlike: int, m: int, n_patients: int, level: float) -> float:
    """Probability of at least ``n_unlike`` of m scans with p <= ``level``, were all like these.

    P-values that share their calibration scans are not independent: the number of small ones is
    beta-binomial with k and n + 1 - k, k = floor(level (n + 1)), n the calibration patients (Bates
    et al., Annals of Statistics 51, 2023). NaN where no p is so small.
    """
    from scipy.stats import betabinom

    k = math.floor(level * (n_patients + 1) + _ROUNDING)
    if not k:
        return math.nan
    return float(betabinom.sf(n_unlike - 1, m, k, n_patients + 1 - k))


def _test_larger_scores(profiles: CalibrationProfiles, scans: Sequence[np.ndarray]) -> float:
    """One-sided p-value of Mann-Whitney's test: are scores of the batch larger than theirs?"""
    from scipy.stats import mannwhitneyu

    scores = [profiles.score(scan) for scan in scans]
    return float(mannwhitneyu(scores, profiles.scores, alternative="greater").pvalue)


class _ReferenceScans:
    """Profiles that distances are measured to, in units of their own median and spread.

    Attributes:
        median: (F,) of each number; NaN of a number that no scan has.
        spread: (F,) of each number; 1 of a number that no scan has.
    """

    def __init__(self, profiles: np.ndarray) -> None:
        num_numbers = profiles.shape[1]
        self.median = np.full(num_numbers, math.nan)
        self.spread = np.ones(num_numbers)
        is_known = ~np.isnan(profiles).all(axis=0)
        known = profiles[:, is_known]
        self.median[is_known] = np.nanmedian(known, axis=0)
        absolute_deviation = np.abs(known - self.median[is_known])
        robust = _MAD_TO_STANDARD_DEVIATION * np.nanmedian(absolute_deviation, axis=0)
        standard_deviation = np.nanstd(known, axis=0)
        usual = np.where(robust > _LEAST_SPREAD, robust, standard_deviation)
        self.spread[is_known] = np.maximum(usual, _LEAST_SPREAD)
        self._scaled_profiles = self.scale(profiles)

    def scale(self, profiles: np.ndarray) -> np.ndarray:
        """(..., F) profiles in units of the spread, from the median; a gap counts as the median."""
        return np.nan_to_num((profiles - self.median) / self.spread)

    def mean_distance_to_nearest(self, profiles: np.ndarray) -> np.ndarray:
        """(m,) mean Euclidean distance of (m, F) profiles to the five nearest of these."""
        from scipy.spatial.distance import cdist

        distances = cdist(self.scale(profiles), self._scaled_profiles)
        return np.sort(distances, axis=1)[:, :_NEIGHBOURS].mean(axis=1)
