"""Which scans are flagged by a site's choice, what is said of it, and what it costs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.estimators.flags import FINDS, Flags, flag_costs, order_areas
from nnunet_nacl.estimators.scan_scores import ScanScores
from nnunet_nacl.utilities.errors import UserError

STRUCTURES = {"1": "LV cavity", "3": "infarct"}
BAD = {"1": 0.5}


def flags(score, dice, patients=None, find=None, miss=None) -> Flags:
    """Of one structure that all scans have, and that is bad below 0.5."""
    if patients is None:
        patients = range(len(score))
    scores = ScanScores(
        score={"1": list(score)},
        dice={"1": list(dice)},
        entropy=[0.0] * len(score),
        patient=np.array(patients),
        always=["1"],
    )
    return Flags.of(scores, BAD, STRUCTURES, find, miss)


def study(n: int, n_bad: int, find=None, miss=None) -> Flags:
    """n patients, of whom ``n_bad`` are bad: the best by score, and those with the lowest
    scores."""
    dice = np.ones(n)
    dice[: n_bad - 1] = 0
    dice[n - 1] = 0
    return flags(np.arange(n) / n, dice, find=find, miss=miss)


@pytest.fixture
def flags_of_seven_scans() -> Flags:
    """Patient 0 has three bad scans, one of them without a score; of four patients half the bad
    scans may be missed."""
    score = [0.2, 0.3, math.nan, 0.9, 0.1, 0.8, 0.95]
    dice = [0, 0, 0, 0, 1, 0, 1]
    return flags(score, dice, [0, 0, 0, 1, 2, 2, 3], find=0.5)


def test_a_patient_loses_the_share_of_its_bad_scans(flags_of_seven_scans):
    # 1 + (losses of patients 0, 1 and 2) <= 4 / 2: at 0.3 patients 1 and 2 lose all; at 0.8 it is 1
    # alone
    assert flags_of_seven_scans.threshold == pytest.approx(0.8 - 0.5)


def test_shares_are_those_of_the_calibration_scans(flags_of_seven_scans):
    found = flags_of_seven_scans
    assert (found.n_scans, found.n_bad_patients) == (7, 3)
    assert found.share_bad == pytest.approx(5 / 7)
    assert found.share_found == pytest.approx(4 / 5)
    assert found.share_flagged == pytest.approx(5 / 7)
    assert found.aim == (
        "Aim for patients like those of the calibration: 50 % of the bad scans are flagged. Of"
        " the 7 calibration scans 71 % were bad (Dice of LV cavity below 0.5); 80 % of these and"
        " 71 % of all would be flagged."
    )


def test_the_default_takes_nine_patients_with_a_bad_scan():
    enough = study(40, 9)
    assert (enough.find, enough.miss, enough.why_not) == (0.9, None, "")


def test_with_too_few_patients_for_the_default_no_scan_is_flagged():
    found = study(40, 8)
    why_not = (
        "finding 0.9 takes 9 calibration patients with a bad scan, there are 8; 0.888 can be had"
    )
    assert found.why_not == why_not
    assert found.aim == f"Flagging by predicted Dice is off: no limit could be learned ({why_not})."
    assert found.share_flagged == 0
    assert found.threshold is None


def test_a_named_share_of_the_bad_scans_that_cannot_be_had_is_an_error():
    with pytest.raises(UserError, match="9 .* there are 8; 0.888 can be had.$"):
        study(40, 8, find=0.9)
    assert study(40, 8, find=0.888).threshold == pytest.approx(39 / 40 - 0.5)
    with pytest.raises(UserError, match="there are 0.$"):
        flags([0.5] * 9, [1] * 9, find=0.5)


def test_a_share_of_missed_scans_that_cannot_be_had_is_an_error():
    needed = "missing 0.02 takes 49 calibration patients, there are 40; 0.025 can be had.$"
    with pytest.raises(UserError, match=needed):
        study(40, 20, miss=0.02)


def test_where_nothing_must_be_flagged_there_is_no_threshold():
    found = study(40, 20, miss=0.6)
    assert found.threshold is None
    assert not found.why_not
    assert found.aim.startswith(
        "No scan is flagged by predicted Dice: of the 40 calibration scans 50 % were bad"
    )


def test_miss_alone_flags_no_more_than_it_needs():
    """Of 40 patients 41 * 0.1 - 1 = 3.1 may be bad and not flagged; 19 of the 20 bad ones have the
    lowest scores."""
    found = study(40, 20, miss=0.1)
    assert found.find is None
    assert found.threshold == pytest.approx(16 / 40 - 0.5)
    aim = "calibration: at most 10 % of all scans are bad and not flagged. Of the 40"
    assert aim in found.aim


def test_of_find_and_miss_the_larger_threshold_counts():
    find = study(40, 20, find=0.9)
    assert find.threshold == pytest.approx(18 / 40 - 0.5)
    both = study(40, 20, find=0.9, miss=0.1)
    assert replace(both, miss=None) == find
    aim = "calibration: 90 % of the bad scans are flagged, and at most 10 % of all scans are bad"
    assert aim in both.aim
    miss = study(40, 20, miss=0.05)
    assert study(40, 20, find=0.5, miss=0.05).threshold == miss.threshold


def test_costs_of_what_is_called_bad_are_by_the_structures_that_count():
    """Of 40 patients 20 have a bad structure 1, by a score that finds them in order; structure 3 is
    always bad."""
    scores = ScanScores(
        score={"1": list(np.arange(40) / 40), "3": [0.0] * 40},
        dice={"1": [0.0] * 20 + [1.0] * 20, "3": [0.0] * 40},
        entropy=[0.0] * 40,
        patient=np.arange(40),
        always=[],
    )
    costs = flag_costs(scores, {"1": 0.5})
    # of 20 bad ones 21 (1 - find) - 1 may be missed
    allowed = [math.floor(21 * (1 - find) - 1 + 1e-9) for find in FINDS]
    assert allowed == [9, 5, 3, 1, 0]
    assert costs.find.tolist() == list(FINDS)
    assert costs.flagged.tolist() == [(20 - missed) / 40 for missed in allowed]
    assert set(costs.share_bad) == {0.5}
    assert set(flag_costs(scores).share_bad) == {1.0}


def test_areas_of_orders_are_of_the_lowest_dice_of_the_structures_that_count():
    # the structure that is in no truth and no label, NaN, does not count; scores order the scans
    # well, entropy the wrong way round
    scores = ScanScores(
        score={"1": [0.9, 0.8, 0.3], "3": [0.9, 0.2, 0.7]},
        dice={"1": [1.0, 0.8, 0.6], "3": [math.nan, 0.2, 0.8]},
        entropy=[0.9, 0.2, 0.5],
        patient=np.arange(3),
        always=["1"],
    )
    # risks 0, .8, .4 and scores .9, .2, .3: the means of those kept are 0, .2, .4
    areas = order_areas(scores)
    assert areas["score"] == areas["best"] == pytest.approx((0.1 + 0.3) / 3)
    assert areas["entropy"] == pytest.approx((0.7 + 0.5) / 3)
    assert areas["chance"] == pytest.approx(2 * 0.4 / 3)
    # risks 0, .2, .4 of the first structure alone, in the order of its scores
    assert order_areas(scores, {"1": 0.5})["score"] == pytest.approx((0.05 + 0.15) / 3)
