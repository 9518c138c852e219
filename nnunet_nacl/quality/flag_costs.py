"""What share of the scans must be flagged for a share of the bad ones to be found."""

from __future__ import annotations

import math
from collections.abc import Mapping

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


def flag_costs(scores: ScanScores, bad: Mapping[str, float] | None = None) -> pd.DataFrame:
    """What it costs to find bad scans.

    Args:
        scores: The calibration scans.
        bad: By key of each structure that counts, the Dice below which it is bad: a row for each
            share of ``FINDS``. None: all structures count, and there is a row for each of
            ``LIMITS``, with ``DEFAULT_FIND``.

    Returns:
        Columns: ``find``, the share to be found; ``bad``, the lowest Dice of the structures below
            which a scan is bad;
        ``share_bad``, the share of the calibration scans that are; ``n_patients``, patients with a
        bad one; ``flagged``, the share of the scans that is, NaN where there are too few patients,
        and its 95 % ``interval`` by the bootstrap over patients; ``by_entropy``, that share where
        the mean entropy orders the scans; ``at_random``, where nothing orders them.
    """
    if bad is None:
        aims = [(dict.fromkeys(scores.score, limit), DEFAULT_FIND) for limit in LIMITS]
    else:
        aims = [(dict(bad), find) for find in FINDS]
    n_patients = int(scores.patient.max()) + 1
    drawn = np.vstack([np.ones(n_patients), resamples(n_patients, _DRAWS, 0)])
    certainty = -np.array(scores.entropy, float)
    costs = []
    for limits, find in aims:
        are_bad = scores.are_bad(limits)
        n_bad_patients = len(set(scores.patient[are_bad]))
        rate = 1 - find
        shares = _shares_flagged(scores.of_scans(limits), are_bad, scores.patient, rate, drawn)
        drawn_shares = shares[1:]
        at_random = math.nan
        if n_bad_patients < patients_needed(rate):
            drawn_shares = shares[:0]
        else:
            at_random = 1 - (rate * (n_bad_patients + 1) - 1) / n_bad_patients
        costs.append(
            {
                "find": find,
                "bad": min(limits.values()),
                "share_bad": are_bad.mean(),
                "n_patients": n_bad_patients,
                "flagged": shares[0],
                "interval": percentile_interval(drawn_shares),
                "by_entropy": _shares_flagged(certainty, are_bad, scores.patient, rate, drawn)[0],
                "at_random": at_random,
            }
        )
    return pd.DataFrame(costs)


def _shares_flagged(
    score: np.ndarray, are_bad: np.ndarray, patient: np.ndarray, rate: float, drawn: np.ndarray
) -> np.ndarray:
    """(D,) share of the scans that is flagged, in each (D, patients) draw; NaN where there are too
    few patients."""
    thresholds = smallest_thresholds(score, are_bad, patient, rate, drawn=drawn)[:, None]
    weights = drawn[:, patient]
    is_flagged = ~(score > thresholds)
    shares = (weights * is_flagged).sum(1) / weights.sum(1)
    return np.where(np.isnan(thresholds[:, 0]), math.nan, shares)
