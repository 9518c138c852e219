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
from nnunet_nacl.quality.flags import patients_needed

DEFAULT_UNLIKE = 0.05
LOG = "log "
"""Begins the name of a number that is a logarithm."""
FEWEST_TO_COMPARE = 20
"""Scans of a batch without which its scores are not compared with those of the calibration
scans."""
_NEIGHBOURS = 5
_LEAST_SPREAD = 0.05


@dataclass(frozen=True, eq=False, kw_only=True)
class CalibrationProfiles:
    """Profiles of n calibration scans: (F,) names, (n, F) values, NaN for a gap, and the number of
    each patient."""

    names: list[str]
    values: list[list[Number]]
    patient: Patients

    def __post_init__(self) -> None:
        n = len(self.patient)
        if (
            not n
            or len(self.values) != n
            or any(len(row) != len(self.names) for row in self.values)
        ):
            raise ValueError("its lists do not belong together")

    @classmethod
    def learn(
        cls, names: Sequence[str], values: np.ndarray, patients: Sequence[Hashable]
    ) -> CalibrationProfiles:
        """Of (n, F) values, to five digits, and to whom each scan belongs."""
        number_of_patient = pd.factorize(np.array(patients, object))[0]
        return cls(
            names=list(names), values=np.round(values, 5).tolist(), patient=number_of_patient
        )

    @property
    def n_patients(self) -> int:
        """How many patients there are."""
        return int(self.patient.max()) + 1

    def why_not(self, unlike: float) -> str:
        """Why no scan can be unlike at this level, in words; empty if one can."""
        if self.n_patients >= (needed := patients_needed(unlike)):
            return ""
        return f"it takes {needed} patients to tell at {unlike:g}, there are {self.n_patients}"

    @cached_property
    def _table(self) -> np.ndarray:
        return np.array(self.values, float)

    @cached_property
    def scores(self) -> np.ndarray:
        """(n,) of the calibration scans, each found without its patient; NaN where there is no
        other."""
        result = np.full(len(self.patient), math.nan)
        for number in range(self.n_patients if self.n_patients > 1 else 0):
            here = self.patient == number
            result[here] = _distances(self._table[here], self._table[~here])
        return result

    def score(self, profile: np.ndarray) -> float:
        """Of an (F,) profile of a new scan."""
        return float(_distances(profile[None], self._table)[0])

    def p_value(self, profile: np.ndarray) -> float:
        """How probable so large a score is for a scan like these; NaN with one patient."""
        at_least = self.scores >= self.score(profile)
        shares = np.bincount(self.patient, at_least) / np.bincount(self.patient)
        return (
            float((1 + shares.sum()) / (self.n_patients + 1)) if self.n_patients > 1 else math.nan
        )

    def stands_out(self, profile: np.ndarray) -> str:
        """The number of an (F,) profile that is farthest off, with the range of the calibration
        scans."""
        middle, spread = _scale(self._table)
        i = int(np.argmax(np.nan_to_num(np.abs(profile - middle) / spread)))
        numbers = np.array([profile[i], np.nanmin(self._table[:, i]), np.nanmax(self._table[:, i])])
        value, low, high = np.exp(numbers) if self.names[i].startswith(LOG) else numbers
        return f"{self.names[i].removeprefix(LOG)} {value:.3g} ({low:.3g} to {high:.3g})"


@dataclass(frozen=True, kw_only=True)
class UnlikeScans:
    """How many scans of a batch are unlike the calibration scans, p being at most ``level``.

    ``probability`` is that of as many or more, were all scans like the calibration scans;
    ``two_sample`` is the p-value of larger scores in the batch (Mann-Whitney), NaN with fewer than
    20 scans; ``why_not`` says why none could be.
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
        """Of the (F,) profiles of a batch."""
        from scipy.stats import mannwhitneyu

        n_patients = profiles.n_patients
        why_not = profiles.why_not(level)
        if why_not or not scans:
            return cls(
                level=level,
                n_scans=len(scans),
                n_unlike=0,
                n_patients=n_patients,
                probability=math.nan,
                two_sample=math.nan,
                why_not=why_not,
            )
        n_unlike = sum(profiles.p_value(scan) <= level + 1e-9 for scan in scans)
        two_sample = math.nan
        if len(scans) >= FEWEST_TO_COMPARE:
            scores = [profiles.score(scan) for scan in scans]
            two_sample = float(mannwhitneyu(scores, profiles.scores, alternative="greater").pvalue)
        return cls(
            level=level,
            n_scans=len(scans),
            n_unlike=n_unlike,
            n_patients=n_patients,
            probability=batch_probability(n_unlike, len(scans), n_patients, level),
            two_sample=two_sample,
        )

    @property
    def text(self) -> str:
        """One sentence; empty where neither a scan nor the batch is unlike."""
        if self.n_unlike:
            verb, p = "is" if self.n_unlike == 1 else "are", f"by chance p = {self.probability:.2g}"
            return (
                f"{self.n_unlike} of {self.n_scans} {verb} unlike the calibration scans ({p}):"
                " intervals and flags are not supported there."
            )
        batch = (
            f"The batch is unlike the calibration scans (p = {self.two_sample:.2g}), though no"
            " single scan is:"
        )
        # NaN is not
        return f"{batch} rely less on intervals and flags." if self.two_sample <= self.level else ""


def batch_probability(n_unlike: int, m: int, n_patients: int, level: float) -> float:
    """Probability of at least ``n_unlike`` of m scans with p <= ``level``, were all like the
    calibration scans.

    P-values that share their calibration scans are not independent: the number of small ones is
    beta-binomial with k and n + 1 - k, k = floor(level (n + 1)) (Bates et al., Annals of Statistics
    51, 2023). NaN where no p is so small.
    """
    from scipy.stats import betabinom

    k = math.floor(level * (n_patients + 1) + 1e-9)
    return float(betabinom.sf(n_unlike - 1, m, k, n_patients + 1 - k)) if k else math.nan


def _scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F,) median and spread; NaN and 1 of a number that no scan has."""
    is_given = ~np.isnan(values).all(0)
    middle, spread = np.full(values.shape[1], math.nan), np.ones(values.shape[1])
    middle[is_given] = np.nanmedian(values[:, is_given], 0)
    away = 1.4826 * np.nanmedian(np.abs(values[:, is_given] - middle[is_given]), 0)
    of_all = np.nanstd(values[:, is_given], 0)
    spread[is_given] = np.maximum(np.where(away > _LEAST_SPREAD, away, of_all), _LEAST_SPREAD)
    return middle, spread


def _distances(profiles: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(m,) mean distance of (m, F) profiles to the nearest of (n, F) others."""
    from scipy.spatial.distance import cdist

    middle, spread = _scale(others)
    scaled, neighbours = (
        np.nan_to_num((values - middle) / spread) for values in (profiles, others)
    )
    return np.sort(cdist(scaled, neighbours), 1)[:, :_NEIGHBOURS].mean(1)
