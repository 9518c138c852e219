"""Unlike the calibration scans: how often by chance alone, what gaps do, and in which words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.quality.unlike import CalibrationProfiles, UnlikeScans, batch_probability

NAMES = ["noise", "log spacing along z", "in heart", "log volume of heart"]


def scans_of(rng: np.random.Generator, n_patients: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """One to ``most`` scans a patient, which are alike, of more numbers than vary freely: profiles,
    and patients."""
    patients = np.repeat(np.arange(n_patients), rng.integers(1, most + 1, n_patients))
    of_patient = rng.normal(size=(n_patients, 3))[patients] + rng.normal(0, 0.5, (len(patients), 3))
    return of_patient @ MIXED + rng.standard_t(4, (len(patients), 6)) / 2, patients


MIXED = np.random.default_rng(1).normal(size=(3, 6))


def learned(values: np.ndarray, patients=None) -> CalibrationProfiles:
    names = (
        NAMES if values.shape[1] == len(NAMES) else [f"number {i}" for i in range(values.shape[1])]
    )
    return CalibrationProfiles.learn(
        names, values, range(len(values)) if patients is None else patients
    )


@pytest.fixture
def like() -> CalibrationProfiles:
    """Of 60 scans with four numbers."""
    return learned(np.random.default_rng(0).normal(size=(60, 4)))


@pytest.mark.parametrize("most", [1, 3])
def test_scans_like_them_are_unlike_as_often_as_the_level_says_or_less(most):
    """Each draw has other calibration scans of 19 patients, and new patients, of whom a random scan
    is looked at."""
    rng, draws = np.random.default_rng(0), []
    for _ in range(250):
        values, patients = scans_of(rng, 39, most)
        known = learned(values[patients < 19], patients[patients < 19])
        first = [np.flatnonzero(patients == number)[0] for number in range(19, 39)]
        draws.append([known.p_value(values[i]) for i in first])
    for level in (0.05, 0.1, 0.25, 0.5):
        share = np.mean(np.array(draws) <= level + 1e-9, axis=1)
        error = 3 * share.std() / math.sqrt(len(share))
        assert share.mean() < level + error
        if most == 1:
            assert share.mean() > 0.8 * level - error
    if most == 1:
        # 0.10 without the "+1"
        assert np.mean(np.array(draws) <= 0.05 + 1e-9) == pytest.approx(0.05, abs=0.012)


def test_left_out_scores_are_found_without_the_patient():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 3))
    doubled = np.r_[values, values]
    twice = learned(doubled, [*range(30), *range(30)])
    for i in (0, 7):
        others = learned(np.delete(doubled, [i, 30 + i], axis=0))
        assert twice.scores[i] == pytest.approx(others.score(values[i]), rel=1e-4)
    assert np.isnan(learned(values, [0] * 30).scores).all()
    assert math.isnan(learned(values, [0] * 30).p_value(values[0]))


def test_batches_share_their_calibration_scans():
    assert batch_probability(4, 20, 60, 0.05) == pytest.approx(0.032, abs=5e-4)
    assert binom.sf(3, 20, 3 / 61) == pytest.approx(0.016, abs=1e-3)  # were they independent
    assert batch_probability(0, 20, 60, 0.05) == 1
    assert math.isnan(batch_probability(1, 20, 18, 0.05))


def test_a_batch_is_counted(like):
    rng = np.random.default_rng(1)
    near, far = [*rng.normal(size=(20, 4))], [*rng.normal(8, 1, size=(4, 4))]
    n_near = UnlikeScans.of(like, near, 0.05).n_unlike
    batch = UnlikeScans.of(like, [*near, *far], 0.05)
    assert (batch.n_scans, batch.n_unlike, batch.n_patients) == (24, n_near + 4, 60)
    assert batch.probability == batch_probability(n_near + 4, 24, 60, 0.05)
    assert f"{n_near + 4} of 24 are unlike" in batch.text
    moved, where_it_was = (
        UnlikeScans.of(like, [row + by for row in near], 0.05).two_sample for by in (8, 0)
    )
    assert moved < 1e-9 < where_it_was
    assert math.isnan(UnlikeScans.of(like, far[:1], 0.05).two_sample)
    assert UnlikeScans.of(like, [], 0.05).text == ""


@pytest.mark.parametrize(("level", "needed"), [(0.05, 19), (0.01, 99)])
def test_too_few_patients_can_tell_nothing(level, needed):
    values, far = np.random.default_rng(0).normal(size=(needed, 3)), np.full(3, 100.0)
    enough, few = learned(values), learned(values[1:])
    assert enough.why_not(level) == ""
    assert enough.p_value(far) == pytest.approx(level)
    assert (
        few.why_not(level)
        == f"it takes {needed} patients to tell at {level:g}, there are {needed - 1}"
    )
    batch = UnlikeScans.of(few, [far], level)
    assert (batch.n_unlike, batch.text, batch.why_not) == (0, "", few.why_not(level))
    assert UnlikeScans.of(enough, [far], level).n_unlike == 1


def test_gaps_take_no_part(like):
    values, profile = np.array(like.values), np.array([0.5, 3.0, 0.5, 0.5])
    nowhere = values.copy()
    nowhere[:, 2] = math.nan
    known = learned(nowhere)
    for number in (math.nan, 0.0, 50.0):  # of a structure that no calibration scan has
        profile[2] = number
        assert known.score(profile) == pytest.approx(
            learned(np.delete(values, 2, 1)).score(np.delete(profile, 2))
        )
    profile[2] = math.nan  # which only the new scan lacks: no farther off than any value of it
    assert like.score(profile) <= min(
        like.score(np.r_[profile[:2], number, profile[3]]) for number in (-9, 9)
    )
    assert "heart" not in like.stands_out(profile)
    some = values.copy()
    some[:30, 2:] = math.nan
    assert learned(some).p_value(np.array([0.1, 0.1, math.nan, math.nan])) > 0.3


def test_numbers_that_never_change_do_not_divide_by_zero():
    values = np.random.default_rng(0).normal(size=(40, 4))
    values[:, 1] = math.log(2)
    known, like, other = (
        learned(values),
        np.array([0, math.log(2.04), 0, 0]),
        np.array([0, math.log(6), 0, 0]),
    )
    assert known.p_value(like) > 0.5 and known.p_value(other) == pytest.approx(1 / 41)
    assert known.stands_out(other) == "spacing along z 6 (2 to 2)"
    assert known.stands_out(np.array([9, math.log(2), 99, math.log(40)])).startswith(
        "in heart 99 ("
    )


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
