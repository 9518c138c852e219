"""What flags cost: the share of the calibration scans to look at, so that a stated share of the bad ones is found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from nnunet_nacl.numbers.bootstrap import percentile_interval, resamples
from nnunet_nacl.numbers.flags import DEFAULT_FIND
from nnunet_nacl.numbers.risk_control import patients_needed, smallest_threshold
from nnunet_nacl.numbers.scan_score import ScanScores

LIMITS = (0.5, 0.6, 0.7, 0.8)
"""Dice below which a scan may be called bad."""
_DRAWS = 200


@dataclass(frozen=True)
class FlagCost:
    """Of one Dice below which a scan is bad, whatever the structure.

    Attributes:
        bad: That Dice.
        share_bad: Share of the calibration scans that are bad.
        n_patients: Patients with a bad one.
        flagged: Share of the scans that is flagged; NaN where there are too few patients.
        interval: Of 95 % of that share, by the bootstrap over patients.
        by_entropy: The same share where the mean entropy orders the scans; NaN where it cannot find as many.
        at_random: Where nothing orders them.
    """

    bad: float
    share_bad: float
    n_patients: int
    flagged: float
    interval: tuple[float, float]
    by_entropy: float
    at_random: float


def flag_costs(scores: ScanScores, limits: Sequence[float] = LIMITS, find: float = DEFAULT_FIND) -> list[FlagCost]:
    """The cost of finding a share of the bad scans, for each Dice below which they may be called bad.

    Args:
        scores: Of the calibration scans; all their structures count.
        limits: Dice below which a scan is bad.
        find: Share of the bad scans to be flagged.
    """
    rate, patient, entropy = 1 - Fraction(str(find)), scores.patient, -np.array(scores.entropy, float)
    costs = []
    for limit in limits:
        by_structure = dict.fromkeys(scores.score, limit)
        of_scans, are_bad = scores.of_scans(by_structure), scores.are_bad(by_structure)
        n = len(set(patient[are_bad]))
        flagged, by_entropy = (_flagged(values, are_bad, patient, rate) for values in (of_scans, entropy))
        interval, at_random = (math.nan, math.nan), math.nan
        if n >= patients_needed(rate):
            draws = [_flagged(*_drawn(of_scans, are_bad, patient, counts), rate) for counts in _patients(patient)]
            interval = percentile_interval(np.array(draws))
            at_random = float(1 - (rate * (n + 1) - 1) / n)
        costs.append(FlagCost(limit, float(are_bad.mean()), n, flagged, interval, by_entropy, at_random))
    return costs


def _flagged(score: np.ndarray, bad: np.ndarray, patient: np.ndarray, rate: Fraction) -> float:
    threshold = smallest_threshold(score, bad, patient, rate, of_bad=True)
    return math.nan if math.isnan(threshold) else float(np.mean(~(score > threshold)))


def _patients(patient: np.ndarray) -> np.ndarray:
    """How often each patient is drawn, by draw."""
    return resamples(int(patient.max()) + 1, _DRAWS, 0).astype(int)


def _drawn(
    score: np.ndarray, bad: np.ndarray, patient: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scans of the patients drawn; one who is drawn twice is two patients."""
    copies = counts[patient]
    index = np.repeat(np.arange(len(patient)), copies)
    copy = np.concatenate([np.arange(number) for number in copies]) if len(index) else index
    number = np.unique(patient[index] + copy * len(counts), return_inverse=True)[1]
    return score[index], bad[index], number
