"""The list of cases: order and text."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_nacl.review.review_list import ReviewList
from nnunet_nacl.review.reviewed_case import FinishedCase
from nnunet_nacl.review.row import CaseReview, StructureReview, volume_text
from nnunet_nacl.runs.ensemble_members import member_names


def review(case="a", dice=0.5, largest=0.9, pieces=1, members=(2.0,), structures=1, **learned):
    rows = tuple(
        StructureReview(f"s{i}", dice + i / 10, math.nan, 2.0, 2.5, largest, pieces, 1.0, members, **learned)
        for i in range(structures)
    )
    return CaseReview(case, 0.7, 0.8, math.nan, "ml", rows, len(members))


def review_list(reviews, members=("p",), problems=None, quality=None, reasons=None) -> ReviewList:
    """Of cases, with why they need a look."""
    finished = {row.case: FinishedCase(row) for row in reviews}
    listed = ReviewList("", finished, (), members, quality, problems=problems or {})
    vars(listed).update(reasons=reasons or {row.case: [] for row in reviews})
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
    header, *rows = texts(reviews(**present), ["p"])[0]
    column = header.split(",").index("s0 present_probability")
    assert [line.split(",")[column] for line in rows] == ["0.6", "0.9", "0.1"]
    assert "present_probability" not in "".join(review_list(reviews()).csv_texts())


def texts(*args, **options) -> tuple[list[str], list[str]]:
    """Lines of review.csv and of review_details.csv, their cells as they are read."""
    review, details = (csv.reader(text.splitlines()) for text in review_list(*args, **options).csv_texts())
    return [",".join(row) for row in review], [",".join(row) for row in details]


def test_csv():
    lines, details = texts([review('a "b", c')], ["p"], {"d": "d.npz is missing"})
    assert lines == [
        "rank,case,flag,reasons,problem,s0 predicted_dice,s0 volume_ml",
        '1,a "b", c,no,,,0.5,2.0',
        ",d,,,d.npz is missing,,",
    ]
    assert details[0] == (
        "rank,case,empty,empty_structures,lowest_predicted_dice,mean_foreground_entropy,"
        "mean_foreground_confidence,mean_foreground_mutual_information,n_members,s0 members_dice,"
        "s0 predicted_volume_ml,s0 volume_sd_ml,s0 volume_min_ml,s0 volume_max_ml,s0 pieces,"
        "s0 largest_piece,s0 max_probability"
    )
    assert details[1] == '1,a "b", c,no,,0.5,0.7,0.8,,1,,2.5,,,,1,1.0,0.9'
    assert details[2] == ",d" + 15 * ","
    _, (header, row) = texts([review(members=(1.0, 3.0))], ["p", "q"])
    assert header.endswith("s0 pieces,s0 largest_piece,s0 max_probability,s0 volume_ml p,s0 volume_ml q")
    assert row.endswith(",2.5,1.41421,1.0,3.0,1,1.0,0.9,1.0,3.0")
    found, _ = texts([review("a"), review("b")], ["p"], reasons={"a": ["odd", "torn"], "b": []})
    assert found[0] == "rank,case,flag,reasons,problem,s0 predicted_dice,s0 volume_ml"
    assert found[1].startswith("1,a,yes,odd; torn,") and found[2].startswith("2,b,no,,")


def test_what_a_map_learned_stands_beside_the_numbers():
    known = {"dice_interval": (0.7, 0.9), "volume_interval": (1.5, 3.123456789), "present": 0.97}

    def complete(row):
        return replace(row, structures=tuple(replace(structure, **known) for structure in row.structures))

    quality = SimpleNamespace(complete=complete)
    (header, row), (more, values) = texts([review()], ["p"], quality=quality, reasons={"a": []})
    assert header == (
        "rank,case,flag,reasons,problem,s0 predicted_dice,s0 predicted_dice_low,s0 predicted_dice_high,"
        "s0 volume_ml,s0 predicted_volume_low_ml,s0 predicted_volume_high_ml,s0 present_probability"
    )
    assert row == "1,a,no,,,0.5,0.7,0.9,2.0,1.5,3.12346,0.97"
    found = dict(zip(more.split(","), values.split(",")))
    assert (found["lowest_predicted_dice"], found["s0 predicted_volume_ml"]) == ("0.5", "2.5")


def test_members_are_named_by_what_differs(tmp_path):
    folders = [Path(tmp_path, model, "fold_0", "validation") for model in ("A__p__2d", "B__p__2d")]
    assert member_names(folders) == ["A", "B"]
    assert member_names([tmp_path / f"A__p__{c}" / "fold_0" / "validation" for c in ("2d", "3d")]) == ["2d", "3d"]
    assert member_names([tmp_path / "A__p" / "fold_0", tmp_path / "B__p" / "fold_1"]) == ["A__p/fold_0", "B__p/fold_1"]
    assert member_names([tmp_path / "A", tmp_path / "A__p"]) == ["A", "p"]
    assert member_names([tmp_path / fold / "validation" for fold in ("fold_0", "fold_1")]) == ["fold_0", "fold_1"]
    assert member_names([tmp_path / "p0", tmp_path / "p1"]) == ["p0", "p1"]
    assert member_names([tmp_path / "p0"]) == ["p0"]
    assert member_names([tmp_path / "p0", tmp_path / "p0" / "more"]) == ["p0", "more"]
    nested = [tmp_path / "p0", tmp_path / "p0" / "p0"]
    assert member_names(nested) == [str(folder.resolve()) for folder in nested]


@pytest.mark.parametrize(
    ("value", "text"), [(1041.2, "1040"), (12345.0, "12300"), (0.25, "0.25"), (0.0001234, "0.000123"), (0.0, "0")]
)
def test_volumes_are_never_powers_of_ten(value, text):
    assert volume_text(value) == text
