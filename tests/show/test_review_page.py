"""The page of a review list: which structures a row shows."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from nnunet_nacl.review.reasons import Thresholds
from nnunet_nacl.review.review_list import ReviewList
from nnunet_nacl.review.reviewed_case import FinishedCase
from nnunet_nacl.show.review_page import review_page
from tests.review.test_review_list import review
from tests.show.html_check import Page


def page_of(structures: int, quality=None, **known) -> str:
    row = review(dice=0.005, structures=structures, **known)
    names = {str(i): each.name for i, each in enumerate(row.structures)}
    thresholds = Thresholds.of({"": 0.0, f"s{structures - 1}": 1.0}, names)
    text = review_page(ReviewList("", {"a": FinishedCase(row)}, list(names.values()), ["p"], quality, thresholds))
    assert not Page(text).faults
    return text


def test_a_row_shows_the_structures_with_reasons_and_the_worst_and_the_rest_folds_open():
    text = page_of(9)
    [cell] = re.findall(r"<td[^>]*>(s0 .*?)</td>", text)
    shown, folded = cell.split("<details><summary>5 more structures</summary>")
    assert re.findall(r"s\d", shown) == ["s0", "s1", "s2", "s8"] and "s8 0.81, 2 ml" in shown
    assert re.findall(r"s\d", folded) == ["s3", "s4", "s5", "s6", "s7"]
    assert "<details>" not in (few := page_of(4)) and all(f">s{i}</th>" in few for i in range(4))


def test_scores_and_structures_of_which_nothing_is_said_are_named():
    quality = SimpleNamespace(complete=lambda row: row, judge=lambda findings, unit: findings, predicts_dice=True)
    text = page_of(2, quality, rank=0.125)
    assert ">score</th>" in text and 'data-value="0.125"' in text and "no better than a constant<" not in text
    text = page_of(2, quality, says_nothing=True)
    assert ">score</th>" not in text and text.count("predicted Dice no better than a constant<") == 2


@pytest.mark.parametrize(("structures", "first"), [(20, "s0"), (21, "1 s0")])
def test_numbers_tell_structures_apart_where_colours_repeat(structures, first):
    assert f'<span class="swatch s0"></span>{first}</li>' in page_of(structures)
