"""Thresholds of conformal risk control, by the definition."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_nacl.estimators.risk_control import patients_needed, smallest_thresholds


class Scan(NamedTuple):
    score: float
    is_bad: bool
    patient: int


def loss_of_patient(
    scans: list[Scan], patient: int, threshold: float, of_bad: bool
) -> Fraction | None:
    """Share of the scans, or bad scans, of a patient that are bad and not flagged; None of none."""
    lost = 0
    counted = 0
    for scan in scans:
        if scan.patient == patient and (scan.is_bad or not of_bad):
            counted += 1
            lost += scan.is_bad and scan.score > threshold  # NaN is flagged
    return Fraction(lost, counted) if counted else None


def threshold_by_definition(scans: list[Scan], rate: Fraction, of_bad: bool) -> float:
    scores = {scan.score for scan in scans if not math.isnan(scan.score)}
    patients = {scan.patient for scan in scans}
    for threshold in sorted({-math.inf, *scores}):
        losses = [loss_of_patient(scans, patient, threshold, of_bad) for patient in patients]
        known = [loss for loss in losses if loss is not None]
        if (sum(known, Fraction(0)) + 1) / (len(known) + 1) <= rate:
            return threshold
    return math.nan


SCORES = st.sampled_from([-0.3, 0.0, 0.1, 0.25, 0.7, math.nan])  # few: there are ties
RATES = st.fractions(Fraction(1, 20), Fraction(19, 20), max_denominator=20)


@given(
    st.lists(st.builds(Scan, SCORES, st.booleans(), st.integers(0, 7)), min_size=1, max_size=24),
    RATES,
    st.booleans(),
)
def test_the_smallest_threshold_is_that_of_the_definition(scans, rate, of_bad):
    score, bad, patient = map(np.array, zip(*scans))
    found = smallest_thresholds(score, bad, patient, float(rate), of_bad=of_bad)
    expected = threshold_by_definition(scans, rate, of_bad)
    assert found == pytest.approx([expected], abs=0, nan_ok=True)


@given(
    st.lists(st.builds(Scan, SCORES, st.booleans(), st.integers(0, 4)), min_size=1, max_size=12),
    st.lists(st.integers(0, 3), min_size=5, max_size=5),
    RATES,
)
def test_a_patient_who_is_drawn_twice_is_two_patients(scans, counts, rate):
    score, bad, patient = map(np.array, zip(*scans))
    copies = []
    for scan in scans:
        for copy in range(counts[scan.patient]):
            copies.append(scan._replace(patient=scan.patient + 5 * copy))
    drawn = np.array([counts[: patient.max() + 1]])
    found = smallest_thresholds(score, bad, patient, float(rate), drawn=drawn)
    expected = threshold_by_definition(copies, rate, of_bad=True)
    assert found == pytest.approx([expected], abs=0, nan_ok=True)


@pytest.mark.parametrize(
    ("rate", "needed"),
    # in floats 1 / 10 is more than 1 - 0.9, and 1 / 20 more than 1 - 0.95
    [(0.1, 9), (0.05, 19), (0.2, 4), (0.3, 3), (0.01, 99), (1 - 0.9, 9), (1 - 0.95, 19)],
)
def test_patients_are_counted_in_whole_numbers(rate, needed):
    def threshold_of_patients(n: int) -> float:
        patient = np.arange(n)
        return smallest_thresholds(patient / 8, np.ones(n, bool), patient, rate)[0]

    assert patients_needed(rate) == needed
    assert threshold_of_patients(needed) == (needed - 1) / 8
    assert math.isnan(threshold_of_patients(needed - 1))
