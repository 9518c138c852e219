"""What share of the scans must be flagged for a share of the bad ones to be found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nnunet_nacl.metrics.statistics import percentile_interval, resamples
from nnunet_nacl.quality.flags import DEFAULT_FIND
from nnunet_nacl.quality.risk_control import patients_needed, smallest_thresholds
from nnunet_nacl.quality.scan_scores import ScanScores

FINDS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Shares of the bad scans that may be asked for."""
LIMITS = (0.5, 0.6, 0.7, 0.8)
"""Dice below which a scan may be called bad."""
_DRAWS = 200


@dataclass(frozen=True)
class _Request:
    """Which scans are bad, by the Dice of each structure that counts, and the share to be found."""

    bad: Mapping[str, float]
    find: float


def flag_costs(scores: ScanScores, bad: Mapping[str, float] | None = None) -> pd.DataFrame:
    """What it costs to find bad scans.

    Args:
        scores: The calibration scans.
        bad: By key of each structure that counts, the Dice below which it is bad: a row for each
            share of ``FINDS``. None: all structures count, and there is a row for each of
            ``LIMITS``, with ``DEFAULT_FIND``.

    Returns:
        Columns: ``find``, the share to be found; ``bad``, the lowest Dice of the structures below
        which a scan is bad; ``share_bad``, the share of the calibration scans that are;
        ``n_patients``, patients with a bad one; ``flagged``, the share of the scans that is, NaN
        where there are too few patients, and its 95 % ``interval`` by the bootstrap over patients;
        ``by_entropy``, that share where the mean entropy orders the scans; ``at_random``, where
        nothing orders them.
    """
    if bad is None:
        requests = [_Request(dict.fromkeys(scores.score, limit), DEFAULT_FIND) for limit in LIMITS]
    else:
        requests = [_Request(bad, find) for find in FINDS]
    n_patients = int(scores.patient.max()) + 1
    drawn = np.vstack([np.ones(n_patients), resamples(n_patients, _DRAWS, 0)])
    return pd.DataFrame([_cost_of_request(scores, request, drawn) for request in requests])


def _cost_of_request(scores: ScanScores, request: _Request, drawn: np.ndarray) -> dict[str, object]:
    """A row of :func:`flag_costs`.

    Args:
        scores: The calibration scans.
        request: Which of them are bad, and the share to be found.
        drawn: (D, patients) how often each patient counts; once in the first row.
    """
    are_bad = scores.are_bad(request.bad)
    n_bad_patients = len(set(scores.patient[are_bad]))
    rate = 1 - request.find
    shares = _shares_flagged(scores.of_scans(request.bad), are_bad, scores.patient, rate, drawn)
    certainty = -np.array(scores.entropy, float)
    by_entropy = _shares_flagged(certainty, are_bad, scores.patient, rate, drawn)
    if n_bad_patients < patients_needed(rate):
        interval = (math.nan, math.nan)
        at_random = math.nan
    else:
        interval = percentile_interval(shares[1:])
        # One minus the largest risk that `controls_risk` allows with so many patients: where
        # nothing orders the scans, the share that is flagged is the share of the bad ones that is
        # found.
        at_random = 1 - (rate * (n_bad_patients + 1) - 1) / n_bad_patients
    return {
        "find": request.find,
        "bad": min(request.bad.values()),
        "share_bad": are_bad.mean(),
        "n_patients": n_bad_patients,
        "flagged": shares[0],
        "interval": interval,
        "by_entropy": by_entropy[0],
        "at_random": at_random,
    }


def _shares_flagged(
    score: np.ndarray, are_bad: np.ndarray, patient: np.ndarray, rate: float, drawn: np.ndarray
) -> np.ndarray:
    """(D,) share of the scans that is flagged, in each draw.

    Arguments are those of :func:`~nnunet_nacl.quality.risk_control.smallest_thresholds`. NaN where
    there are too few patients.
    """
    thresholds = smallest_thresholds(score, are_bad, patient, rate, drawn=drawn)
    weights = drawn[:, patient]
    is_flagged = ~(score > thresholds[:, None])
    shares = (weights * is_flagged).sum(1) / weights.sum(1)
    return np.where(np.isnan(thresholds), math.nan, shares)
