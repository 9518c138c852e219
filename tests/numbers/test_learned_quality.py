"""How far predictions are off: closed forms of intervals, coverage in finite samples, who teaches whom, the file."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from nnunet_nacl.files import to_json_text
from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.numbers.learned_quality import (
    DICE,
    LearnedQuality,
    StructureEstimate,
    check_estimate,
    coverage,
    learn,
    predict_dice_parts,
)
from tests.numbers.problems import quality_of

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
    # of nine patients the first has three cases: without it the mean is 0, so its errors are 0.3; the others' mean is
    # (0.3 + 0 ...) / 8; 90 % of 10 are 9, so the ends are the least and the greatest of all
    estimate = StructureEstimate.fit([0.5] * 11, [0.8] * 3 + [0.5] * 8, [0, 0, 0, *range(1, 9)])
    assert estimate.predict(0.5) == pytest.approx([0.5, 0.2, 0.8])


def test_too_few_patients_have_an_estimate_but_no_interval():
    values = np.linspace(0.5, 0.9, 16)
    estimate = StructureEstimate.fit(values, values, [i // 2 for i in range(16)])  # 16 cases of 8 patients
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
    # a tenth too much or too little; the mean of the others is 0.1 / 9 on the other side, so the last end is 1.1 / 9
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
    # a patient who is unlike the others is missed by the interval, however many cases there are of it
    patients = [f"p{i}" for i in range(12)] + ["odd"] * 12
    check = check_estimate(np.full(24, 0.7), np.repeat([0.5, 0.9], 12), patients)
    assert check.error == pytest.approx(0.2) and check.coverage.n == 24
    assert check.coverage.share <= 0.5 and 0 <= check.width < 0.5
    predicted = np.linspace(0.6, 0.9, 12)
    check = check_estimate(predicted, predicted - 0.1, patients[:12])
    assert (check.error, check.width, check.coverage.share) == pytest.approx((0.1, 0, 1), abs=1e-9)
    # the mean of the others, which knows nothing of the case; of two patients each is the other's
    assert check_estimate([0.5, 0.5], [0.2, 0.9], ["a", "b"]).error_of_constant == pytest.approx(0.7)
    assert check_estimate([NAN, 0.5], [0.5, 0.5], ["a", "b"]).n == 1


def test_no_case_teaches_its_own_part():
    rng = np.random.default_rng(0)
    expected, part = rng.uniform(0.5, 0.9, 30), np.arange(30) // 3
    true = expected - 0.1 + rng.normal(0, 0.02, 30)
    parts = {f"case_{i}": number for i, number in enumerate(part)}

    def low_of(true: np.ndarray, key: str) -> np.ndarray:
        found = predict_dice_parts(quality_of({"1": (expected, true), "2": (expected, expected)}), {}, parts)
        assert found[found.key == key].predicted_dice.tolist() == expected.tolist()
        return found[found.key == key].predicted_dice_low.to_numpy()

    changed = np.where(part == 4, 0.0, true)
    assert ((low_of(true, "1") == low_of(changed, "1")) == (part == 4)).all()
    assert (low_of(true, "2") == low_of(changed, "2")).all()


def test_frames_of_a_patient_count_as_one():
    rng = np.random.default_rng(0)
    expected, frames = rng.uniform(0.5, 0.9, 16), range(32)
    true, parts = expected + rng.normal(0, 0.1, 16), {f"case_{i}": i % 16 % 4 for i in frames}
    rows, twice = quality_of({"1": (expected, true)}), quality_of({"1": (np.tile(expected, 2), np.tile(true, 2))})
    once = predict_dice_parts(rows, {}, parts)
    grouped = predict_dice_parts(twice, {f"case_{i}": i % 16 for i in frames}, parts)
    assert (grouped[:16][DICE] - once[DICE]).abs().to_numpy().max() < 0.01


def learned(n: int = 12, voxel: float = 1.0) -> LearnedQuality:
    rng = np.random.default_rng(0)
    dice, volume = rng.uniform(0.5, 1, n), rng.uniform(2, 5, n)
    structures = {"left": (dice, dice * 0.9, volume, volume * 1.1)}
    structures["rare"] = ([NAN] * n, [NAN] * n, volume * 0.01, np.zeros(n))
    patients = {f"case_{i}": f"patient {i // 2}" for i in range(n)}
    return learn(quality_of(structures, voxel=voxel), patients, dict.fromkeys(patients, 0), as_deployed=False)


def test_what_was_learned_comes_back_from_json():
    quality = learned(24, voxel=0.001)
    again = decode(LearnedQuality, json.loads(to_json_text(encode(quality))), "it")
    assert again.as_deployed is False
    np.testing.assert_array_equal(again.dice["left"].predict(0.8), quality.dice["left"].predict(0.8))
    np.testing.assert_array_equal(again.volume["left"].predict(3.0), quality.volume["left"].predict(3.0))
    assert again.volume["left"].voxel == 0.001 and again.dice["left"].voxel is None
    assert quality.volume["left"].predict(50.0)[2] == pytest.approx(55, rel=1e-3)  # volumes have no upper bound
    assert np.isnan(again.dice["rare"].predict(0.5)).all()
