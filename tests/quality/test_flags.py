"""What a site calls bad, and which scans are flagged for it: scores by hand, thresholds by the
definition."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.quality.bad_limits import read_bad, share_of
from nnunet_nacl.quality.flag_costs import FINDS, flag_costs
from nnunet_nacl.quality.flags import Flags
from nnunet_nacl.quality.risk_control import patients_needed, smallest_thresholds
from nnunet_nacl.quality.scan_scores import ScanScores, structure_score

STRUCTURES = {"1": "LV cavity", "3": "infarct"}
BAD = {"1": 0.5}


def flags(score, dice, patients=None, find=None, miss=None) -> Flags:
    """Of one structure that all scans have, and that is bad below 0.5."""
    patient = np.arange(len(score)) if patients is None else np.array(patients)
    scores = ScanScores(
        score={"1": list(score)},
        dice={"1": list(dice)},
        entropy=[0.0] * len(score),
        patient=patient,
        always=["1"],
    )
    return Flags.of(scores, BAD, STRUCTURES, find, miss)


def study(n: int, n_bad: int, **asked) -> Flags:
    """n patients, of whom those with the lowest scores are bad, all but one, who is the best by
    score."""
    score, dice = np.arange(n) / n, np.ones(n)
    dice[[*range(n_bad - 1), n - 1]] = 0
    return flags(score, dice, **asked)


def test_shares_are_those_of_the_calibration_scans():
    # patient 0 has three bad scans, one of them without a score; of four patients half the bad
    # scans may be missed
    score, dice = [0.2, 0.3, math.nan, 0.9, 0.1, 0.8, 0.95], [0, 0, 0, 0, 1, 0, 1]
    found = flags(score, dice, [0, 0, 0, 1, 2, 2, 3], find=0.5)
    # 1 + (losses of patients 0, 1 and 2) <= 4 / 2: at 0.3 patients 1 and 2 lose all; at 0.8 it is 1
    # alone
    assert found.threshold == pytest.approx(0.8 - 0.5) and (
        found.n_scans,
        found.n_bad_patients,
    ) == (7, 3)
    assert (found.share_bad, found.share_found, found.share_flagged) == pytest.approx(
        (5 / 7, 4 / 5, 5 / 7)
    )
    assert (
        found.aim
        == "Aim for patients like those of the calibration: 50 % of the bad scans are flagged. Of"
        " the 7 calibration scans 71 % were bad (Dice of LV cavity below 0.5); 80 % of these and"
        " 71 % of all would be flagged."
    )


def test_a_named_share_that_cannot_be_had_is_an_error_and_the_default_ranks():
    for patients in (9, 8):
        found = study(40, patients)
        assert (found.find, found.miss) == (0.9, None) and bool(found.why_not) == (patients == 8)
    needed = (
        "-find 0.9 takes 9 calibration patients with a bad scan, there are 8; -find 0.888 can"
        " be had"
    )
    assert found.why_not == needed
    assert found.aim == f"Flagging by predicted Dice is off: no limit could be learned ({needed})."
    assert found.share_flagged == 0 and found.threshold is None
    with pytest.raises(
        UserError, match="-find 0.9 takes 9 .* there are 8; -find 0.888 can be had.$"
    ):
        study(40, 8, find=0.9)
    # the named one can be had
    assert study(40, 8, find=0.888).threshold == pytest.approx(39 / 40 - 0.5)
    needed = "-miss 0.02 takes 49 calibration patients, there are 40; -miss 0.025 can"
    with pytest.raises(UserError, match=needed):
        study(40, 20, miss=0.02)
    with pytest.raises(UserError, match="there are 0.$"):
        flags([0.5] * 9, [1] * 9, find=0.5)


def test_where_nothing_must_be_flagged_there_is_no_threshold():
    found = study(40, 20, miss=0.6)
    assert found.threshold is None and not found.why_not
    assert found.aim.startswith(
        "No scan is flagged by predicted Dice: of the 40 calibration scans 50 % were bad"
    )


def test_without_find_miss_alone_is_promised_and_of_both_the_larger_threshold():
    # of 40 patients, 20 bad: 41 * 0.1 - 1 = 3.1 of them may be missed, 18 bad ones have the lowest
    # scores
    miss, find, both = (
        study(40, 20, miss=0.1),
        study(40, 20, find=0.9),
        study(40, 20, find=0.9, miss=0.1),
    )
    assert (miss.find, find.miss) == (None, None)
    assert miss.threshold == pytest.approx(16 / 40 - 0.5) and find.threshold == pytest.approx(
        18 / 40 - 0.5
    )
    assert replace(both, miss=None) == find
    missed, found = (
        "at most 10 % of all scans are bad and not flagged.",
        "90 % of the bad scans are flagged",
    )
    assert (
        f"calibration: {missed} Of the 40" in miss.aim
        and f"calibration: {found}, and {missed}" in both.aim
    )
    assert study(40, 20, find=0.5, miss=0.05).threshold == study(40, 20, miss=0.05).threshold


@pytest.mark.parametrize(
    ("texts", "count", "values"),
    [
        (["infarct=0.5"], None, {"3": 0.5}),  # the others do not count
        (["3=0.5", "LV cavity=1"], None, {"1": 1.0, "3": 0.5}),
        (["0.7"], ["infarct", "3"], {"3": 0.7}),
        (np.float32(0.5), None, {"1": 0.5, "3": 0.5}),  # from Python
        ({"infarct": np.float16(0.5), "1": 1}, None, {"1": 1.0, "3": 0.5}),
        ("3=0.5", None, {"3": 0.5}),
    ],
)
def test_one_for_all_or_by_name_or_label(texts, count, values):
    assert read_bad(texts, STRUCTURES, count) == values


@pytest.mark.parametrize(
    ("texts", "count", "message"),
    [
        (
            ["liver=0.5"],
            None,
            r"-bad liver: there is no such structure; there are LV cavity \(1\), infarct \(3\)\.",
        ),
        (
            ["infarct"],
            None,
            (
                "-bad infarct: a Dice is expected, such as 0.7, or STRUCTURE=DICE, such as"
                " Infarct=0.5."
            ),
        ),
        (["infarct=0.7", "3=0.6"], None, "-bad: infarct cannot have two values, 0.7 and 0.6."),
        ([0.7], None, r"-bad is a Dice, such as 0.7, or by structure, .* got \[0.7\]"),
        ({"infarct": "0.7"}, None, "-bad infarct: a Dice is expected, such as 0.7, got '0.7'."),
        (
            ["infarct=0.7"],
            ["LV cavity"],
            "-structures LV cavity: -bad does not say below which Dice it is bad.",
        ),
    ],
)
def test_what_is_no_dice_of_a_structure_is_refused(texts, count, message):
    with pytest.raises(UserError, match=message):
        read_bad(texts, STRUCTURES, count)


def test_costs_of_what_is_called_bad_are_by_the_structures_that_count():
    # of 40 patients, 20 with a bad structure 1, by a score that finds them in order; structure 3 is
    # always bad
    score, dice = np.arange(40) / 40, np.repeat([0.0, 1.0], 20)
    scores = ScanScores(
        score={"1": list(score), "3": [0.0] * 40},
        dice={"1": list(dice), "3": [0.0] * 40},
        entropy=[0.0] * 40,
        patient=np.arange(40),
        always=[],
    )
    costs = flag_costs(scores, BAD)
    # of 20 bad ones 21 (1 - find) - 1 may be missed
    allowed = [math.floor(21 * (1 - find) - 1 + 1e-9) for find in FINDS]
    assert costs.find.tolist() == list(FINDS) and allowed == [9, 5, 3, 1, 0]
    assert costs.flagged.tolist() == [(20 - missed) / 40 for missed in allowed] and set(
        costs.share_bad
    ) == {0.5}
    assert set(flag_costs(scores).share_bad) == {1.0}


@pytest.mark.parametrize("share", [1.0, math.nan])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(UserError, match=f"-find is a share, above 0 and below 1, got {share:g}."):
        share_of(share, "-find")
    assert share_of(None, "-find") is None and share_of(0.5, "-miss") == 0.5


NAN = math.nan


@pytest.mark.parametrize(
    ("dice", "present", "always", "score"),
    [
        (0.8, 0.25, False, 0.8),  # presence does not multiply
        (0.123456, NAN, True, 0.1235),
        (NAN, 0.75, False, 0.25),
        (NAN, 0.75, True, 0.25),
        (NAN, NAN, True, 0.0),  # all calibration scans have it
        (NAN, NAN, False, NAN),  # nobody knows
    ],
)
def test_the_score_of_a_structure(dice, present, always, score):
    assert float(structure_score(dice, present, always)) == pytest.approx(
        score, abs=1e-9, nan_ok=True
    )


def four_scans() -> ScanScores:
    """Of four scans of three patients with an organ, which all have, and a lesion."""
    organ = structure_score([0.9, 0.8, NAN, 0.7], NAN, True).tolist()
    lesion = structure_score([0.6, NAN, NAN, NAN], [0.5, 0.9, 0.2, NAN], False).tolist()
    dice = {"1": [0.95, 0.5, 0.0, 0.7], "2": [0.3, 0.0, NAN, NAN]}
    patient = np.array([0, 1, 0, 2])
    return ScanScores(
        score={"1": organ, "2": lesion}, dice=dice, entropy=[0.0] * 4, patient=patient, always=["1"]
    )


def test_the_worst_structure_that_counts_is_that_of_the_scan():
    scores = decode(ScanScores, encode(four_scans()), "map.json")
    assert scores.patient.tolist() == [0, 1, 0, 2]
    both = {"1": 0.7, "2": 0.4}  # 0.9 - 0.7 and 0.6 - 0.4; 0.8 - 0.7 and 0.1 - 0.4; ...
    np.testing.assert_allclose(scores.of_scans(both), [0.2, -0.3, -0.7, 0.0], atol=1e-9)
    np.testing.assert_allclose(scores.of_scans({"2": 0.4}), [0.2, -0.3, 0.4, NAN], atol=1e-9)
    # what is at the limit, or nowhere, is not
    assert scores.are_bad(both).tolist() == [True, True, True, False]
    assert scores.are_bad({"2": 0.4}).tolist() == [True, True, False, False]


Scan = tuple[float, bool, int]


def risk(scans: list[Scan], t: float, of_bad: bool) -> tuple[Fraction, int]:
    """Mean over patients of the share of their scans, or bad scans, that are bad and not flagged;
    and their number."""
    losses = []
    for patient in {p for _, _, p in scans}:
        counted = [(s, bad) for s, bad, p in scans if p == patient and (bad or not of_bad)]
        if counted:
            # NaN is flagged
            losses.append(Fraction(sum(bad and s > t for s, bad in counted), len(counted)))
    return (sum(losses, Fraction(0)) / len(losses) if losses else Fraction(0)), len(losses)


def by_definition(scans: list[Scan], rate: Fraction, of_bad: bool) -> float:
    for t in sorted({-math.inf, *(s for s, _, _ in scans if not math.isnan(s))}):
        mean, n = risk(scans, t, of_bad)
        if Fraction(n, n + 1) * mean + Fraction(1, n + 1) <= rate:
            return t
    return math.nan


SCORES = st.sampled_from([-0.3, 0.0, 0.1, 0.25, 0.7, math.nan])  # few: there are ties
RATES = st.fractions(Fraction(1, 20), Fraction(19, 20), max_denominator=20)


@given(
    st.lists(st.tuples(SCORES, st.booleans(), st.integers(0, 7)), min_size=1, max_size=24),
    RATES,
    st.booleans(),
)
def test_the_smallest_threshold_is_that_of_the_definition(scans, rate, of_bad):
    score, bad, patient = map(np.array, zip(*scans))
    found = smallest_thresholds(score, bad, patient, float(rate), of_bad=of_bad)
    assert found == pytest.approx([by_definition(scans, rate, of_bad)], abs=0, nan_ok=True)


@given(
    st.lists(st.tuples(SCORES, st.booleans(), st.integers(0, 4)), min_size=1, max_size=12),
    st.lists(st.integers(0, 3), min_size=5, max_size=5),
    RATES,
)
def test_a_patient_who_is_drawn_twice_is_two_patients(scans, counts, rate):
    score, bad, patient = map(np.array, zip(*scans))
    copies = [(s, b, p + 5 * copy) for s, b, p in scans for copy in range(counts[p])]
    drawn = np.array([counts[: patient.max() + 1]])
    found = smallest_thresholds(score, bad, patient, float(rate), drawn=drawn)
    assert found == pytest.approx([by_definition(copies, rate, True)], abs=0, nan_ok=True)


def test_patients_are_counted_in_whole_numbers():
    """In floats 1 / 10 is more than 1 - 0.9, and 1 / 20 more than 1 - 0.95."""
    needed = {0.1: 9, 0.05: 19, 0.2: 4, 0.3: 3, 0.01: 99, 1 - 0.9: 9, 1 - 0.95: 19}
    assert {rate: patients_needed(rate) for rate in needed} == needed
    for rate, n in needed.items():
        few, enough = (
            smallest_thresholds(who / 8, who >= 0, who, rate)[0]
            for who in (np.arange(n - 1), np.arange(n))
        )
        assert math.isnan(few) and enough == (n - 1) / 8
