"""Flags scans by their score, so that a chosen share of the bad ones is found; and what that costs.

The score of a scan is the smallest, over the structures that count, of a structure's score (:func:`structure_score`)
less the Dice below which it is bad. A scan is flagged where its score is at most a threshold, which conformal risk
control over patients finds (:func:`smallest_threshold`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from nnunet_nacl.errors import UserError, some
from nnunet_nacl.json_types import Patients, Share, doc
from nnunet_nacl.numbers.statistics import percentile_interval, resamples

DIGITS = 4
"""Of scores and Dice that are kept."""
DEFAULT_FIND = 0.9
FINDS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Shares of the bad scans that may be asked for."""
ALL = ""
"""In place of a structure's name: all that are not named."""
LIMITS = (0.5, 0.6, 0.7, 0.8)
"""Dice below which a scan may be called bad."""
_DRAWS = 200

BadSpec = float | Mapping[str, float]
"""One Dice for all structures, or by name or nnU-Net's key; a structure that is not among them does not count."""


def structure_score(predicted_dice: ArrayLike, present: ArrayLike, always: bool) -> np.ndarray:
    """(...) score of a structure: its predicted Dice where it was segmented, else 1 - p; NaN where p is not known.

    Four digits put scans that are alike on one side of a threshold.

    Args:
        predicted_dice: (...) NaN where the structure was not segmented.
        present: (...) p, the probability that it is present; NaN where that was not learned.
        always: Whether all calibration scans have it: then p is 1 where it was not learned.
    """
    x, p = np.asarray(predicted_dice, float), np.asarray(present, float)
    return np.where(np.isnan(x), 1 - np.where(np.isnan(p) & always, 1.0, p), x).round(DIGITS)


@dataclass(frozen=True, eq=False)
class ScanScores:
    """The calibration scans, each as maps saw it that were fitted without its patient.

    Attributes:
        score: By structure (n,) its score, see :func:`structure_score`; NaN where nothing is known.
        dice: By structure (n,) true Dice; 0 for one that was missed or invented, NaN for one that is in neither.
        entropy: (n,) mean normalised entropy over the segmented structures; NaN where nothing was segmented.
        patient: (n,) to whom each scan belongs, numbers from 0.
        always: Structures that all scans have.
    """

    score: dict[str, list[Share]]
    dice: dict[str, list[Share]]
    entropy: list[Share]
    patient: Patients
    always: list[str]

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (*self.score.values(), *self.dice.values(), self.entropy)}
        together = self.score.keys() == self.dice.keys() and self.score and set(self.always) <= self.score.keys()
        if not together or lengths != {len(self.patient)}:
            raise ValueError("scores, Dice and patients must be of the same structures and scans")

    def of_scans(self, bad: Mapping[str, float]) -> np.ndarray:
        """(n,) score of each scan by the Dice below which a structure that counts is bad; NaN without any score."""
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
    """The threshold t that flags fewest while what the next patient is expected to lose stays at or below ``rate``.

    With n patients, whose mean loss R(t) falls as t rises, it is the smallest t with n R(t) / (n + 1) + 1 / (n + 1) <=
    rate (conformal risk control, Angelopoulos et al., ICLR 2024, theorem 1). Patients must be exchangeable, and the
    score fixed before they were looked at. The 1 stands for the next patient, who may lose all.

    Args:
        score: (n,) of each calibration scan, low where it is likely to be bad; NaN, no score, is flagged always.
        bad: (n,) whether it is bad.
        patient: (n,) whole numbers: to whom each scan belongs.
        rate: Above 0 and below 1. A fraction: in floats 1 - .9 is less than 1 / 10.
        of_bad: A patient loses the share of its bad scans that are not flagged, and patients without one are left out;
            otherwise the share of its scans that are bad and not flagged.

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


@dataclass(frozen=True)
class Flags:
    """By which score scans are flagged, what that aims at, and what it does to the calibration scans."""

    bad: Annotated[dict[str, float], doc("By name of each structure that counts, the Dice below which it is bad.")]
    find: Annotated[float | None, doc("Share of the bad scans to be flagged; null with `-miss` alone.")]
    miss: Annotated[float | None, doc("Share of all scans that may be bad and not flagged; null without `-miss`.")]
    threshold: Annotated[float | None, doc("A scan is flagged if its score is at most this; null if none is.")]
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

        ``bad`` is, by nnU-Net's key of each structure that counts, the Dice below which it is bad, ``names`` the name
        of each structure. ``find`` is ``DEFAULT_FIND`` where neither is given. UserError where there are too few
        patients for a share.
        """
        of_scans, are_bad, patient = scores.of_scans(bad), scores.are_bad(bad), scores.patient
        find = DEFAULT_FIND if (given := find) is None and miss is None else find
        thresholds, why_not, n_bad = [-math.inf], "", len(set(patient[are_bad]))
        for flag, share in (("-find", find), ("-miss", miss)):
            if share is None:
                continue
            of_bad = flag == "-find"
            rate, n = (1 - Fraction(str(share)), n_bad) if of_bad else (Fraction(str(share)), len(set(patient)))
            thresholds.append(smallest_threshold(of_scans, are_bad, patient, rate, of_bad=of_bad))
            if math.isnan(thresholds[-1]):
                whose = "calibration patients" + " with a bad scan" * of_bad
                best = math.floor(1000 * n / (n + 1)) / 1000 if of_bad else math.ceil(1000 / (n + 1)) / 1000
                why_not = f"{flag} {share:g} takes {patients_needed(rate)} {whose}, there are {n}"
                why_not += f"; {flag} {best:g} can be had" if n else ""
                if given is not None or not of_bad:
                    raise UserError(f"{why_not}.")
        threshold = max(thresholds)
        flagged = ~(of_scans > threshold) if not why_not else np.zeros(len(of_scans), bool)
        return cls(
            bad={names[key]: float(limit) for key, limit in bad.items()},
            find=find,
            miss=miss,
            threshold=threshold if math.isfinite(threshold) else None,
            n_scans=len(of_scans),
            n_bad_patients=n_bad,
            share_bad=float(are_bad.mean()),
            share_found=float(flagged[are_bad].mean()) if are_bad.any() else math.nan,
            share_flagged=float(flagged.mean()),
            why_not=why_not,
            counted="" if len(bad) == len(names) else some([names[key] for key in bad]),
        )

    @property
    def called_bad(self) -> str:
        """``Dice below 0.7``, ``Dice of infarct below 0.7``, ``Dice below 0.8 (LV cavity), 0.5 (infarct)``."""
        limits = list(dict.fromkeys(f"{limit:g}" for limit in self.bad.values()))
        if len(limits) > 1:
            return f"Dice below {some([f'{limit:g} ({name})' for name, limit in self.bad.items()])}"
        return f"Dice{f' of {self.counted}' if self.counted else ''} below {limits[0]}"

    @property
    def aim(self) -> str:
        """What flags by predicted Dice aim at, beside the calibration scans; or why no scan is flagged by it."""
        if self.why_not:
            return f"Flagging by predicted Dice is off: no limit could be learned ({self.why_not})."
        share_bad, found, flagged = (
            f"{100 * share:.0f} %" for share in (self.share_bad, self.share_found, self.share_flagged)
        )
        scans = f"of the {self.n_scans} calibration scans {share_bad} were bad ({self.called_bad})"
        if self.threshold is None:
            return f"No scan is flagged by predicted Dice: {scans}."
        aims = [] if self.find is None else [f"{100 * self.find:g} % of the bad scans are flagged"]
        aims += [] if self.miss is None else [f"at most {100 * self.miss:g} % of all scans are bad and not flagged"]
        aim = f"Aim for patients like those of the calibration: {', and '.join(aims)}."
        return f"{aim} O{scans[1:]}; {found} of these and {flagged} of all would be flagged."


def read_bad(given: BadSpec, structures: Mapping[str, str], count: Sequence[str] | None = None) -> dict[str, float]:
    """By nnU-Net's key of each structure that counts, the Dice below which it is bad, from what the user calls bad.

    Args:
        given: One Dice, or by name or key.
        structures: Name of each structure by nnU-Net's key, in order.
        count: Names or keys of the structures that count; None: all that ``given`` says something of.

    Raises:
        UserError: There is no such structure, one has two values or none, or a value is no Dice.
    """
    keys = {name: key for key, name in structures.items()} | {key: key for key in structures}

    def key_of(name: str, flag: str) -> str:
        if name not in keys:
            choices = ", ".join(f"{label} ({key})" for key, label in structures.items())
            raise UserError(f"{flag} {name}: there is no such structure; there are {choices}.")
        return keys[name]

    by_key: dict[str, float] = {}
    for name, value in (given if isinstance(given, Mapping) else {ALL: given}).items():
        key = key_of(name, "-bad") if name != ALL else ALL
        if key in by_key:
            raise UserError(f"-bad {name}={value:g}: {structures[key]} has a value already, {by_key[key]:g}.")
        by_key[key] = _dice(float(value))
    others = by_key.get(ALL)
    counted = structures if count is None else dict.fromkeys(key_of(name, "-structures") for name in count)
    result = {key: by_key.get(key, others) for key in structures if key in counted}
    if count and (without := [structures[key] for key, value in result.items() if value is None]):
        raise UserError(f"-structures {some(without)}: -bad does not say below which Dice it is bad.")
    if not (named := {key: value for key, value in result.items() if value is not None}):
        raise UserError("-bad names no Dice below which a structure is bad, such as 0.7.")
    return named


def parse_bad(texts: Sequence[str]) -> dict[str, float]:
    """``0.7``, ``Infarct=0.5``, ``3=0.5``; UserError for what is none of these, or given twice."""
    values: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            number = float(value if name or not equals else "")
        except ValueError:
            expected = "a Dice is expected, such as 0.7, or STRUCTURE=DICE, such as Infarct=0.5."
            raise UserError(f"-bad {text}: {expected}") from None
        if name in values:
            raise UserError(f"-bad {' '.join(texts)}: {name or 'all structures'} cannot have two values.")
        values[name] = _dice(number)
    return values


def _dice(value: float) -> float:
    if not 0 < value <= 1:  # neither is NaN
        raise UserError(f"-bad is a Dice, above 0 and up to 1, got {value:g}.")
    return value


def share_of(value: float | None, flag: str) -> float | None:
    """The value of ``-find`` or ``-miss``; UserError where it is not above 0 and below 1."""
    if value is not None and not 0 < value < 1:
        raise UserError(f"{flag} is a share, above 0 and below 1, got {value:g}.")
    return value


def flag_costs(scores: ScanScores, bad: Mapping[str, float] | None = None) -> pd.DataFrame:
    """What it costs to find bad scans: ``DEFAULT_FIND`` of them for each of ``LIMITS``, where all structures count.

    With ``bad``, by key of each structure that counts, it is each share of ``FINDS``, a row each. Columns: ``find``,
    the share to be found; ``bad``, the lowest Dice of the structures below which a scan is bad; ``share_bad``, the
    share of the calibration scans that are; ``n_patients``, patients with a bad one; ``flagged``, the share of the
    scans that is, NaN where there are too few patients, and its 95 % ``interval`` by the bootstrap over patients;
    ``by_entropy``, that share where the mean entropy orders the scans; ``at_random``, where nothing orders them.
    """
    patient, entropy, costs = scores.patient, -np.array(scores.entropy, float), []
    asked = [(dict.fromkeys(scores.score, limit), DEFAULT_FIND) for limit in LIMITS]
    for by_structure, find in asked if bad is None else [(bad, find) for find in FINDS]:
        rate = 1 - Fraction(str(find))
        of_scans, are_bad = scores.of_scans(by_structure), scores.are_bad(by_structure)
        n = len(set(patient[are_bad]))
        cost = {"find": find, "bad": min(by_structure.values()), "share_bad": are_bad.mean(), "n_patients": n}
        cost |= {"flagged": _flagged(rate, of_scans, are_bad, patient), "interval": (math.nan, math.nan)}
        cost |= {"by_entropy": _flagged(rate, entropy, are_bad, patient), "at_random": math.nan}
        if n >= patients_needed(rate):
            drawn = resamples(int(patient.max()) + 1, _DRAWS, 0).astype(int)  # how often each patient is
            draws = [_flagged(rate, *_drawn(of_scans, are_bad, patient, counts)) for counts in drawn]
            cost |= {"interval": percentile_interval(np.array(draws)), "at_random": float(1 - (rate * (n + 1) - 1) / n)}
        costs.append(cost)
    return pd.DataFrame(costs)


def _flagged(rate: Fraction, score: np.ndarray, bad: np.ndarray, patient: np.ndarray) -> float:
    threshold = smallest_threshold(score, bad, patient, rate, of_bad=True)
    return math.nan if math.isnan(threshold) else float(np.mean(~(score > threshold)))


def _drawn(score: np.ndarray, bad: np.ndarray, patient: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """The scans of the patients drawn; one who is drawn twice is two patients."""
    scan = pd.Series(np.repeat(np.arange(len(patient)), counts[patient]))
    copy = scan.groupby(scan).cumcount().to_numpy()
    return [score[scan], bad[scan], pd.factorize(patient[scan] + copy * len(counts))[0]]
