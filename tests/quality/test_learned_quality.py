"""How far predictions are off: closed forms of intervals, coverage in finite samples, who teaches
whom, the report."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nnunet_nacl.quality.learned_quality import (
    StructureEstimate,
    check_estimate,
    coverage,
    predict_dice_parts,
    quality_report,
    trust_of,
    workload,
)
from nnunet_nacl.reports.quality_texts import quality_text
from tests.calibration.problems import quality_of

NAN = math.nan


def test_a_bias_shifts_the_interval_and_leaves_the_prediction():
    predicted = np.linspace(0.6, 0.9, 10)
    estimate = StructureEstimate.fit(predicted, predicted - 0.2, range(10))
    expected = np.array([[0.7, 0.5, 0.5], [0.1, 0, 0]])  # the second within the bounds
    np.testing.assert_allclose(estimate.predict([0.7, 0.1]), expected, atol=1e-12)


def test_jackknife_plus_ranks_by_hand():
    # 19 patients, 90 %: the 18th of 19 upper ends, and the 2nd of the lower ones
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.5, 0.9, 19), rng.uniform(0.3, 0.7, 19)
    ends = []
    for i in range(19):
        mean = np.mean(np.delete(y - x, i))
        away = abs(y[i] - x[i] - mean)
        ends.append((0.7 + mean - away, 0.7 + mean + away))
    low, high = np.sort(ends, axis=0)[1, 0], np.sort(ends, axis=0)[17, 1]
    assert StructureEstimate.fit(x, y, range(19)).predict(0.7)[1:] == pytest.approx((low, high))


def test_patients_weigh_the_same_and_are_left_out_whole():
    # of nine patients the first has three cases: without it the mean is 0, so its errors are 0.3;
    # the others' mean is (0.3 + 0 ...) / 8; 90 % of 10 are 9, so the ends are the least and the
    # greatest of all
    estimate = StructureEstimate.fit([0.5] * 11, [0.8] * 3 + [0.5] * 8, [0, 0, 0, *range(1, 9)])
    assert estimate.predict(0.5) == pytest.approx([0.5, 0.2, 0.8])


def test_too_few_patients_have_an_estimate_but_no_interval():
    values = np.linspace(0.5, 0.9, 16)
    # 16 cases of 8 patients
    estimate = StructureEstimate.fit(values, values, [i // 2 for i in range(16)])
    assert estimate.predict(0.7) == pytest.approx([0.7, math.nan, math.nan], nan_ok=True)
    assert estimate.why_no_interval == "8 patients tell of it, an interval of 90 % needs 9"
    nine = StructureEstimate.fit(values, values, [i % 9 for i in range(16)])
    assert not nine.why_no_interval and nine.predict(0.7)[1] == pytest.approx(0.7)


def test_absent_structures_are_left_out_and_nothing_learned_gives_nothing():
    estimate = StructureEstimate.fit([0.5, NAN, 0.9, 0.7], [0.5, 0.1, 0.9, NAN], range(4))
    assert estimate.n_patients == 2 and estimate.difference == pytest.approx([0, 0])
    assert np.isnan(estimate.predict(NAN)).all()
    empty = StructureEstimate.fit([NAN], [0.3], [0])
    assert empty.n_patients == 0 and np.isnan(empty.predict(0.5)).all() and empty.why_no_interval


def test_errors_of_volumes_are_relative_to_the_volume_and_a_voxel():
    # a tenth too much or too little; the mean of the others is 0.1 / 9 on the other side, so the
    # last end is 1.1 / 9
    predicted, end = np.array([1.5, 9.5] * 5), 1.1 / 9
    estimate = StructureEstimate.fit(predicted, [1.7, 8.5] * 5, range(10), voxel=0.5)
    assert estimate.difference == pytest.approx([0.1, -0.1] * 5)
    expected = [[0, 0, 0.5 * end], [99.5, 99.5 - 100 * end, 99.5 + 100 * end]]  # nothing is below 0
    np.testing.assert_allclose(estimate.predict([0.0, 99.5]), expected, atol=1e-12)
    with pytest.raises(ValueError, match="voxel must be a volume"):
        StructureEstimate.fit([1.0], [1.0], [0], voxel=0.0)


def test_coverage_counts_the_ends_in_and_has_an_exact_interval():
    found = coverage([0.1, 0.1, 0.1, NAN], [0.5, 0.5, 0.5, NAN], [0.1, 0.5, 0.6, 0.3])
    assert (found.share, found.n) == (pytest.approx(2 / 3), 3)
    exact = stats.beta.ppf([0.025, 0.975], [2, 3], [2, 1])  # Clopper and Pearson
    assert (found.low, found.high) == pytest.approx(exact)
    assert coverage([NAN], [NAN], [0.5]).n == 0


def test_an_estimate_is_checked_on_cases_that_it_has_not_seen():
    # a patient who is unlike the others is missed by the interval, however many cases there are of
    # it
    patients = [f"p{i}" for i in range(12)] + ["odd"] * 12
    check = check_estimate(np.full(24, 0.7), np.repeat([0.5, 0.9], 12), patients)
    assert check.error == pytest.approx(0.2) and check.coverage.n == 24
    assert check.coverage.share <= 0.5 and 0 <= check.width < 0.5
    predicted = np.linspace(0.6, 0.9, 12)
    check = check_estimate(predicted, predicted - 0.1, patients[:12])
    assert (check.error, check.width, check.coverage.share) == pytest.approx((0.1, 0, 1), abs=1e-9)
    # the mean of the others, which knows nothing of the case; of two patients each is the other's
    assert check_estimate([0.5, 0.5], [0.2, 0.9], ["a", "b"]).error_of_constant == pytest.approx(
        0.7
    )
    assert check_estimate([NAN, 0.5], [0.5, 0.5], ["a", "b"]).n == 1


def test_no_case_teaches_its_own_part():
    rng = np.random.default_rng(0)
    expected, part = rng.uniform(0.5, 0.9, 30), np.arange(30) // 3
    true = expected - 0.1 + rng.normal(0, 0.02, 30)
    parts = {f"case_{i}": number for i, number in enumerate(part)}

    def low_of(true: np.ndarray, key: str) -> np.ndarray:
        found = predict_dice_parts(
            quality_of({"1": (expected, true), "2": (expected, expected)}), {}, parts
        )
        assert found[found.key == key].predicted_dice.tolist() == expected.tolist()
        return found[found.key == key].predicted_dice_low.to_numpy()

    changed = np.where(part == 4, 0.0, true)
    assert ((low_of(true, "1") == low_of(changed, "1")) == (part == 4)).all()
    assert (low_of(true, "2") == low_of(changed, "2")).all()


def test_numbers_of_a_method():
    expected, true = [0.9, 0.6, 0.7, NAN], [0.8, 0.5, 0.9, 0.0]
    rows = quality_of({"1": (expected, true), "2": ([0.8, NAN, 0.9, NAN], [0.9, NAN, 0.7, NAN])})
    rows = rows.assign(predicted_dice_low=0.6, predicted_dice_high=0.8)
    rows.loc[rows.predicted_dice.isna(), ["predicted_dice_low", "predicted_dice_high"]] = NAN
    # errors 0.1, 0.1, 0.2, 0.1, 0.2; ends are within
    printed = quality_text(rows, dict.fromkeys("12", 0.75))
    assert (
        "MAE predicted 0.140" in " ".join(printed.split())
        and "40 % of 5" in printed
        and "3 of 4" in printed
    )
    found = quality_report(rows, {"1": 0.75, "2": 0.6})
    assert found["width"] == pytest.approx(0.2) and found["threshold"] == {"1": 0.75, "2": 0.6}
    # the second and the fourth, by their first structure
    assert (found["n_cases"], found["n_bad"]) == (4, 2)
    # of the second structure alone the third is bad, which the first would not have looked at
    # before the second
    found = quality_report(rows, {"2": 0.75})
    assert found["n_bad"] == 1 and [
        row["caught"] for row in found["workload"]["predicted Dice"]
    ] == [0, 0, 0, 0, 0]
    none = quality_report(rows, None)
    assert (none["threshold"], none["workload"], none["n_bad"]) == (None, {}, 0)
    assert none["MAE predicted"] == found["MAE predicted"]
    assert "-bad 0.7 adds" in quality_text(rows, None)


def test_what_cases_are_ordered_by():
    rows = quality_of({"1": ([0.9, 0.6, NAN, NAN], [1] * 4)}, entropy=[0.1, 0.2, 0.3, NAN])
    found = trust_of(rows)
    np.testing.assert_array_equal(found["predicted Dice"], [0.9, 0.6, NAN, NAN])
    np.testing.assert_allclose(found["entropy"], [-0.1, -0.2, -0.3, NAN])
    assert (
        found["entropy"].index.tolist() == [f"case_{i}" for i in range(4)] and "folds" not in found
    )
    by_folds = trust_of(rows.assign(members_dice=[0.7, NAN, 0.8, 0.9]))["folds"]
    np.testing.assert_array_equal(by_folds, [0.7, NAN, 0.8, 0.9])


@pytest.mark.parametrize(
    ("true", "trust", "rho"),
    [
        # ranks 4 1 2 3 and 4 2 1 3: 1 - 6 (1 + 1) / (4 * 15)
        ([0.9, 0.1, 0.5, 0.7], [3, 2, 1, 2.5], 0.8),
        ([0.9, 0.1, 0.5], [1, NAN, 2], NAN),
        ([0.9, 0.1, 0.5], [1, 1, 1], NAN),
    ],
)
def test_rank_correlation_of_what_is_known(true, trust, rho):
    assert quality_report(quality_of({"1": (trust, true)}), None)["rho"] == pytest.approx(
        rho, nan_ok=True
    )


def test_workload_by_hand():
    true = [0.9, 0.3, 0.8, 0.4, 0.95, 0.2, 0.85, 0.9, 0.92, 0.88]  # three bad ones
    # finds 0.3, then misses, then finds 0.4
    trust = [0.9, 0.1, 0.2, 0.3, 0.95, 0.8, 0.85, 0.9, 0.92, 0.88]
    rows = workload(trust, np.array(true) - 0.7)
    assert [row["n_cases"] for row in rows] == [1, 1, 2, 3, 5]
    assert [row["caught"] for row in rows] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 1])


def test_workload_of_what_is_not_known():
    assert workload([0.9, NAN, 0.8], [0.4, -0.4, 0.4])[0]["caught"] == 1  # looked at first
    assert math.isnan(workload([0.9], [0.4])[0]["caught"])  # nothing to catch
    assert workload([0.5] * 4, [-0.4, 0.4, 0.4, 0.4])[-1]["caught"] == pytest.approx(0.5)  # tied
