"""The list of cases: order and text."""

from __future__ import annotations

import csv
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_nacl.numbers.flags import Flags
from nnunet_nacl.review.review_list import REVIEW, SCANS, STRUCTURES, ReviewList
from nnunet_nacl.review.reviewed_case import FinishedCase
from nnunet_nacl.review.row import CaseReview, StructureReview, volume_text


def review(case="a", dice=0.5, largest=0.9, pieces=1, members=(2.0,), structures=1, **learned):
    rows = tuple(
        StructureReview(f"s{i}", dice + i / 10, math.nan, 2.0, 2.5, largest, pieces, 1.0, members, **learned)
        for i in range(structures)
    )
    return CaseReview(case, 0.7, 0.8, math.nan, "ml", rows, len(members))


def review_list(reviews, members=("p",), problems=None, quality=None, reasons=None, flags=None, also=0) -> ReviewList:
    """Of cases, with why they need a look."""
    finished = {row.case: FinishedCase(row) for row in reviews}
    listed = ReviewList("", finished, (), members, quality, flags, problems=problems or {}, also=also)
    vars(listed).update(reasons=reasons or {row.case: {} for row in reviews})
    return listed


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.floats(0, 1)), max_size=12))
def test_empty_predictions_first_then_rising_predicted_dice(cases):
    reviews = [
        review(f"{i:02}", math.nan if empty else dice, largest=largest, pieces=0 if empty else 1, structures=2)
        for i, (dice, empty, largest) in enumerate(cases)
    ]
    ordered = review_list(reviews).rows
    assert sorted(r.case for r in ordered) == sorted(r.case for r in reviews)
    n_empty = sum(r.empty for r in reviews)
    assert all(r.empty for r in ordered[:n_empty])
    dice = [r.structures[0].predicted_dice for r in ordered[n_empty:]]
    assert dice == sorted(dice)
    nearness = [r.structures[0].max_probability for r in ordered[:n_empty]]
    assert nearness == sorted(nearness, reverse=True)


def test_empty_predictions_of_scans_without_anything_come_last():
    present = {"seen": 0.9, "missed": 0.6, "healthy": 0.1}

    def reviews(**known):
        dice = {"seen": {"dice": 0.9}}
        return [
            review(case, **dice.get(case, {"dice": math.nan, "pieces": 0}), present=known.get(case, math.nan))
            for case in present
        ]

    assert [r.case for r in review_list(reviews(**present)).rows] == ["missed", "seen", "healthy"]
    assert [r.case for r in review_list(reviews()).rows] == ["healthy", "missed", "seen"]
    found = tables(reviews(**present))[STRUCTURES]
    assert [row["present_probability"] for row in found] == ["0.6", "0.9", "0.1"]


def test_the_lowest_score_comes_first_whatever_the_dice():
    known = {"usual": (0.8, 0.9), "odd": (0.9, 0.02), "odder": (0.95, 0.01), "nothing known": (0.99, math.nan)}
    rows = [review(case, dice, present=p, says_nothing=math.isnan(p)) for case, (dice, p) in known.items()]
    rows.append(review("missed", math.nan, pieces=0, present=0.5))
    listed = review_list(rows)
    assert [row.case for row in listed.rows] == ["nothing known", "odder", "odd", "missed", "usual"] and listed.scored
    found = tables(rows)[REVIEW]
    assert [row["score"] for row in found] == ["", "0.0095", "0.018", "0.5", "0.72"]
    assert [row["worst_structure"] for row in found] == ["s0"] * 5  # what was missed too
    assert review_list(rows[-1:]).scored and not review_list(rows[-2:-1]).scored
    assert not review_list([review("a", 0.12344, always=True)]).scored  # a score is rounded


def quality(why_not: str = ""):
    """A map that adds nothing to a row."""
    learned = SimpleNamespace(as_deployed=True)
    known = {"why_no_flags": why_not, "learned": learned, "record": SimpleNamespace(names={}), "torn": ()}
    known |= {"of_map": SimpleNamespace(profiles=None, unit="ml")}
    as_they_are = {"complete": lambda row, bad: row, "compare": lambda row, profile, level: row}
    return SimpleNamespace(**as_they_are, **known)


def test_the_first_sentence_says_how_many_are_flagged_by_what_and_to_which_end():
    reasons = {"a": {"low score: s0 0.50 may be bad": ["s0"], "odd": []}, "b": {"odd": []}, "c": {}}

    def said(n: int = 3, **keywords) -> str:
        cases = list(reasons)[:n]
        listed = review_list([*map(review, cases)], reasons={case: reasons[case] for case in cases}, **keywords)
        return listed.summary

    assert said() == "2 of 3 scans are flagged."
    assert said(quality=quality("too old.")) == f"{said()} Scans cannot be flagged by a score: too old."
    how = "-bad 0.7 flags those whose Dice may be below 0.7, such that 9 of 10 bad ones are found."
    assert said(1, quality=quality()) == f"1 of 1 scan is flagged. {how}"
    aim = Flags({"s0": 0.7}, 0.9, None, 0.1, 40, 20, 0.5, 0.95, 0.6)
    assert said(flags=aim) == f"2 of 3 scans are flagged. {aim.aim} 1 is flagged for other reasons alone."
    assert said(1, flags=aim) == f"1 of 1 scan is flagged. {aim.aim}"
    ranked = Flags({"s0": 0.7}, 0.9, None, None, 40, 3, 0.1, 0.0, 0.0, "too few")
    assert said(flags=ranked) == f"2 of 3 scans are flagged. {ranked.aim}" and "too few" in ranked.aim


def tables(reviews, *args, **options) -> dict[str, list[dict[str, str]]]:
    """Rows of the tables by their names."""
    texts = review_list(reviews, *args, **options).csv_texts()
    return {name: list(csv.DictReader(text.splitlines())) for name, text in texts.items()}


REVIEW_COLUMNS = [
    *("rank", "case", "flag", "reasons", "n_structures_with_reasons", "score", "worst_structure"),
    *("predicted_dice", "predicted_dice_low", "predicted_dice_high", "problem"),
]


@pytest.mark.parametrize("structures", [1, 118])
def test_a_scan_has_one_row_of_the_same_columns_whatever_its_structures(structures):
    known = {"dice_interval": (0.4, 0.7), "present": 0.5, "bad": 0.25}
    reviews = [review('a "b", c', 0.1, structures=structures, **known), review("b", structures=structures)]
    reasons = {'a "b", c': {"odd": ["s0"], "torn": ["s0", "s1"]}, "b": {}}
    found = tables(reviews, ["p"], {"d": "d.npz is missing"}, reasons=reasons)
    assert all(list(row) == REVIEW_COLUMNS for row in found[REVIEW])
    assert [list(row.values()) for row in found[REVIEW]] == [
        ["1", 'a "b", c', "yes", "odd; torn", "2", "-0.2", "s0", "0.1", "0.4", "0.7", ""],
        ["2", "b", "no", "", "0", "0.5", "s0", "0.5", "", "", ""],
        ["", "d", "", "", "", "", "", "", "", "", "d.npz is missing"],
    ]
    assert [row["case"] for row in found[SCANS]] == ['a "b", c', "b"] and len(found[SCANS][0]) == 11
    assert [(row["case"], row["structure"]) for row in found[STRUCTURES]] == [
        (row.case, f"s{i}") for row in reviews for i in range(structures)
    ]


def test_all_that_is_known_of_a_structure_stands_in_its_row():
    known = {"dice_interval": (0.7, 0.9), "volume_interval": (1.5, 3.123456789), "present": 0.97, "bad": 0.25}
    [row] = tables([review(members=(1.0, 3.0), **known)], ["p", "q"])[STRUCTURES]
    assert row == {
        **{"case": "a", "structure": "s0", "predicted_dice": "0.5", "predicted_dice_low": "0.7"},
        **{"predicted_dice_high": "0.9", "score": "0.235", "no_better_than_constant": "", "volume_ml": "2.0"},
        **{"predicted_volume_ml": "2.5", "predicted_volume_low_ml": "1.5", "predicted_volume_high_ml": "3.12346"},
        **{"present_probability": "0.97", "members_dice": "", "volume_sd_ml": "1.41421", "volume_min_ml": "1.0"},
        **{"volume_max_ml": "3.0", "pieces": "1", "largest_piece": "1.0", "max_probability": "0.9"},
        **{"volume_ml p": "1.0", "volume_ml q": "3.0"},
    }


@pytest.mark.parametrize(
    ("value", "text"), [(1041.2, "1040"), (12345.0, "12300"), (0.25, "0.25"), (0.0001234, "0.000123"), (0.0, "0")]
)
def test_volumes_are_never_powers_of_ten(value, text):
    assert volume_text(value) == text


def test_scans_drawn_by_chance_are_named_and_not_flagged():
    reasons = {f"{i:02}": {"odd": []} if i < 4 else {} for i in range(20)}

    def drawn(also: int, cases) -> list[str]:
        return review_list(map(review, cases), reasons={case: reasons[case] for case in cases}, also=also).drawn

    five = drawn(5, [*reasons])
    assert len(five) == 5 and not {case for case in five if reasons[case]} and drawn(5, [*reversed(reasons)]) == five
    assert set(drawn(6, [*reasons])) > set(five) and drawn(0, [*reasons]) == []
    assert drawn(50, [*reasons]) == [case for case, why in reasons.items() if not why]  # no more than there are
    listed = review_list(map(review, reasons), reasons=reasons, also=5)
    rows = {row["case"]: row for row in csv.DictReader(listed.csv_texts()[REVIEW].splitlines())}
    assert {case for case, row in rows.items() if row["reasons"] == "drawn by chance"} == set(five)
    assert listed.n_to_look_at == 4 and {rows[case]["flag"] for case in five} == {"no"}
