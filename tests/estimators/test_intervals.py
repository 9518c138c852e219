"""How far predictions are off: closed forms of intervals, and coverage in finite samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nnunet_nacl.estimators.intervals import StructureEstimate, check_estimate, coverage

NAN = math.nan


def test_a_bias_shifts_the_interval_and_leaves_the_prediction():
    predicted = np.linspace(0.6, 0.9, 10)
    estimate = StructureEstimate.fit(predicted, predicted - 0.2, range(10))
    expected = np.array([[0.7, 0.5, 0.5], [0.1, 0, 0]])  # the second within the bounds
    np.testing.assert_allclose(estimate.predict([0.7, 0.1]), expected, atol=1e-12)


def test_jackknife_plus_ranks_by_hand():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0.5, 0.9, 19)
    true = rng.uniform(0.3, 0.7, 19)
    difference = true - predicted
    ends = []
    for i in range(19):
        mean_of_others = np.mean(np.delete(difference, i))
        deviation = abs(difference[i] - mean_of_others)
        ends.append((0.7 + mean_of_others - deviation, 0.7 + mean_of_others + deviation))
    lower, upper = np.sort(ends, axis=0).T
    # 19 patients, 90 %: the 2nd of the lower ends, and the 18th of 19 upper ones
    estimate = StructureEstimate.fit(predicted, true, range(19))
    assert estimate.predict(0.7)[1:] == pytest.approx((lower[1], upper[17]))


def test_patients_weigh_the_same_and_are_left_out_whole():
    # of nine patients the first has three cases: without it the mean is 0, so its errors are 0.3;
    # the others' mean is (0.3 + 0 ...) / 8; 90 % of 10 are 9, so the ends are the least and the
    # greatest of all
    estimate = StructureEstimate.fit([0.5] * 11, [0.8] * 3 + [0.5] * 8, [0, 0, 0, *range(1, 9)])
    assert estimate.predict(0.5) == pytest.approx([0.5, 0.2, 0.8])


def test_too_few_patients_have_an_estimate_but_no_interval():
    values = np.linspace(0.5, 0.9, 16)
    two_cases_each = StructureEstimate.fit(values, values, [i // 2 for i in range(16)])
    assert two_cases_each.predict(0.7) == pytest.approx([0.7, NAN, NAN], nan_ok=True)
    why = "8 patients tell of it, an interval of 90 % needs 9"
    assert two_cases_each.why_no_interval == why
    nine_patients = StructureEstimate.fit(values, values, [i % 9 for i in range(16)])
    assert not nine_patients.why_no_interval
    assert nine_patients.predict(0.7)[1] == pytest.approx(0.7)


def test_absent_structures_are_left_out():
    estimate = StructureEstimate.fit([0.5, NAN, 0.9, 0.7], [0.5, 0.1, 0.9, NAN], range(4))
    assert estimate.n_patients == 2
    assert estimate.difference == pytest.approx([0, 0])
    assert np.isnan(estimate.predict(NAN)).all()


def test_nothing_learned_gives_nothing():
    estimate = StructureEstimate.fit([NAN], [0.3], [0])
    assert estimate.n_patients == 0
    assert np.isnan(estimate.predict(0.5)).all()
    assert estimate.why_no_interval


def test_errors_of_volumes_are_relative_to_the_volume_and_a_voxel():
    predicted = np.array([1.5, 9.5] * 5)
    estimate = StructureEstimate.fit(predicted, [1.7, 8.5] * 5, range(10), voxel_volume=0.5)
    # a tenth too much or too little; the mean of the others is 0.1 / 9 on the other side
    assert estimate.difference == pytest.approx([0.1, -0.1] * 5)
    end = 1.1 / 9
    expected = [[0, 0, 0.5 * end], [99.5, 99.5 - 100 * end, 99.5 + 100 * end]]  # nothing is below 0
    np.testing.assert_allclose(estimate.predict([0.0, 99.5]), expected, atol=1e-12)


def test_a_voxel_without_volume_is_refused():
    with pytest.raises(ValueError, match="voxel must be a volume"):
        StructureEstimate.fit([1.0], [1.0], [0], voxel_volume=0.0)


def test_coverage_counts_the_ends_in_and_has_an_exact_interval():
    covered = coverage([0.1, 0.1, 0.1, NAN], [0.5, 0.5, 0.5, NAN], [0.1, 0.5, 0.6, 0.3])
    assert covered.share == pytest.approx(2 / 3)
    assert covered.n == 3
    clopper_pearson = stats.beta.ppf([0.025, 0.975], [2, 3], [2, 1])
    assert (covered.low, covered.high) == pytest.approx(clopper_pearson)
    assert coverage([NAN], [NAN], [0.5]).n == 0


def test_a_patient_unlike_the_others_is_missed_however_many_cases_it_has():
    patients = [f"p{i}" for i in range(12)] + ["odd"] * 12
    check = check_estimate(np.full(24, 0.7), np.repeat([0.5, 0.9], 12), patients)
    assert check.error == pytest.approx(0.2)
    assert check.coverage.n == 24
    assert check.coverage.share <= 0.5
    assert 0 <= check.width < 0.5


def test_a_check_measures_error_width_and_coverage():
    predicted = np.linspace(0.6, 0.9, 12)
    check = check_estimate(predicted, predicted - 0.1, range(12))
    assert (check.error, check.width, check.coverage.share) == pytest.approx((0.1, 0, 1), abs=1e-9)


def test_the_constant_of_a_check_is_the_mean_of_the_other_patients():
    # of two patients each is the other's
    check = check_estimate([0.5, 0.5], [0.2, 0.9], ["a", "b"])
    assert check.error_of_constant == pytest.approx(0.7)


def test_a_check_of_one_patient_has_no_errors():
    check = check_estimate([NAN, 0.5], [0.5, 0.5], ["a", "b"])
    assert check.n == 1
    assert math.isnan(check.error)
