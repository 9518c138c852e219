"""The probability that something is there: as another solver finds it, finite, learned from a table
and checked."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from nnunet_nacl.calibration.quality_texts import presence_text
from nnunet_nacl.estimators.presence import (
    LearnedProbability,
    ProbabilityCheck,
    learn_presence,
    predict_left_out,
    predict_presence_out_of_fold,
    presence_features,
)


def test_the_largest_posterior_density_is_found():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2)) * [3, 0.1] + [10, -2]
    yes = x @ [0.5, -7] + rng.logistic(size=80) > 18.5
    learned = LearnedProbability.fit(x, yes, range(80))
    standard = (x - x.mean(0)) / x.std(0)

    def negative_log_posterior(coefficients):
        intercept, *slopes = coefficients
        odds = intercept + standard @ slopes
        of_rows = np.logaddexp(0, np.where(yes, -odds, odds)).sum()
        of_half_a_yes_and_a_no = (np.logaddexp(0, intercept) + np.logaddexp(0, -intercept)) / 2
        of_slopes = np.square(slopes).sum() / 2
        return of_rows + of_half_a_yes_and_a_no + of_slopes

    best = minimize(negative_log_posterior, np.zeros(3), tol=1e-12).x
    assert [learned.intercept, *learned.slopes] == pytest.approx(best, abs=1e-4)


def test_nothing_is_surer_than_the_patients_can_show():
    noise = np.random.default_rng(0).normal(0, 0.1, 40)
    x = (np.repeat([-1.0, 1.0], 20) + noise)[:, None]
    learned = LearnedProbability.fit(x, x[:, 0] > 0, np.repeat(np.arange(20), 2))
    assert learned.predict([[-1e6], [1e6]]) == pytest.approx([0.5 / 21, 20.5 / 21])
    assert math.isnan(learned.predict([[math.nan]])[0])


def test_more_scans_of_the_same_patients_say_no_more():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 2))
    yes = x[:, 0] + rng.normal(size=20) > 0
    scans_of_patient = rng.integers(1, 6, 20)
    patients = np.repeat(np.arange(20), scans_of_patient)
    repeated = LearnedProbability.fit(x[patients], yes[patients], patients)
    once = LearnedProbability.fit(x, yes, range(20))
    assert repeated.predict(x) == pytest.approx(once.predict(x), abs=1e-6)


def test_what_is_reported_comes_from_other_patients():
    """The feature tells the patient apart and nothing else: rows of a patient who is left out are
    not known."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(30), 4)
    yes = np.repeat(rng.random(30) < 0.5, 4)
    x = np.repeat(rng.normal(size=(30, 1)), 4, 0)
    found = predict_left_out(x, yes, patients)
    check = ProbabilityCheck.of(found, found, yes)
    assert check.brier > 0.24
    assert check.n == 120
    changed = yes.copy()
    changed[:4] = ~changed[:4]
    # own rows change nothing
    assert predict_left_out(x, changed, patients)[:4] == pytest.approx(found[:4])
    # of one patient nothing is known
    assert np.isnan(predict_left_out(x[:4], yes[:4], patients[:4])).all()


def test_features_by_hand():
    rows = pd.DataFrame({"network_volume": [0.9, 0.0], "network_dice": [0.5, 0.0]})
    expected = [[0.0, math.log(0.5)], [math.log(0.1), math.log(0.001)]]
    assert presence_features(rows, 0.1) == pytest.approx(np.array(expected), abs=1e-9)


def test_scores_of_probabilities_by_hand():
    check = ProbabilityCheck.of([0.9, 0.8, 0.3, 0.3, math.nan], [0.5] * 5, [1, 0, 0, 1, 1])
    assert check.n == 4
    assert check.brier == pytest.approx((0.01 + 0.64 + 0.09 + 0.49) / 4)
    assert check.brier_of_constant == 0.25
    assert check.auroc == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    # bins (0.8, 0.9], (0.7, 0.8], (0.2, 0.3]: |0.9 - 1|, |0.8 - 0|, |0.6 - 1|
    assert check.ece == pytest.approx((0.1 + 0.8 + 0.4) / 4)


def test_of_one_outcome_there_is_no_area():
    sure = ProbabilityCheck.of([0.0, 0.0], [0.0, 0.0], [0, 0])
    assert (sure.brier, sure.ece, sure.n) == (0, 0, 2)
    assert math.isnan(sure.auroc)


def test_without_a_probability_there_is_no_score():
    *scores, n = astuple(ProbabilityCheck.of([math.nan], [math.nan], [1]))
    assert np.isnan(scores).all()
    assert n == 0


NAMES = {"1": "organ", "2": "lesion", "3": "bones"}
CASES = 40


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Of each case three structures.

    The organ is always there in one piece, the bones always in three, the lesion in two cases of
    three.
    """
    rng = np.random.default_rng(0)
    rows = []
    for i in range(CASES):
        case = f"case_{i}"
        is_sick = i % 3 > 0
        volume = float(rng.uniform(2, 5)) if is_sick else 0.0
        network_dice = float(rng.uniform(0.5, 1) if is_sick else rng.uniform(0.2, 0.7))
        network_volume = volume * 0.8 + float(rng.uniform(0.1, 0.6))
        rows.append((case, "1", 50.0, 50.0, 1.0, 1))
        rows.append((case, "2", network_volume, volume, network_dice, int(is_sick)))
        rows.append((case, "3", 9.0, 9.0, 1.0, 3))
    columns = ["case", "key", "network_volume", "true_volume", "network_dice", "true_pieces"]
    return pd.DataFrame(rows, columns=columns).assign(voxel_volume=0.001)


def test_structures_that_can_be_absent_or_are_in_pieces_are_listed(table):
    assert learn_presence(table, {}).listed == ["2", "3"]


def test_presence_is_learned_of_structures_that_can_be_absent(table):
    found = learn_presence(table, {})
    assert found.voxel == 0.001
    assert list(found.present) == ["2"]
    assert list(found.checks) == ["2"]
    assert not found.why_not


def test_patients_are_counted(table):
    assert learn_presence(table, {}).present["2"].n_patients == 40
    two_scans_each = {f"case_{i}": i // 2 for i in range(CASES)}
    assert learn_presence(table, two_scans_each).present["2"].n_patients == 20


def test_of_two_cases_no_presence_is_learned(table):
    found = learn_presence(table[table.case.isin(["case_0", "case_1"])], {})
    assert found.why_not == {"2": "patients with it: 1, without it: 1; it takes 3 of each"}


def test_presence_takes_three_patients_with_and_three_without(table):
    sick = {f"case_{i}": i for i in range(CASES) if i % 3}
    # all 14 without it are of one patient
    of_one = sick | {f"case_{i}": "healthy" for i in range(0, CASES, 3)}
    found = learn_presence(table, of_one)
    assert found.why_not == {"2": "patients with it: 26, without it: 1; it takes 3 of each"}
    assert not found.present
    assert not found.checks
    of_three = sick | {f"case_{i}": f"healthy {i // 3 % 3}" for i in range(0, CASES, 3)}
    assert "2" in learn_presence(table, of_three).checks
    # of three patients each has scans of either kind
    both = {f"case_{i}": i // 3 % 3 for i in range(CASES)}
    assert "2" in learn_presence(table, both).checks


def test_presence_of_a_case_follows_from_the_other_folds(table):
    folds = {f"case_{i}": str(i % 5) for i in range(CASES)}
    probability = predict_presence_out_of_fold(table, {}, folds)
    learned = learn_presence(table[table.case.map(folds) != "0"], {})
    rows = table[table.case == "case_5"]
    [of_lesion] = learned.present_probability("2", rows[rows.key == "2"])
    of_organ, of_lesion_out_of_fold, of_bones = probability[rows.index]
    assert of_lesion_out_of_fold == pytest.approx(of_lesion)
    assert math.isnan(of_organ)
    assert math.isnan(of_bones)


def test_what_says_no_more_than_a_constant_is_not_delivered(table):
    number = table.case.str[5:].astype(int)  # which has nothing to do with the truth
    rows = table.assign(network_volume=1.0 + number % 2, network_dice=0.5)
    found = learn_presence(rows, {})
    assert found.checks["2"].brier >= found.checks["2"].brier_of_constant
    assert "2" not in found.present
    why = "nothing is said of lesion: no better than the share of the other patients"
    assert why in presence_text(found, NAMES)
