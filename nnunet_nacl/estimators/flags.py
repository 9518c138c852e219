"""Flags scans by their score, so that a chosen share of the bad ones is found, and what that costs.

A scan is flagged where its score (:mod:`~nnunet_nacl.estimators.scan_scores`) is at most a
threshold, which conformal risk control over patients finds
(:mod:`~nnunet_nacl.estimators.risk_control`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd

from nnunet_nacl.estimators.risk_control import patients_needed, smallest_thresholds
from nnunet_nacl.estimators.scan_scores import ScanScores
from nnunet_nacl.metrics.risk_coverage import aurc
from nnunet_nacl.metrics.statistics import percentile_interval, resamples
from nnunet_nacl.utilities.errors import UserError, some
from nnunet_nacl.utilities.json_types import doc

DEFAULT_FIND = 0.9
"""Share of the bad scans to be flagged, where none is named."""
FINDS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Shares of the bad scans that may be asked for."""
LIMITS = (0.5, 0.6, 0.7, 0.8)
"""Dice below which a scan may be called bad."""
_DRAWS = 200


@dataclass(frozen=True, kw_only=True)
class Flags:
    """By which score scans are flagged, its aim, and what it does to the calibration scans."""

    bad: Annotated[
        dict[str, float],
        doc("By name of each structure that counts, the Dice below which it is bad."),
    ]
    find: Annotated[
        float | None,
        doc("Share of the bad scans to be flagged; null where only `miss` is asked for."),
    ]
    miss: Annotated[
        float | None,
        doc("Share of all scans that may be bad and not flagged; null where it is not asked for."),
    ]
    threshold: Annotated[
        float | None, doc("A scan is flagged if its score is at most this; null if none is.")
    ]
    n_scans: Annotated[int, doc("Calibration scans.")]
    n_bad_patients: Annotated[int, doc("Patients with a bad one.")]
    share_bad: Annotated[float, doc("Share of the calibration scans that are bad.")]
    share_found: Annotated[float, doc("Share of these that are flagged; NaN where none is bad.")]
    share_flagged: Annotated[float, doc("Share of the calibration scans that are flagged.")]
    why_not: Annotated[str, doc("Why no threshold could be learned; else empty.")] = ""
    counted: Annotated[str, doc("The structures that count, in words; empty where all do.")] = ""

    @classmethod
    def of(
        cls,
        scores: ScanScores,
        bad: Mapping[str, float],
        names: Mapping[str, str],
        find: float | None = None,
        miss: float | None = None,
    ) -> Flags:
        """The flags of a site's choice, by the scores of the calibration scans.

        Args:
            scores: Of the calibration scans.
            bad: By nnU-Net's key of each structure that counts, the Dice below which it is bad.
            names: Name of each structure by nnU-Net's key.
            find: Share of the bad scans to be flagged; ``DEFAULT_FIND`` where neither this nor
                ``miss`` is given.
            miss: Share of all scans that may be bad and not flagged.

        Raises:
            UserError: There are too few patients for a share that is given. For the default one
                nothing is flagged then, and ``why_not`` says why.
        """
        score = scores.score_scans(bad)
        are_bad = scores.are_bad(bad)
        is_default = find is None and miss is None
        find = DEFAULT_FIND if is_default else find
        learned = []
        if find is not None:
            learned.append(_learn_find_threshold(score, are_bad, scores.patient, find))
        if miss is not None:
            learned.append(_learn_miss_threshold(score, are_bad, scores.patient, miss))

        refused = [threshold for threshold in learned if threshold.why_not]
        if refused and not is_default:
            raise UserError(f"[[{refused[0].argument}]]: {refused[0].why_not}.")
        # A higher threshold flags more: the highest keeps to both shares.
        highest = max(threshold.value for threshold in learned)
        is_flagged = np.zeros(len(score), bool)
        if not refused:
            is_flagged = ~(score > highest)  # NaN, no score, is flagged
        share_found = float(is_flagged[are_bad].mean()) if are_bad.any() else math.nan
        counted = some([names[key] for key in bad]) if len(bad) < len(names) else ""
        return cls(
            bad={names[key]: float(limit) for key, limit in bad.items()},
            find=find,
            miss=miss,
            threshold=highest if math.isfinite(highest) else None,
            n_scans=len(score),
            n_bad_patients=_count_patients(scores.patient[are_bad]),
            share_bad=float(are_bad.mean()),
            share_found=share_found,
            share_flagged=float(is_flagged.mean()),
            why_not=refused[0].why_not if refused else "",
            counted=counted,
        )

    @property
    def called_bad(self) -> str:
        """What is called bad, in words.

        ``Dice below 0.7``, ``Dice of infarct below 0.7``, ``Dice below 0.8 (LV cavity), 0.5
        (infarct)``.
        """
        limits = list(dict.fromkeys(f"{limit:g}" for limit in self.bad.values()))
        if len(limits) > 1:
            by_structure = [f"{limit:g} ({name})" for name, limit in self.bad.items()]
            return f"Dice below {some(by_structure)}"
        if self.counted:
            return f"Dice of {self.counted} below {limits[0]}"
        return f"Dice below {limits[0]}"

    @property
    def aim(self) -> str:
        """What flags aim at, beside the calibration scans; or why no scan is flagged."""
        if self.why_not:
            return f"Flagging by predicted Dice is off: no limit could be learned ({self.why_not})."
        share_bad = f"{100 * self.share_bad:.0f} %"
        scans = f"the {self.n_scans} calibration scans"
        were_bad = f"{share_bad} were bad ({self.called_bad})"
        if self.threshold is None:
            return f"No scan is flagged by predicted Dice: of {scans} {were_bad}."
        aims = []
        if self.find is not None:
            aims.append(f"{100 * self.find:g} % of the bad scans are flagged")
        if self.miss is not None:
            aims.append(f"at most {100 * self.miss:g} % of all scans are bad and not flagged")
        share_found = f"{100 * self.share_found:.0f} %"
        share_flagged = f"{100 * self.share_flagged:.0f} %"
        return (
            f"Aim for patients like those of the calibration: {', and '.join(aims)}. "
            f"Of {scans} {were_bad}; {share_found} of these and {share_flagged} of all would be"
            " flagged."
        )


@dataclass(frozen=True)
class _Threshold:
    """A threshold that was learned for an argument, -inf where none need be flagged, or why it was
    not."""

    argument: str
    value: float
    why_not: str = ""


def _learn_find_threshold(
    score: np.ndarray, are_bad: np.ndarray, patient: np.ndarray, find: float
) -> _Threshold:
    """The threshold that finds a share of the bad scans.

    Args:
        score: (n,) of the calibration scans.
        are_bad: (n,) whether they are bad.
        patient: (n,) to whom they belong.
        find: The share.
    """
    threshold = float(smallest_thresholds(score, are_bad, patient, 1 - find)[0])
    if not math.isnan(threshold):
        return _Threshold("find", threshold)
    n_bad_patients = _count_patients(patient[are_bad])
    why_not = (
        f"finding {find:g} takes {patients_needed(1 - find)} calibration patients with a"
        f" bad scan, there are {n_bad_patients}"
    )
    if n_bad_patients:
        # `patients_needed` solved for the rate: it is at least 1 / (n + 1).
        largest = math.floor(1000 * n_bad_patients / (n_bad_patients + 1)) / 1000
        why_not += f"; {largest:g} can be had"
    return _Threshold("find", -math.inf, why_not)


def _learn_miss_threshold(
    score: np.ndarray, are_bad: np.ndarray, patient: np.ndarray, miss: float
) -> _Threshold:
    """The threshold that leaves a share of all scans bad and not flagged.

    Arguments are those of :func:`_learn_find_threshold`; ``miss`` is the share.
    """
    threshold = float(smallest_thresholds(score, are_bad, patient, miss, of_bad=False)[0])
    if not math.isnan(threshold):
        return _Threshold("miss", threshold)
    n_patients = _count_patients(patient)
    # `patients_needed` solved for the rate: it is at least 1 / (n + 1).
    smallest = math.ceil(1000 / (n_patients + 1)) / 1000
    why_not = (
        f"missing {miss:g} takes {patients_needed(miss)} calibration patients, "
        f"there are {n_patients}; {smallest:g} can be had"
    )
    return _Threshold("miss", -math.inf, why_not)


def _count_patients(patient: np.ndarray) -> int:
    return len(set(patient))


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
    n_patients = int(scores.patient.max()) + 1
    drawn = np.vstack([np.ones(n_patients), resamples(n_patients, _DRAWS, 0)])
    if bad is not None:
        return pd.DataFrame([_cost_of_flags(scores, bad, find, drawn) for find in FINDS])
    rows = []
    for limit in LIMITS:
        all_below = dict.fromkeys(scores.score, limit)
        rows.append(_cost_of_flags(scores, all_below, DEFAULT_FIND, drawn))
    return pd.DataFrame(rows)


def order_areas(scores: ScanScores, bad: Mapping[str, float] | None = None) -> dict[str, float]:
    """Area under the risk-coverage curve of the calibration scans, by name of the order.

    The risk of a scan is 1 minus the lowest Dice of the structures that count
    (:func:`~nnunet_nacl.metrics.risk_coverage.aurc`).

    Args:
        scores: The calibration scans.
        bad: By key of each structure that counts, the Dice below which it is bad; None: all count.

    Returns:
        ``score``, ``entropy``, ``best`` (of the least area) and ``chance``; all are NaN with fewer
        than two scans with a Dice.
    """
    limits = dict.fromkeys(scores.score, 0.0) if bad is None else bad
    lowest_dice = np.fmin.reduce([np.array(scores.dice[key]) for key in limits])
    confidence_by_order = {
        "score": scores.score_scans(limits),
        "entropy": -np.array(scores.entropy, float),
        "best": lowest_dice,
        "chance": np.zeros(len(lowest_dice)),
    }
    areas = {}
    for order, confidence in confidence_by_order.items():
        areas[order] = aurc(confidence, 1 - lowest_dice)
    return areas


def _cost_of_flags(
    scores: ScanScores, bad: Mapping[str, float], find: float, drawn: np.ndarray
) -> dict[str, object]:
    """A row of :func:`flag_costs`.

    Args:
        scores: The calibration scans.
        bad: By key of each structure that counts, the Dice below which it is bad.
        find: Share of the bad scans to be found.
        drawn: (D, patients) how often each patient counts; once in the first row.
    """
    are_bad = scores.are_bad(bad)
    n_bad_patients = len(set(scores.patient[are_bad]))
    rate = 1 - find
    shares = _shares_flagged(scores.score_scans(bad), are_bad, scores.patient, rate, drawn)
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
        "find": find,
        "bad": min(bad.values()),
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

    Arguments are those of :func:`~nnunet_nacl.estimators.risk_control.smallest_thresholds`. NaN
    where there are too few patients.
    """
    thresholds = smallest_thresholds(score, are_bad, patient, rate, drawn=drawn)
    weights = drawn[:, patient]
    is_flagged = ~(score > thresholds[:, None])
    shares = (weights * is_flagged).sum(1) / weights.sum(1)
    return np.where(np.isnan(thresholds), math.nan, shares)
