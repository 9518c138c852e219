"""Scores of structures and scans by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.estimators.scan_scores import ScanScores, structure_score
from nnunet_nacl.utilities.json_files import decode, encode

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
    found = float(structure_score(dice, present, always))
    assert found == pytest.approx(score, abs=1e-9, nan_ok=True)


@pytest.fixture
def four_scans() -> ScanScores:
    """Four scans of three patients with an organ, which all have, and a lesion; read from JSON."""
    organ = structure_score([0.9, 0.8, NAN, 0.7], NAN, True)
    lesion = structure_score([0.6, NAN, NAN, NAN], [0.5, 0.9, 0.2, NAN], False)
    scores = ScanScores(
        score={"1": organ.tolist(), "2": lesion.tolist()},
        dice={"1": [0.95, 0.5, 0.0, 0.7], "2": [0.3, 0.0, NAN, NAN]},
        entropy=[0.0] * 4,
        patient=np.array([0, 1, 0, 2]),
        always=["1"],
    )
    return decode(ScanScores, encode(scores), "map.json")


def test_a_file_keeps_the_patients(four_scans):
    assert four_scans.patient.tolist() == [0, 1, 0, 2]


def test_the_worst_structure_that_counts_is_that_of_the_scan(four_scans):
    both = {"1": 0.7, "2": 0.4}  # 0.9 - 0.7 and 0.6 - 0.4; 0.8 - 0.7 and 0.1 - 0.4; ...
    np.testing.assert_allclose(four_scans.score_scans(both), [0.2, -0.3, -0.7, 0.0], atol=1e-9)
    lesion = {"2": 0.4}
    np.testing.assert_allclose(four_scans.score_scans(lesion), [0.2, -0.3, 0.4, NAN], atol=1e-9)


def test_a_scan_with_a_dice_below_a_limit_is_bad(four_scans):
    # what is at the limit, or nowhere, is not
    assert four_scans.are_bad({"1": 0.7, "2": 0.4}).tolist() == [True, True, True, False]
    assert four_scans.are_bad({"2": 0.4}).tolist() == [True, True, False, False]
