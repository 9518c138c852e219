"""Unlike the calibration scans: from how many patients on, what gaps do, and in which words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.estimators.unlike import CalibrationProfiles
from nnunet_nacl.estimators.unlike_batch import UnlikeScans
from nnunet_nacl.utilities.json_files import decode, encode

NAMES = ["noise", "log spacing along z", "in heart", "log volume of heart"]


def learned(values: np.ndarray, patients=None) -> CalibrationProfiles:
    """Of (n, F) profiles; each scan is a patient's only one if ``patients`` are not given."""
    if patients is None:
        patients = range(len(values))
    names = NAMES
    if values.shape[1] != len(NAMES):
        names = [f"number {i}" for i in range(values.shape[1])]
    return CalibrationProfiles.learn(names, values, patients)


@pytest.fixture
def like() -> CalibrationProfiles:
    """Of 60 scans with four numbers."""
    return learned(np.random.default_rng(0).normal(size=(60, 4)))


def test_left_out_scores_are_found_without_the_patient():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 3))
    doubled = np.r_[values, values]
    twice = learned(doubled, [*range(30), *range(30)])
    for i in (0, 7):
        others = learned(np.delete(doubled, [i, 30 + i], axis=0))
        assert twice.scores[i] == pytest.approx(others.score(values[i]), rel=1e-4)


def test_one_patient_has_no_scores():
    values = np.random.default_rng(0).normal(size=(30, 3))
    of_one_patient = learned(values, [0] * 30)
    assert np.isnan(of_one_patient.scores).all()
    assert math.isnan(of_one_patient.p_value(values[0]))


@pytest.mark.parametrize(("level", "needed"), [(0.05, 19), (0.01, 99)])
def test_too_few_patients_can_tell_nothing(level, needed):
    values = np.random.default_rng(0).normal(size=(needed, 3))
    far = np.full(3, 100.0)
    enough = learned(values)
    assert enough.why_not(level) == ""
    assert enough.p_value(far) == pytest.approx(level)
    assert UnlikeScans.of(enough, [far], [0], level).n_unlike == 1

    few = learned(values[1:])
    why = f"it takes {needed} patients to tell at {level:g}, there are {needed - 1}"
    assert few.why_not(level) == why
    batch = UnlikeScans.of(few, [far], [0], level)
    assert (batch.n_unlike, batch.text, batch.why_not) == (0, "", why)


def test_a_structure_that_no_calibration_scan_has_takes_no_part(like):
    values = np.array(like.values)
    without = learned(np.delete(values, 2, axis=1))
    values[:, 2] = math.nan
    known = learned(values)
    for number in (math.nan, 0.0, 50.0):
        profile = np.array([0.5, 3.0, number, 0.5])
        assert known.score(profile) == pytest.approx(without.score(np.delete(profile, 2)))


def test_a_gap_of_a_new_scan_is_no_farther_off_than_any_value(like):
    gap = np.array([0.5, 3.0, math.nan, 0.5])
    for number in (-9, 9):
        profile = gap.copy()
        profile[2] = number
        assert like.score(gap) <= like.score(profile)
    assert "heart" not in like.stands_out(gap)


def test_gaps_that_calibration_scans_have_are_not_unlike(like):
    values = np.array(like.values)
    values[:30, 2:] = math.nan
    assert learned(values).p_value(np.array([0.1, 0.1, math.nan, math.nan])) > 0.3


def test_numbers_that_never_change_do_not_divide_by_zero():
    values = np.random.default_rng(0).normal(size=(40, 4))
    values[:, 1] = math.log(2)
    known = learned(values)
    like = np.array([0, math.log(2.04), 0, 0])
    other = np.array([0, math.log(6), 0, 0])
    assert known.p_value(like) > 0.5
    assert known.p_value(other) == pytest.approx(1 / 41)
    assert known.stands_out(other) == "spacing along z 6 (2 to 2)"
    farther_in_heart = np.array([9, math.log(2), 99, math.log(40)])
    assert known.stands_out(farther_in_heart).startswith("in heart 99 (")


def test_a_count_that_most_scans_share_hides_no_other_number():
    """Its median absolute deviation is 0: by the least spread, scans with another count would be
    far from all."""
    values = np.random.default_rng(0).normal(0, 0.2, size=(40, 2))
    values[:, 1] = np.log(np.r_[np.full(30, 2), 3, 3, 3, 3, 4, 4, 5, 5, 6, 7])
    known = learned(values)
    assert known.p_value(np.array([0, math.log(4)])) > 0.1
    assert known.p_value(np.array([1.6, math.log(2)])) == pytest.approx(1 / 41)


def test_a_file_keeps_gaps_and_is_checked(like):
    values = np.array(like.values)
    values[3, 2] = math.nan
    known = learned(values)
    again = decode(CalibrationProfiles, encode(known), "profiles")
    np.testing.assert_array_equal(again.scores, known.scores)
    with pytest.raises(ValueError, match="belong together"):
        CalibrationProfiles(names=["a"], values=[[1.0]] * 3, patient=np.array([0, 1]))
