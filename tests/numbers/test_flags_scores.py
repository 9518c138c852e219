"""Scores by hand; thresholds: the definition in slow fractions, and what is found on average."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.numbers.flags import ScanScores, patients_needed, smallest_thresholds, structure_score

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
    assert float(structure_score(dice, present, always)) == pytest.approx(score, abs=1e-9, nan_ok=True)


def learned() -> ScanScores:
    """Of four scans of three patients with an organ, which all have, and a lesion."""
    organ = structure_score([0.9, 0.8, NAN, 0.7], NAN, True).tolist()
    lesion = structure_score([0.6, NAN, NAN, NAN], [0.5, 0.9, 0.2, NAN], False).tolist()
    dice = {"1": [0.95, 0.5, 0.0, 0.7], "2": [0.3, 0.0, NAN, NAN]}
    return ScanScores({"1": organ, "2": lesion}, dice, [0.0] * 4, np.array([0, 1, 0, 2]), ["1"])


def test_the_worst_structure_that_counts_is_that_of_the_scan():
    scores = decode(ScanScores, encode(learned()), "map.json")
    assert scores.patient.tolist() == [0, 1, 0, 2]
    both = {"1": 0.7, "2": 0.4}  # 0.9 - 0.7 and 0.6 - 0.4; 0.8 - 0.7 and 0.1 - 0.4; ...
    np.testing.assert_allclose(scores.of_scans(both), [0.2, -0.3, -0.7, 0.0], atol=1e-9)
    np.testing.assert_allclose(scores.of_scans({"2": 0.4}), [0.2, -0.3, 0.4, NAN], atol=1e-9)
    assert scores.are_bad(both).tolist() == [True, True, True, False]  # what is at the limit, or nowhere, is not
    assert scores.are_bad({"2": 0.4}).tolist() == [True, True, False, False]


Scan = tuple[float, bool, int]


def risk(scans: list[Scan], t: float, of_bad: bool) -> tuple[Fraction, int]:
    """Mean over patients of the share of their scans, or bad scans, that are bad and not flagged; and their number."""
    losses = []
    for patient in {p for _, _, p in scans}:
        counted = [(s, bad) for s, bad, p in scans if p == patient and (bad or not of_bad)]
        if counted:
            losses.append(Fraction(sum(bad and s > t for s, bad in counted), len(counted)))  # NaN is flagged
    return (sum(losses, Fraction(0)) / len(losses) if losses else Fraction(0)), len(losses)


def by_definition(scans: list[Scan], rate: Fraction, of_bad: bool) -> float:
    for t in sorted({-math.inf, *(s for s, _, _ in scans if not math.isnan(s))}):
        mean, n = risk(scans, t, of_bad)
        if Fraction(n, n + 1) * mean + Fraction(1, n + 1) <= rate:
            return t
    return math.nan


SCORES = st.sampled_from([-0.3, 0.0, 0.1, 0.25, 0.7, math.nan])  # few: there are ties
RATES = st.fractions(Fraction(1, 20), Fraction(19, 20), max_denominator=20)


@given(st.lists(st.tuples(SCORES, st.booleans(), st.integers(0, 7)), min_size=1, max_size=24), RATES, st.booleans())
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
        few, enough = (smallest_thresholds(who / 8, who >= 0, who, rate)[0] for who in (np.arange(n - 1), np.arange(n)))
        assert math.isnan(few) and enough == (n - 1) / 8
