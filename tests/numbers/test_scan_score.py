"""What Dice a scan can expect, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.numbers.scan_score import ScanScores, structure_score

NAN = math.nan


@pytest.mark.parametrize(
    ("dice", "present", "always", "says_nothing", "score"),
    [
        (0.8, 0.75, False, False, 0.6),  # if it is absent, its Dice is 0
        (0.8, NAN, False, False, 0.8),  # nobody knows which scans have it
        (0.8, NAN, True, False, 0.8),
        (NAN, 0.75, False, False, 0.25),  # the Dice of what is missed is 0
        (NAN, NAN, True, False, 0.0),  # all scans have it
        (NAN, NAN, False, False, NAN),
        (0.8, NAN, True, True, NAN),  # a constant would be as near
        (0.8, NAN, False, True, NAN),
        (0.8, 0.75, False, True, 0.75),
        (NAN, 0.75, False, True, 0.25),  # what says nothing of Dice may know what is there
        (0.123456, NAN, True, False, 0.1235),
    ],
)
def test_the_score_of_a_structure(dice, present, always, says_nothing, score):
    assert float(structure_score(dice, present, always, says_nothing)) == pytest.approx(score, abs=1e-9, nan_ok=True)


def learned() -> ScanScores:
    """Of four scans of three patients with an organ, which all have, and a lesion."""
    predicted = {"1": np.array([0.9, 0.8, NAN, 0.7]), "2": np.array([0.6, NAN, NAN, NAN])}
    present = {"1": np.full(4, NAN), "2": np.array([0.5, 0.9, 0.2, NAN])}
    dice = {"1": np.array([0.95, 0.5, 0.0, 0.7]), "2": np.array([0.3, 0.0, NAN, NAN])}
    return ScanScores.learn(predicted, present, dice, np.zeros(4), ["b", "a", "b", "c"], ["1"], [])


def test_the_worst_structure_that_counts_is_that_of_the_scan():
    scores = decode(ScanScores, encode(learned()), "map.json")
    assert scores.patient.tolist() == [0, 1, 0, 2]
    both = {"1": 0.7, "2": 0.4}  # 0.9 - 0.7 and 0.5 * 0.6 - 0.4; 0.8 - 0.7 and 0.1 - 0.4; ...
    np.testing.assert_allclose(scores.of_scans(both), [-0.1, -0.3, -0.7, 0.0], atol=1e-9)
    np.testing.assert_allclose(scores.of_scans({"2": 0.4}), [-0.1, -0.3, 0.4, NAN], atol=1e-9)
    assert scores.are_bad(both).tolist() == [True, True, True, False]  # what is at the limit, or nowhere, is not
    assert scores.are_bad({"2": 0.4}).tolist() == [True, True, False, False]


@pytest.mark.parametrize("change", [{"patient": [0, 1, 0]}, {"always": ["3"]}, {"dice": {"1": [0.5] * 4}}])
def test_damaged_json_is_named(change):
    with pytest.raises(UserError, match="map.json.*same structures and scans"):
        decode(ScanScores, encode(learned()) | change, "map.json")
