"""Flags find the share of the bad scans that was asked for, or miss no more, in new patients."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.estimators.flags import Flags
from nnunet_nacl.estimators.learned_quality import learn
from nnunet_nacl.estimators.presence import learn_presence
from nnunet_nacl.estimators.scan_scores import ScanScores, structure_score
from tests.estimators.problems import quality_of
from tests.guarantees.simulation import DRAWS, is_at_most, mean_over_patients

N_NEW = 40
NAMES = {"1": "cavity", "2": "infarct"}
BAD = {"1": 0.7, "2": 0.5}


class Scans(NamedTuple):
    score: dict[str, np.ndarray]
    dice: dict[str, np.ndarray]
    patient: np.ndarray


def draw_scans(rng: np.random.Generator, n_patients: int) -> Scans:
    """Scans of patients, one to six of each, in which two structures may be bad.

    A patient whose scores deceive in one scan deceives in all, and has few scans. The second
    structure is absent in a third of the scans.
    """
    ease = rng.random(n_patients)
    patient = np.repeat(np.arange(n_patients), 1 + np.floor(6 * ease).astype(int))
    deceit_of_patient = (1 - ease) * rng.normal(0, 0.3, n_patients)
    score = {}
    dice = {}
    for key in NAMES:
        true = np.clip(rng.normal(0.7, 0.15, n_patients)[patient], 0, 1)
        noise = deceit_of_patient[patient] + rng.normal(0, 0.03, len(patient))
        score[key] = np.clip(true + noise, 0, 1)
        dice[key] = true
    dice["2"] = np.where(rng.random(len(patient)) < 1 / 3, math.nan, dice["2"])
    return Scans(score, dice, patient)


def scores_of(scans: Scans, chosen: np.ndarray) -> ScanScores:
    return ScanScores(
        score={key: list(values[chosen]) for key, values in scans.score.items()},
        dice={key: list(values[chosen]) for key, values in scans.dice.items()},
        entropy=[0.0] * int(chosen.sum()),
        patient=pd.factorize(scans.patient[chosen])[0],
        always=["1"],
    )


def are_missed(flags: Flags, scores: ScanScores) -> np.ndarray:
    """(n,) whether scans are bad and not flagged."""
    threshold = -math.inf if flags.threshold is None else flags.threshold
    return scores.are_bad(BAD) & (scores.score_scans(BAD) > threshold)


@pytest.mark.parametrize(("asked_for", "n_known"), [({"find": 0.9}, 14), ({"miss": 0.1}, 10)])
def test_flags_keep_to_the_share_in_new_patients(asked_for, n_known):
    """With scores that were fixed beforehand a tenth may be lost, and 0.07 is, by find and by miss.

    0.12 (find) and 0.15 (miss) are lost where the next patient is left out, R <= 0.1, and 0.14 and
    0.13 were scans counted for patients.
    """
    rng = np.random.default_rng(0)
    lost = []
    while len(lost) < DRAWS:
        scans = draw_scans(rng, n_known + N_NEW)
        is_new = scans.patient >= n_known
        known = scores_of(scans, ~is_new)
        n_bad_patients = len(set(known.patient[known.are_bad(BAD)]))
        if "find" in asked_for and n_bad_patients < 9:
            continue  # it is refused
        flags = Flags.of(known, BAD, NAMES, **asked_for)
        new = scores_of(scans, is_new)
        is_counted = new.are_bad(BAD) if "find" in asked_for else np.ones(len(new.patient), bool)
        missed = are_missed(flags, new)
        lost.append(mean_over_patients(missed[is_counted], new.patient[is_counted]))
    assert is_at_most(lost, 0.1)


def draw_table(rng: np.random.Generator, n_patients: int) -> tuple[pd.DataFrame, pd.Series]:
    """A table of scans of one structure, up to four of a patient, and the patient of each.

    It is absent in two patients of five, and not segmented in half of the scans that have it: then
    the scan is bad, and its score is the probability that it is absent.
    """
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 5, n_patients))
    is_present = rng.random(n_patients)[patient] < 0.6
    signal = rng.normal(size=(n_patients, 2))[patient] + rng.normal(0, 0.5, (len(patient), 2))
    volume, network_dice = np.exp(signal + is_present[:, None]).T
    is_segmented = is_present & (rng.random(len(patient)) < 0.5)
    dice = np.where(is_segmented, rng.uniform(0.4, 1, len(patient)), 0)
    dice = np.where(is_present, dice, math.nan)
    predicted = np.where(is_segmented, dice + rng.normal(0, 0.1, len(patient)), math.nan)
    true_volume = is_present.astype(float)
    table = quality_of({"1": (predicted.clip(0, 1), dice, volume, true_volume)}, entropy=0.5)
    table = table.assign(network_volume=volume, network_dice=network_dice)
    return table, pd.Series(patient, table.case)


@pytest.mark.slow
def test_flags_that_know_presence_by_cross_fits_find_the_share_in_new_patients():
    """Thirty patients; the scores of theirs are from cross-fits, those of new ones from all.

    So scores are not fixed beforehand, and nothing is proved; by trial the share that is lost stays
    below a tenth.
    """
    rng = np.random.default_rng(0)
    bad = {"1": 0.7}
    lost = []
    while len(lost) < DRAWS:
        table, patients = draw_table(rng, 30 + N_NEW)
        is_new = (patients >= 30).to_numpy()
        known = table[~is_new]
        learned = learn(known, patients, patients % 3, as_deployed=True)
        flags = Flags.of(learned.scores, bad, {"1": "infarct"})
        if flags.why_not:
            continue  # fewer than nine patients have a bad scan
        presence = learn_presence(known, patients)
        new = table[is_new]
        present = presence.present_probability("1", new)
        score = structure_score(new.predicted_dice, present, always=False) - bad["1"]
        is_bad = (new.Dice < bad["1"]).to_numpy()
        threshold = -math.inf if flags.threshold is None else flags.threshold
        lost.append(
            mean_over_patients((score > threshold)[is_bad], patients[is_new].to_numpy()[is_bad])
        )
    assert is_at_most(lost, 0.1)
