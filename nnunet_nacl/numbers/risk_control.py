"""The lowest score at which a stated share of the bad scans is flagged: conformal risk control over patients.

A scan is flagged where its score is at most t. What a patient loses at t is the share of its bad scans that are not
flagged (``of_bad``: patients without a bad scan are left out), or the share of its scans that are bad and not flagged.
With n patients and their mean loss R(t), which falls as t rises, the smallest t that has

    n R(t) / (n + 1) + 1 / (n + 1) <= rate

keeps the expected loss of the next patient at or below the rate, if the patients are exchangeable and the score was
fixed before they were looked at (Angelopoulos et al., "Conformal Risk Control", ICLR 2024, theorem 1). The 1 stands for
the next patient, who may lose all.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def patients_needed(rate: Fraction) -> int:
    """Fewest patients with which any threshold keeps to a rate: 9 for 1/10, 19 for 1/20."""
    return math.ceil(1 / rate) - 1


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
