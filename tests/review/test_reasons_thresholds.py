"""Below which Dice a structure needs a look: one number, numbers by structure, or what a map's cases showed."""

from __future__ import annotations

import math

import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.review.reasons import DiceThresholds, parse_thresholds

STRUCTURES = {"1": "LV cavity", "3": "infarct"}


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        ([], (0.8, 0.25)),  # what the map says, and 0.8 where it does not
        (["0.7"], (0.7, 0.7)),
        (["infarct=0.5"], (0.8, 0.5)),
        (["3=0.5", "LV cavity=1"], (1.0, 0.5)),
        (["0.7", "infarct=0"], (0.7, 0.0)),
    ],
)
def test_one_for_all_or_by_name_or_label(texts, values):
    found = DiceThresholds.of(parse_thresholds(texts), STRUCTURES, {"1": math.nan, "3": 0.25})
    assert found.values == values and found.to_json() == dict(zip(STRUCTURES.values(), values))


def test_it_is_put_into_words():
    assert DiceThresholds.of(0.7, STRUCTURES).explanation == "A predicted Dice below 0.7 is a reason to look"
    usual = DiceThresholds.of({}, STRUCTURES, {"1": 0.75, "3": 0.1234})
    assert usual.explanation == (
        "A predicted Dice that nine in ten held-out cases exceeded is a reason to look (LV cavity 0.75, infarct 0.123)"
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["liver=0.5"], r"liver=0.5: there is no such structure; there are LV cavity \(1\), infarct \(3\)"),
        (["infarct"], "STRUCTURE=DICE, such as Infarct=0.5"),
        (["80"], "from 0 to 1, got 80"),
        (["infarct=nan"], "from 0 to 1, got nan"),
    ],
)
def test_what_is_no_threshold_is_refused(texts, message):
    with pytest.raises(UserError, match=message):
        DiceThresholds.of(parse_thresholds(texts), STRUCTURES)
