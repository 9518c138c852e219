"""From one case's numbers to what a person is told: where to look, and why."""

from __future__ import annotations

import math

from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.cases.record import table
from nnunet_nacl.estimators.flags import Flags
from nnunet_nacl.worklist.judgement import completed
from nnunet_nacl.worklist.reasons import find_reasons, oddities_of_image
from tests.worklist.records import calibrator, record, structure

GONE = {"dice": math.nan, "pieces": 0, "largest_piece": math.nan}


def at(threshold: float | None, why_not: str = "", **bad: float) -> Flags:
    return Flags(
        bad=bad,
        find=0.9,
        miss=None,
        threshold=threshold,
        n_scans=40,
        n_bad_patients=20,
        share_bad=0.5,
        share_found=0.9,
        share_flagged=0.6,
        why_not=why_not,
    )


def looked(*structures, flags=None, unlike="", differences=(), listed=(), **learned) -> list[str]:
    """The reasons of a scan."""
    known = calibrator(**learned) if learned else Calibrator()
    rows = completed(table([record("case", *structures)]), known, flags.bad if flags else None)
    reasons_by_case = find_reasons(
        rows.set_index("case"),
        flags,
        oddities={"case": oddities_of_image(unlike, differences)},
        may_be_in_pieces=rows["name"].isin(listed),
    )
    return [reason.text for reason in reasons_by_case["case"]]


def test_each_reason_is_named_with_its_numbers_and_nothing_is_no_reason() -> None:
    fine = (structure(0.75), structure(0.85))
    all_count = {"s0": 0.0, "s1": 0.0}
    for flags in (None, at(0.7499, **all_count), at(None, "too few", **all_count)):
        assert looked(*fine, flags=flags, dice=(0.6, 0.9)) == []
    low = looked(*fine, flags=at(0.75, **all_count), differences=["odd"], dice=(0, 0.9))
    assert low == ["s0: predicted Dice 0.75 (0 to 0.90)", "odd"]
    assert looked(*fine, flags=at(0.85, **all_count)) == ["s0: predicted Dice 0.75, and 1 more"]
    assert looked(structure(0.75), flags=at(0.75, s0=0.0)) == ["predicted Dice 0.75"]
    limits = at(0.0, s0=0.3, s1=0.9)  # s2 does not count
    assert looked(*fine, structure(0.1), flags=limits) == ["s1: predicted Dice 0.85"]
    disputed = (
        structure(members_dice=0.69),
        structure(members_dice=0.71),
        structure(members_dice=0.0),
    )
    assert looked(*disputed) == ["s2: folds disagree (0.00), and 1 more"]
    broken = structure(pieces=3, largest_piece=0.4), structure(pieces=2, largest_piece=0.5)
    assert looked(*broken) == ["s0 in 3 pieces (largest 40 %)"]
    assert looked(*broken, listed=["s0"]) == []  # its pieces are findings
    absent = [structure(**GONE, largest=0.3)] * 7
    assert looked(structure(), *absent) == ["s1 not segmented, and 6 more"]
    assert looked(*absent, differences=["odd"]) == [
        "nothing segmented (largest probability 0.30)",
        "odd",
    ]
    assert looked(*fine, unlike="unlike: odd", differences=["new"]) == ["unlike: odd", "new"]


def test_presence_is_a_reason_and_decides_whether_absence_is() -> None:
    gone = structure(**GONE)

    def said(*structures, present, **options):
        return looked(*structures, present={str(i): p for i, p in enumerate(present, 1)}, **options)

    assert said(structure(), gone, present=(math.nan, 0.1)) == []  # a healthy one
    assert said(structure(), gone, present=(math.nan, 0.5)) == [
        "s1 not segmented, probably present (0.50)"
    ]
    assert said(structure(), structure(), present=(math.nan, 0.3)) == ["s1 probably absent (0.30)"]
    assert said(structure(), structure(), present=(math.nan, 0.7)) == []
    assert said(structure(), gone, present=(math.nan, math.nan)) == ["s1 not segmented"]
    assert said(gone, present=(0.2,)) == []  # nothing was segmented, and nothing is to be expected
    assert said(gone, gone, present=(0.2, math.nan))[0].startswith("nothing segmented")
    low = at(0.6, s0=0.0, s1=0.0)  # by its score, 1 - 0.45
    assert said(structure(), gone, present=(0.9, 0.45), flags=low) == [
        "s0: predicted Dice 0.50",
        "s1 not segmented, perhaps present (0.45)",
    ]
