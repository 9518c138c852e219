"""From one case's numbers to what a person is told: where to look, and why."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.case.record import table
from nnunet_nacl.numbers.flags import Flags
from nnunet_nacl.numbers.voxel_uncertainty import confidence, least_certain_place
from nnunet_nacl.review.reasons import reasons_to_look, worst_first
from nnunet_nacl.review.review_list import completed
from tests.review.records import quality, record, structure

GONE = {"dice": math.nan, "pieces": 0, "largest_piece": math.nan}


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


def at(threshold: float | None, why_not: str = "", **bad: float) -> Flags:
    return Flags(bad, 0.9, None, threshold, 40, 20, 0.5, 0.9, 0.6, why_not)


def scan(*structures, flags=None, **learned):
    """The completed rows of a scan."""
    known = quality(**learned) if learned else None
    return completed(table([record("case", *structures)]), known, flags.bad if flags else None)


def reasons(*structures, flags=None, differences=(), listed=(), **learned) -> dict[str, list[str]]:
    return reasons_to_look(scan(*structures, flags=flags, **learned), flags, "", differences, listed)


def looked(*structures, **options) -> list[str]:
    return list(reasons(*structures, **options))


def test_each_reason_is_named_with_its_numbers_and_nothing_is_no_reason() -> None:
    fine, all_count = (structure(0.75), structure(0.85)), {"s0": 0.0, "s1": 0.0}
    for flags in (None, at(0.7499, **all_count), at(0.8, "too few", **all_count)):
        assert looked(*fine, flags=flags, dice=(0.6, 0.9)) == []
    low = looked(*fine, flags=at(0.75, **all_count), differences=["odd"], dice=(0.6, 0.9))
    assert low == ["low score: s0 0.75 (0.60 to 0.90) may be bad", "odd"]
    limits = at(0.0, s0=0.3, s1=0.9)  # s2 does not count
    assert looked(*fine, structure(0.1), flags=limits) == ["low score: s1 0.85 may be bad"]
    disputed = structure(members_dice=0.69, members=(1.0, 3.0)), structure(members_dice=0.71, members=(1.0, 1.0))
    assert looked(*disputed) == ["folds disagree on s0 (Dice 0.69, 1 to 3 ml)"]
    broken = structure(pieces=3, largest_piece=0.4), structure(pieces=2, largest_piece=0.5)
    assert looked(*broken) == ["s0 is in 3 pieces, the largest holds 40 %"]
    assert looked(*broken, listed=["s0"]) == []  # its pieces are findings
    absent = [structure(**GONE, largest=0.3)] * 7
    assert looked(structure(), *absent) == ["empty: s1, s2, s3, s4, s5 and 2 more"]
    assert looked(*absent, differences=["odd"]) == ["nothing was segmented (largest probability 0.30, of s0)", "odd"]
    assert [*reasons_to_look(scan(*fine), None, "unlike: odd", ["new"])] == ["unlike: odd", "new"]


def test_a_scan_is_flagged_by_its_score() -> None:
    structures = structure(0.8), structure(0.9), structure(**GONE), structure(0.8)
    known = {"present": {"2": 0.5, "3": 0.75}, "silent": ["4"], "dice": (0.5, 0.7)}
    every = {f"s{i}": 0.0 for i in range(4)}
    worst = worst_first(scan(*structures, **known))
    assert [*zip(worst["name"], worst.score)][:3] == [("s2", 0.25), ("s1", 0.45), ("s0", 0.8)]
    assert worst["name"].iloc[3] == "s3" and math.isnan(worst.score.iloc[3])
    by_score, *others = reasons(*structures, flags=at(0.45, **every), **known).items()
    assert by_score == ("low score: s2 (not segmented), s1 0.90 (0.50 to 0.70) may be bad", ["s2", "s1"])
    assert others == [("s2 was not segmented, but is probably there (0.75)", ["s2"])]
    assert list(reasons(*structures, flags=at(None, **every), **known).items()) == others


def test_a_scan_without_a_score_is_flagged_whatever_the_threshold() -> None:
    unknown = structure(), structure()  # of the first nothing is known, the second does not count
    for threshold in (None, 0.5):
        flagged = looked(*unknown, flags=at(threshold, s0=0.0), silent=["1"])
        assert flagged == ["low score: nothing tells how good it is"]
    assert looked(*unknown, flags=at(None, "too few", s0=0.0), silent=["1"]) == looked(*unknown, silent=["1"]) == []


def test_what_is_probably_there_decides_whether_absence_is_a_reason() -> None:
    gone = structure(**GONE)

    def said(*structures, present):
        return looked(*structures, present={str(i): p for i, p in enumerate(present, 1)})

    assert said(structure(), gone, present=(math.nan, 0.1)) == []  # a healthy one
    assert said(structure(), gone, present=(math.nan, 0.5)) == ["s1 was not segmented, but is probably there (0.50)"]
    assert said(structure(), structure(), present=(math.nan, 0.3)) == ["s1 is probably not there (0.30)"]
    assert said(structure(), structure(), present=(math.nan, 0.7)) == []
    assert said(structure(), gone, present=(math.nan, math.nan)) == ["empty: s1"]
    assert said(gone, present=(0.2,)) == []  # nothing was segmented, and nothing is to be expected
    assert said(gone, gone, present=(0.2, math.nan))[0].startswith("nothing was segmented")
