"""How good a scan's segmentation can be expected to be, and below which score scans are flagged.

What Dice a structure can expect follows from its predicted Dice x and the probability p that it is in the scan:

    segmented:      p x      (where it is absent the Dice is 0)
    not segmented:  1 - p    (where it is there the Dice is 0)

with p = 1 where that was not learned, for a structure that all calibration scans have; of one that some have, without
anything learned about which, x where it is segmented, and nothing where it is not. Where x says no more than a
constant, p alone counts. The score of a scan is the smallest, over the structures that count, of this less the Dice
below which the structure is bad. It has four digits, so that scans that are alike are on the same side of a threshold.
On left-out patients of three data sets it orders scans as well as the probability that one is bad does.

A scan is flagged where its score is at most t; conformal risk control over patients finds t. What a patient loses at t
is the share of its bad scans that are not flagged (``of_bad``: patients without a bad scan are left out), or the share
of its scans that are bad and not flagged. With n patients and their mean loss R(t), which falls as t rises, the
smallest t that has

    n R(t) / (n + 1) + 1 / (n + 1) <= rate

keeps the expected loss of the next patient at or below the rate, if the patients are exchangeable and the score was
fixed before they were looked at (Angelopoulos et al., "Conformal Risk Control", ICLR 2024, theorem 1). The 1 stands for
the next patient, who may lose all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from nnunet_nacl.json_files import Patients, Share

DIGITS = 4
"""Of scores and Dice that are kept."""


def structure_score(predicted_dice: ArrayLike, present: ArrayLike, always: bool, says_nothing: bool) -> np.ndarray:
    """(...) Dice that a structure can expect, see above; NaN where nothing is known.

    Args:
        predicted_dice: (...) x; NaN where the structure was not segmented.
        present: (...) p; NaN where that was not learned.
        always: Whether all calibration scans have it.
        says_nothing: Whether on left-out patients a constant was as near to the true Dice: then p alone counts.
    """
    x, p = np.asarray(predicted_dice, float), np.asarray(present, float)
    p = np.where(np.isnan(p) & always, 1.0, p)
    likely = np.where(np.isnan(p), 1.0, p)
    unknown = says_nothing & (np.isnan(p) | always)
    segmented = np.where(unknown, math.nan, likely if says_nothing else x * likely)
    return np.where(np.isnan(x), 1 - p, segmented).round(DIGITS)


@dataclass(frozen=True, eq=False)
class ScanScores:
    """The calibration scans, each as maps saw it that were fitted without its patient.

    Attributes:
        score: By structure (n,) the Dice that it can expect, see :func:`structure_score`; NaN where nothing is known.
        dice: By structure (n,) true Dice; 0 for one that was missed or invented, NaN for one that is in neither.
        entropy: (n,) mean normalised entropy over the segmented structures; NaN where nothing was segmented.
        patient: (n,) to whom each scan belongs, numbers from 0.
        always: Structures that all scans have.

    Raises:
        ValueError: Lists or structures do not belong together.
    """

    score: dict[str, list[Share]]
    dice: dict[str, list[Share]]
    entropy: list[Share]
    patient: Patients
    always: list[str]

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (*self.score.values(), *self.dice.values(), self.entropy)}
        known = self.score.keys() == self.dice.keys() and self.score and set(self.always) <= self.score.keys()
        if not known or lengths != {len(self.patient)}:
            raise ValueError("scores, Dice and patients must be of the same structures and scans")

    def of_scans(self, bad: Mapping[str, float]) -> np.ndarray:
        """(n,) score of each scan by the Dice below which each structure that counts is bad; NaN where none has one."""
        return np.fmin.reduce([np.array(self.score[key]) - limit for key, limit in bad.items()])

    def are_bad(self, bad: Mapping[str, float]) -> np.ndarray:
        """(n,) whether the Dice of a structure that counts is below what ``bad`` says."""
        return np.any([np.array(self.dice[key]) < limit for key, limit in bad.items()], axis=0)  # NaN is not


def patients_needed(rate: Fraction | float) -> int:
    """Fewest patients with which anything can be promised up to a share of losses: 9 for 1/10, 19 for 1/20."""
    return math.ceil(1 / rate - 1 - 1e-9)


def smallest_threshold(
    score: np.ndarray, bad: np.ndarray, patient: np.ndarray, rate: Fraction, *, of_bad: bool
) -> float:
    """The threshold that flags fewest.

    Args:
        score: (n,) of each calibration scan, low where it is likely to be bad; NaN, no score, is flagged always.
        bad: (n,) whether it is bad.
        patient: (n,) whole numbers: to whom each scan belongs.
        rate: Of what may be lost, above 0 and below 1. A fraction: in floats 1 - .9 is less than 1 / 10.
        of_bad: Whether the loss is a share of the bad scans, not of all.

    Returns:
        -inf (none need be flagged), or the score of a bad scan; NaN where there are too few patients.
    """
    bad = np.asarray(bad, bool)
    counts = np.bincount(np.asarray(patient, int)[bad] if of_bad else np.asarray(patient, int))
    n_patients = int(np.count_nonzero(counts))
    allowed = rate * (n_patients + 1) - 1  # of the sum of the losses
    if allowed < 0:
        return math.nan
    missed = sorted((s, Fraction(1, int(counts[p]))) for s, p in zip(score[bad], patient[bad]) if not math.isnan(s))
    threshold, lost = -math.inf, sum((loss for _, loss in missed), Fraction(0))
    for s, loss in missed:  # what is lost changes at the scores of bad scans alone
        if lost <= allowed:
            break
        threshold, lost = float(s), lost - loss
    return threshold
