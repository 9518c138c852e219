"""Flags scans by their score, so that a chosen share of the bad ones is found; and what that costs.

The score of a scan is the smallest, over the structures that count, of a structure's score
(:func:`structure_score`) less the Dice below which it is bad. A scan is flagged where its score is
at most a threshold, which conformal risk control over patients finds (:func:`controls_risk`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from nnunet_nacl.errors import UserError, some
from nnunet_nacl.json_types import Patients, Share, doc
from nnunet_nacl.metrics.statistics import percentile_interval, resamples

DIGITS = 4
"""Of scores and Dice that are kept."""
DEFAULT_FIND = 0.9
FINDS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Shares of the bad scans that may be asked for."""
_ALL = ""  # in place of a structure's name: all that are not named
LIMITS = (0.5, 0.6, 0.7, 0.8)
"""Dice below which a scan may be called bad."""
_DRAWS = 200

BadSpec = float | Mapping[str, float] | Sequence[str]
"""One Dice for all structures, or by name or nnU-Net's key; a structure that is not among them does
not count."""


def structure_score(predicted_dice: ArrayLike, present: ArrayLike, always: bool) -> np.ndarray:
    """(...) score of a structure: its predicted Dice where it was segmented, else 1 - p; NaN where
    p is not known.

    Four digits put scans that are alike on one side of a threshold.

    Args:
        predicted_dice: (...) NaN where the structure was not segmented.
        present: (...) p, the probability that it is present; NaN where that was not learned.
        always: Whether all calibration scans have it: then p is 1 where it was not learned.
    """
    predicted_dice = np.asarray(predicted_dice, float)
    probability = np.asarray(present, float)
    if always:
        probability = np.where(np.isnan(probability), 1.0, probability)
    is_segmented = ~np.isnan(predicted_dice)
    return np.where(is_segmented, predicted_dice, 1 - probability).round(DIGITS)


@dataclass(frozen=True, eq=False, kw_only=True)
class ScanScores:
    """The calibration scans, each as maps saw it that were fitted without its patient.

    Attributes:
        score: By structure (n,) its score, see :func:`structure_score`; NaN where nothing is known.
        dice: By structure (n,) true Dice; 0 for one that was missed or invented, NaN for one that
            is in neither.
        entropy: (n,) mean normalised entropy over the segmented structures; NaN where nothing was
            segmented.
        patient: (n,) to whom each scan belongs, numbers from 0.
        always: Structures that all scans have.
    """

    score: dict[str, list[Share]]
    dice: dict[str, list[Share]]
    entropy: list[Share]
    patient: Patients
    always: list[str]

    def __post_init__(self) -> None:
        lengths = {len(self.entropy)}
        for values in (*self.score.values(), *self.dice.values()):
            lengths.add(len(values))
        are_same_structures = self.score.keys() == self.dice.keys() and bool(self.score)
        if not are_same_structures or not set(self.always) <= self.score.keys():
            raise ValueError("scores, Dice and patients must be of the same structures and scans")
        if lengths != {len(self.patient)}:
            raise ValueError("scores, Dice and patients must be of the same structures and scans")

    def of_scans(self, bad: Mapping[str, float]) -> np.ndarray:
        """(n,) score of each scan by the Dice below which a structure that counts is bad; NaN
        without any score."""
        margins = [np.array(self.score[key]) - limit for key, limit in bad.items()]
        return np.fmin.reduce(margins)

    def are_bad(self, bad: Mapping[str, float]) -> np.ndarray:
        """(n,) whether the Dice of a structure that counts is below what ``bad`` says."""
        are_below = [np.array(self.dice[key]) < limit for key, limit in bad.items()]  # NaN is not
        return np.any(are_below, axis=0)


def controls_risk(risk: np.ndarray, n: ArrayLike, rate: float) -> np.ndarray:
    """(...) whether n patients with the mean loss ``risk`` keep what the next one is expected to
    lose to ``rate``.

    It is where n risk / (n + 1) + 1 / (n + 1) <= rate (conformal risk control, Angelopoulos et al.,
    ICLR 2024, theorem 1), for losses up to 1 that only fall, or only rise, with the threshold that
    is chosen by it. The 1 stands for the next patient, who may lose all. Patients must be
    exchangeable, and scores fixed before they were looked at.
    """
    number = np.asarray(n)
    # In floats 1 - .9 is less than 1 / 10.
    return number * risk + 1 <= rate * (number + 1) + 1e-9


def patients_needed(rate: float) -> int:
    """Fewest patients with which anything can be promised up to a share of losses: 9 for 1/10, 19
    for 1/20."""
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
    """(D,) the threshold that flags fewest while the next patient is expected to lose no more than
    ``rate``.

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
        -inf (none need be flagged), or the score of a bad scan; NaN where there are too few
        patients.
    """
    num_patients = int(patient.max()) + 1
    counted_scans = bad if of_bad else None  # of a patient: its bad scans, or all
    scans_by_patient = np.bincount(patient, counted_scans, num_patients)
    # What is lost changes at the scores of bad scans alone.
    thresholds = np.sort(np.append(score[bad & ~np.isnan(score)], -math.inf))
    lost_scans = np.zeros((num_patients, len(thresholds)))
    np.add.at(lost_scans, patient[bad], score[bad, None] > thresholds)
    loss_by_patient = lost_scans / np.maximum(scans_by_patient, 1)[:, None]
    if drawn is None:
        drawn = np.ones((1, num_patients))
    num_drawn = drawn @ (scans_by_patient > 0)
    risk = drawn @ loss_by_patient / np.maximum(num_drawn, 1)[:, None]
    is_controlled = controls_risk(risk, num_drawn[:, None], rate)
    lowest = thresholds[is_controlled.argmax(1)]
    return np.where(is_controlled.any(1), lowest, math.nan)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """By which score scans are flagged, what that aims at, and what it does to the calibration
    scans."""

    bad: Annotated[
        dict[str, float],
        doc("By name of each structure that counts, the Dice below which it is bad."),
    ]
    find: Annotated[
        float | None, doc("Share of the bad scans to be flagged; null with `-miss` alone.")
    ]
    miss: Annotated[
        float | None,
        doc("Share of all scans that may be bad and not flagged; null without `-miss`."),
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

        ``bad`` is, by nnU-Net's key of each structure that counts, the Dice below which it is bad,
        ``names`` the name of each structure. ``find`` is ``DEFAULT_FIND`` where neither is given.
        UserError where there are too few patients for a share.
        """
        score = scores.of_scans(bad)
        are_bad = scores.are_bad(bad)
        n_bad_patients = len(set(scores.patient[are_bad]))
        is_default = find is None and miss is None
        if is_default:
            find = DEFAULT_FIND
        thresholds = [-math.inf]
        why_not = ""
        if find is not None:
            (threshold,) = smallest_thresholds(score, are_bad, scores.patient, 1 - find)
            thresholds.append(float(threshold))
            if math.isnan(threshold):
                why_not = _explain_find(find, n_bad_patients)
                if not is_default:
                    raise UserError(f"{why_not}.")
        if miss is not None:
            (threshold,) = smallest_thresholds(score, are_bad, scores.patient, miss, of_bad=False)
            thresholds.append(float(threshold))
            if math.isnan(threshold):
                raise UserError(f"{_explain_miss(miss, len(set(scores.patient)))}.")
        highest = max(thresholds)
        if why_not:
            is_flagged = np.zeros(len(score), bool)
        else:
            is_flagged = ~(score > highest)  # NaN, no score, is flagged
        counted = ""
        if len(bad) < len(names):
            counted = some([names[key] for key in bad])
        return cls(
            bad={names[key]: float(limit) for key, limit in bad.items()},
            find=find,
            miss=miss,
            threshold=highest if math.isfinite(highest) else None,
            n_scans=len(score),
            n_bad_patients=n_bad_patients,
            share_bad=float(are_bad.mean()),
            share_found=float(is_flagged[are_bad].mean()) if are_bad.any() else math.nan,
            share_flagged=float(is_flagged.mean()),
            why_not=why_not,
            counted=counted,
        )

    @property
    def called_bad(self) -> str:
        """``Dice below 0.7``, ``Dice of infarct below 0.7``, ``Dice below 0.8 (LV cavity), 0.5
        (infarct)``."""
        limits = list(dict.fromkeys(f"{limit:g}" for limit in self.bad.values()))
        if len(limits) > 1:
            return f"Dice below {some([f'{limit:g} ({name})' for name, limit in self.bad.items()])}"
        if self.counted:
            return f"Dice of {self.counted} below {limits[0]}"
        return f"Dice below {limits[0]}"

    @property
    def aim(self) -> str:
        """What flags by predicted Dice aim at, beside the calibration scans; or why no scan is
        flagged by it."""
        if self.why_not:
            return f"Flagging by predicted Dice is off: no limit could be learned ({self.why_not})."
        share_bad = f"{100 * self.share_bad:.0f} %"
        scans = f"f the {self.n_scans} calibration scans {share_bad} were bad ({self.called_bad})"
        if self.threshold is None:
            return f"No scan is flagged by predicted Dice: o{scans}."
        aims = []
        if self.find is not None:
            aims.append(f"{100 * self.find:g} % of the bad scans are flagged")
        if self.miss is not None:
            aims.append(f"at most {100 * self.miss:g} % of all scans are bad and not flagged")
        found = f"{100 * self.share_found:.0f} %"
        flagged = f"{100 * self.share_flagged:.0f} %"
        return (
            f"Aim for patients like those of the calibration: {', and '.join(aims)}. "
            f"O{scans}; {found} of these and {flagged} of all would be flagged."
        )


def _explain_find(find: float, n_bad_patients: int) -> str:
    """Why a share of the bad scans cannot be aimed at, and the largest that can."""
    largest = math.floor(1000 * n_bad_patients / (n_bad_patients + 1)) / 1000
    text = (
        f"-find {find:g} takes {patients_needed(1 - find)} calibration patients with a bad scan, "
        f"there are {n_bad_patients}"
    )
    return f"{text}; -find {largest:g} can be had" if n_bad_patients else text


def _explain_miss(miss: float, n_patients: int) -> str:
    """Why a share of missed scans cannot be aimed at, and the smallest that can."""
    smallest = math.ceil(1000 / (n_patients + 1)) / 1000
    return (
        f"-miss {miss:g} takes {patients_needed(miss)} calibration patients, "
        f"there are {n_patients}; -miss {smallest:g} can be had"
    )


def check_bad(
    bad: BadSpec | None,
    *,
    structures: Sequence[str] | None = None,
    find: float | None = None,
    miss: float | None = None,
) -> None:
    """UserError where what goes with the Dice below which a scan is bad is given without that."""
    if bad is not None:
        return
    for option, value in {"find": find, "miss": miss, "structures": structures}.items():
        if value is not None:
            raise UserError(
                f"-{option} goes with -bad, the Dice below which a scan is bad, such as -bad 0.7."
            )


def read_bad(
    given: BadSpec, structures: Mapping[str, str], count: Sequence[str] | None = None
) -> dict[str, float]:
    """By nnU-Net's key of each structure that counts, the Dice below which it is bad, from what the
    user calls bad.

    Args:
        given: One Dice, or by name or key; or texts, such as ``0.7`` and ``Infarct=0.5``.
        structures: Name of each structure by nnU-Net's key, in order.
        count: Names or keys of the structures that count; None: all that ``given`` says something
            of.

    Raises:
        UserError: A text says no Dice, there is no such structure, one has two values or none, or a
            value is no Dice.
    """
    by_key: dict[str, float] = {}
    for name, value in _name_and_dice(given):
        key = name if name == _ALL else _key_of(name, structures, "-bad")
        if not 0 < value <= 1:  # neither is NaN
            raise UserError(f"-bad is a Dice, above 0 and up to 1, got {value:g}.")
        if key in by_key:
            named = structures.get(key, "all structures")
            raise UserError(f"-bad: {named} cannot have two values, {by_key[key]:g} and {value:g}.")
        by_key[key] = value

    counted = set(structures)
    if count is not None:
        counted = {_key_of(name, structures, "-structures") for name in count}
    result: dict[str, float] = {}
    without: list[str] = []
    for key, label in structures.items():
        if key in counted:
            limit = by_key.get(key, by_key.get(_ALL))
            if limit is None:
                without.append(label)
            else:
                result[key] = limit
    if count and without:
        raise UserError(
            f"-structures {some(without)}: -bad does not say below which Dice it is bad."
        )
    if not result:
        raise UserError("-bad names no Dice below which a structure is bad, such as 0.7.")
    return result


def _key_of(name: str, structures: Mapping[str, str], flag: str) -> str:
    """nnU-Net's key of a structure that has this name or key; UserError, which begins with the
    flag, for another."""
    if name in structures:
        return name
    for key, label in structures.items():
        if name == label:
            return key
    choices = ", ".join(f"{label} ({key})" for key, label in structures.items())
    raise UserError(f"{flag} {name}: there is no such structure; there are {choices}.")


def _name_and_dice(given: BadSpec) -> list[tuple[str, float]]:
    """Name of a structure, or ``_ALL``, and Dice, as they were given."""
    if isinstance(given, Real):  # NumPy's numbers are such, too
        return [(_ALL, float(given))]
    if isinstance(given, Mapping):
        by_name: list[tuple[str, float]] = []
        for name, value in given.items():
            if not isinstance(value, Real):
                raise UserError(f"-bad {name}: a Dice is expected, such as 0.7, got {value!r}.")
            by_name.append((name, float(value)))
        return by_name
    if isinstance(given, Sequence) and all(isinstance(text, str) for text in given):
        return [_parsed(text) for text in ([given] if isinstance(given, str) else given)]
    raise UserError(
        "-bad is a Dice, such as 0.7, or by structure, such as {'Infarct': 0.5}, got"
        f" {given!r:.80}."
    )


def _parsed(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    try:
        return name, float(value if name or not equals else "")
    except ValueError:
        expected = "a Dice is expected, such as 0.7, or STRUCTURE=DICE, such as Infarct=0.5."
        raise UserError(f"-bad {text}: {expected}") from None


def share_of(value: float | None, flag: str) -> float | None:
    """The value of ``-find`` or ``-miss``; UserError where it is not above 0 and below 1."""
    if value is not None and not 0 < value < 1:
        raise UserError(f"{flag} is a share, above 0 and below 1, got {value:g}.")
    return value


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
