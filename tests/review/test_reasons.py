"""From one case's numbers to what a person is told: where to look, and why."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.numbers.flags import Flags
from nnunet_nacl.numbers.voxel_uncertainty import confidence, least_certain_place
from nnunet_nacl.review.reasons import reasons_to_look
from nnunet_nacl.review.row import CaseReview, StructureReview


def test_the_least_certain_place_is_a_blob_and_no_border() -> None:
    """A border of undecided voxels loses against a block that is a little less unsure, but throughout."""
    doubt = np.full((20, 20, 20), 0.01)
    doubt[:, 10] = 0.5  # one voxel of five across the block
    doubt[5:10, 15:20, 0:5] = 0.3
    doubt[7, 16, 3] = 0.35
    probs = np.stack([1 - doubt, 0.2 * doubt, 0.8 * doubt])
    assert confidence(probs) == pytest.approx(1 - doubt)
    place = least_certain_place(doubt, lambda box: probs[(slice(None), *box)], (1, 2), (1.0, 1.0, 1.0))
    assert (place.index, place.channel) == ((7, 16, 3), 2)
    regions = np.stack([0.2 * doubt, doubt])
    assert least_certain_place(doubt, lambda box: regions[(slice(None), *box)], (0, 1), (1.0, 1.0, 1.0)).channel == 1


def row(name="liver", dice=0.8, members=math.nan, pieces=1, largest=1.0, volumes=(2.0,), **learned) -> StructureReview:
    return StructureReview(name, dice, members, 2.0, 2.5, 0.3, pieces, largest, volumes, **learned)


def review(*structures: StructureReview) -> CaseReview:
    return CaseReview("case", 0.7, 0.8, math.nan, "ml", structures, len(structures[0].member_volumes))


def at(threshold: float | None, why_not: str = "") -> Flags:
    return Flags({"liver": 0.7}, 0.9, None, threshold, 40, 20, 0.5, 0.9, 0.6, why_not)


def looked(*arguments) -> list[str]:
    return list(reasons_to_look(*arguments))


def test_each_reason_is_named_with_its_numbers_and_nothing_is_no_reason() -> None:
    fine = review(row(dice=0.75, dice_interval=(0.6, 0.9)), row("spleen", 0.85))
    assert looked(fine, None, ()) == looked(fine, at(0.7499), ()) == looked(fine, at(0.8, "too few"), ()) == []
    assert looked(fine, at(0.75), ["odd"]) == ["low score: liver 0.75 (0.60 to 0.90) may be bad", "odd"]
    each = review(row(dice=0.75, bad=0.3), row("spleen", 0.85, bad=0.9), row("colon", 0.1, bad=math.nan))
    assert each.score == 0.85 - 0.9 and looked(each, at(0.0), ()) == ["low score: spleen 0.85 may be bad"]
    disputed = review(row(members=0.69, volumes=(1.0, 3.0)), row("kidneys", members=0.71, volumes=(1.0, 1.0)))
    assert looked(disputed, None, ()) == ["folds disagree on liver (Dice 0.69, 1 to 3 ml)"]
    broken = review(row(pieces=3, largest=0.4), row("kidneys", pieces=2, largest=0.5))
    assert looked(broken, None, ()) == ["liver is in 3 pieces, the largest holds 40 %"]
    assert looked(broken, None, (), ["liver"]) == []  # its pieces are findings
    absent = [row(f"s{i}", math.nan, pieces=0, largest=math.nan) for i in range(7)]
    assert looked(review(row(), *absent), None, ()) == ["empty: s0, s1, s2, s3, s4 and 2 more"]
    assert looked(review(*absent), None, ["odd"]) == [
        "nothing was segmented (largest probability 0.30, of s0)",
        "odd",
    ]


def test_each_reason_names_its_structures_and_beyond_five_one_stands_for_all() -> None:
    torn = [row(f"s{i}", pieces=3, largest=0.4) for i in range(7)]
    gone = row("gone", math.nan, pieces=0, largest=math.nan)
    reasons = reasons_to_look(review(row("liver", 0.7), gone, *torn), at(0.75), ["odd"])
    assert list(reasons.items())[:2] == [
        ("low score: liver 0.70 may be bad", ["liver"]),
        ("empty: gone", ["gone"]),
    ]
    assert [*reasons.values()][2:] == [["s0"], ["s1"], ["s2"], ["s3"], ["s4"], ["s5", "s6"], []]
    assert [*reasons][-2:] == ["2 more structures likewise", "odd"]


def test_a_scan_is_flagged_by_its_score() -> None:
    missed = row("infarct", math.nan, pieces=0, largest=math.nan, present=0.75)
    scan = review(
        row(), row("spleen", 0.9, present=0.5, dice_interval=(0.5, 0.7)), missed, row("gut", says_nothing=True)
    )
    assert [(s.name, s.score) for s in scan.worst_first[:3]] == [("infarct", 0.25), ("spleen", 0.45), ("liver", 0.8)]
    assert scan.worst_first[3].name == "gut" and math.isnan(scan.worst_first[3].score)
    by_score, *others = reasons_to_look(scan, at(0.45), ()).items()
    names = ["infarct", "spleen"]
    assert by_score == ("low score: infarct (not segmented), spleen 0.90 (0.50 to 0.70) may be bad", names)
    assert others == [("infarct was not segmented, but is probably there (0.75)", ["infarct"])]
    assert list(reasons_to_look(scan, at(None), ()).items()) == others


def test_a_scan_without_a_score_is_flagged_whatever_the_threshold() -> None:
    unknown = review(row(says_nothing=True), row("spleen", bad=math.nan))
    assert looked(unknown, at(None), ()) == looked(unknown, at(0.5), ()) == ["low score: nothing tells how good it is"]
    assert looked(unknown, at(None, "too few"), ()) == looked(unknown, None, ()) == []


def test_what_is_probably_there_decides_whether_absence_is_a_reason() -> None:
    gone = row("lesion", math.nan, pieces=0, largest=math.nan)

    def reasons(*structures, present):
        known = (replace(structure, present=p) for structure, p in zip(structures, present))
        return looked(review(*known), None, ())

    assert reasons(row(), gone, present=(math.nan, 0.1)) == []  # a healthy one
    assert reasons(row(), gone, present=(math.nan, 0.5)) == ["lesion was not segmented, but is probably there (0.50)"]
    assert reasons(row(), row("lesion"), present=(math.nan, 0.3)) == ["lesion is probably not there (0.30)"]
    assert reasons(row(), row("lesion"), present=(math.nan, 0.7)) == []
    assert reasons(row(), gone, present=(math.nan, math.nan)) == ["empty: lesion"]
    assert reasons(gone, present=(0.2,)) == []  # nothing was segmented, and nothing is to be expected
    assert reasons(gone, gone, present=(0.2, math.nan))[0].startswith("nothing was segmented")
