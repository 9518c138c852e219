"""Tests whether a scan is unlike the calibration scans, by the distance of its profile to theirs.

A profile is a row of numbers of one scan (:mod:`nnunet_nacl.nnunet.profile`), in units in which
0.05 is little. They are scaled by median and spread of the calibration scans: 1.4826 times the
median absolute deviation; where that is below 0.05, the standard deviation, at least 0.05. A gap,
as of a structure that was not segmented, counts as the median. The score of a scan is its mean
distance to the five nearest calibration scans of other patients; that of a calibration scan is
found without its patient, in scale, too. With n patients

    p = (1 + sum over patients of the share of their scans with a score at least as large) / (n + 1)

is at most a level with a probability of at most that level, were the scan exchangeable with them
and its score found alike. The left-out scores have one patient fewer to be near to, so this is
approximate.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from nnunet_nacl.estimators.risk_control import patients_needed
from nnunet_nacl.utilities.json_types import Number, Patients

DEFAULT_UNLIKE = 0.05
"""Level: a scan is unlike the calibration scans if its p-value is at most this."""
LOG = "log "
"""Begins the name of a number that is a logarithm."""
_DIGITS = 5  # of the numbers of a profile that are kept
_NEIGHBOURS = 5  # whose mean distance is the score
_LEAST_SPREAD = 0.05  # of a number, where all calibration scans are nearly alike
_MAD_TO_STANDARD_DEVIATION = 1.4826  # of a normal distribution
SLACK = 1.1
"""How far beyond the range of known scans, as a factor, a spacing or size is still like theirs."""
ROUNDING = 1e-9
"""Tolerance for rounding, of a p-value against the level, and of level (n + 1) against whole
numbers; n is the number of patients."""


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
        """Why no scan can be unlike, in words; empty if one can.

        ``unlike`` is the level: a scan is unlike if its p-value is at most this.
        """
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

    def has(self, number: str, profile: np.ndarray) -> bool:
        """Whether a size or spacing of an (F,) profile is one that these scans have.

        ``number`` is its name without ``LOG``, such as ``size along y``. Within the range of these
        scans, or a tenth beyond, it is; one that profiles do not hold is not.
        """
        if LOG + number not in self.names:
            return False
        column = self.names.index(LOG + number)
        known = self._profiles[:, column]
        slack = math.log(SLACK)
        return bool(np.nanmin(known) - slack <= profile[column] <= np.nanmax(known) + slack)

    def stands_out(self, profile: np.ndarray) -> str:
        """The number of an (F,) profile that is farthest off: name, value, range of these scans.

        Such as ``noise 0.31 (0.02 to 0.08)``; of a logarithm the number itself. Which scans stand
        out of a batch is another question, see
        :func:`~nnunet_nacl.estimators.unlike_batch.find_stand_outs`.
        """
        farthest = int(np.argmax(np.abs(self._reference.scale(profile))))
        name = self.names[farthest]
        known = self._profiles[:, farthest]
        value_and_range = np.array([profile[farthest], np.nanmin(known), np.nanmax(known)])
        if name.startswith(LOG):
            value_and_range = np.exp(value_and_range)
        value, lowest, highest = value_and_range
        return f"{name.removeprefix(LOG)} {value:.3g} ({lowest:.3g} to {highest:.3g})"


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
