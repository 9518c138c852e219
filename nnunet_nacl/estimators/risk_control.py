"""Conformal risk control over patients: thresholds up to which the next patient may lose something.

Angelopoulos et al., ICLR 2024. Patients must be exchangeable, and scores fixed before they were
looked at.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def controls_risk(risk: np.ndarray, n: ArrayLike, rate: float) -> np.ndarray:
    """(...) whether the next patient is expected to lose at most ``rate``.

    It is where n risk / (n + 1) + 1 / (n + 1) <= rate (theorem 1), for losses up to 1 that only
    fall, or only rise, with the threshold that is chosen by it. The 1 stands for the next patient,
    who may lose all.

    Args:
        risk: (...) mean loss of the patients.
        n: (...) how many patients there are.
        rate: The largest loss.
    """
    n_patients = np.asarray(n)
    # In floats 1 - .9 is less than 1 / 10.
    return n_patients * risk + 1 <= rate * (n_patients + 1) + 1e-9


def patients_needed(rate: float) -> int:
    """Fewest patients with which a share of losses can be kept to: 9 for 1/10, 19 for 1/20."""
    return math.ceil(1 / rate - 1 - 1e-9)


def smallest_thresholds(
    score: np.ndarray,
    bad: np.ndarray,
    patient: np.ndarray,
    rate: float,
    *,
    of_bad: bool = True,
    drawn: np.ndarray | None = None,
) -> np.ndarray:
    """Thresholds that flag fewest while the next patient is expected to lose at most ``rate``.

    Args:
        score: (n,) of each calibration scan, low where it is likely to be bad; NaN, no score, is
            flagged always.
        bad: (n,) whether it is bad.
        patient: (n,) whole numbers: to whom each scan belongs.
        rate: Above 0 and below 1.
        of_bad: A patient loses the share of its bad scans that are not flagged, and patients
            without one are left out; otherwise the share of its scans that are bad and not flagged.
        drawn: (D, patients) how often each patient counts; None: once, D being 1.

    Returns:
        (D,) -inf (none need be flagged), or the score of a bad scan; NaN where there are too few
        patients.
    """
    num_patients = int(patient.max()) + 1
    is_counted = bad if of_bad else np.ones(len(bad))
    scans_by_patient = np.bincount(patient, is_counted, num_patients)
    # What is lost changes at the scores of bad scans alone.
    thresholds = np.sort(np.append(score[bad & ~np.isnan(score)], -math.inf))
    lost_scans = np.zeros((num_patients, len(thresholds)))
    np.add.at(lost_scans, patient[bad], score[bad, None] > thresholds)
    loss_by_patient = lost_scans / np.maximum(scans_by_patient, 1)[:, None]
    if drawn is None:
        drawn = np.ones((1, num_patients))
    num_drawn = drawn @ (scans_by_patient > 0)  # patients of each draw that count
    risk = drawn @ loss_by_patient / np.maximum(num_drawn, 1)[:, None]
    is_controlled = controls_risk(risk, num_drawn[:, None], rate)
    lowest = thresholds[is_controlled.argmax(1)]
    return np.where(is_controlled.any(1), lowest, math.nan)
