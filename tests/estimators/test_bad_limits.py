"""How the Dice below which a structure is bad may be given."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.estimators.bad_limits import check_share, read_bad
from nnunet_nacl.utilities.errors import UserError

STRUCTURES = {"1": "LV cavity", "3": "infarct"}


@pytest.mark.parametrize(
    ("given", "count", "limits"),
    [
        (["infarct=0.5"], None, {"3": 0.5}),  # the others do not count
        (["3=0.5", "LV cavity=1"], None, {"1": 1.0, "3": 0.5}),
        (["0.7"], ["infarct", "3"], {"3": 0.7}),
        (np.float32(0.5), None, {"1": 0.5, "3": 0.5}),  # from Python
        ({"infarct": np.float16(0.5), "1": 1}, None, {"1": 1.0, "3": 0.5}),
        (None, None, None),
        ("3=0.5", None, {"3": 0.5}),
    ],
)
def test_one_for_all_or_by_name_or_label(given, count, limits):
    assert read_bad(given, STRUCTURES, count) == limits


@pytest.mark.parametrize(
    ("given", "count", "message"),
    [
        (
            ["liver=0.5"],
            None,
            r"bad liver: there is no such structure; there are LV cavity \(1\), infarct \(3\)\.",
        ),
        (
            ["infarct"],
            None,
            "bad infarct: a Dice is expected, such as 0.7, or STRUCTURE=DICE, such as Infarct=0.5.",
        ),
        (["=0.5"], None, "bad =0.5: a Dice is expected"),
        (["infarct=0.7", "3=0.6"], None, "bad: infarct cannot have two values, 0.7 and 0.6."),
        ([0.7], None, r"bad is a Dice, such as 0.7, or by structure, .* got \[0.7\]"),
        ({"infarct": "0.7"}, None, "bad infarct: a Dice is expected, such as 0.7, got '0.7'."),
        (
            ["infarct=0.7"],
            ["LV cavity"],
            "structures LV cavity: bad does not say below which Dice it is bad.",
        ),
    ],
)
def test_what_is_no_dice_of_a_structure_is_refused(given, count, message):
    with pytest.raises(UserError, match=message):
        read_bad(given, STRUCTURES, count)


@pytest.mark.parametrize("share", [1.0, math.nan])
def test_a_share_lies_between_0_and_1_and_may_be_left_out(share):
    with pytest.raises(UserError, match=f"find is a share, above 0 and below 1, got {share:g}."):
        check_share(share, "find")
    assert check_share(None, "find") is None
    assert check_share(0.5, "miss") == 0.5
