"""From one case's numbers to what a person is told: where to look, and why."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.least_certain_place import least_certain_place
from nnunet_nacl.metrics.voxel_uncertainty import confidence
from nnunet_nacl.prediction.preprocessed_case import CompactImage
from nnunet_nacl.review.reasons import Thresholds, parse_thresholds, reasons_to_look
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


def below(dice: float) -> Thresholds:
    return Thresholds.of(dice, {"1": "liver", "2": "spleen"})


def looked(*arguments) -> list[str]:
    return list(reasons_to_look(*arguments))


def test_each_reason_is_named_with_its_numbers_and_nothing_is_no_reason() -> None:
    fine = review(row(dice=0.75, dice_interval=(0.6, 0.9)), row("spleen", 0.85))
    assert looked(fine, None, ()) == looked(fine, below(0.75), ()) == []
    assert looked(fine, below(0.8), ["odd"]) == [
        "predicted Dice of liver 0.75 (0.60 to 0.90), below 0.8",
        "odd",
    ]
    each = Thresholds.of({"liver": 0.7, "spleen": 0.9}, {"1": "liver", "2": "spleen"})
    assert looked(fine, each, ()) == ["predicted Dice of spleen 0.85, below 0.9"]
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
    reasons = reasons_to_look(review(row("liver", 0.7), gone, *torn), below(0.75), ["odd"])
    assert list(reasons.items())[:2] == [
        ("predicted Dice of liver 0.70, below 0.75", ["liver"]),
        ("empty: gone", ["gone"]),
    ]
    assert [*reasons.values()][2:] == [["s0"], ["s1"], ["s2"], ["s3"], ["s4"], ["s5", "s6"], []]
    assert [*reasons][-2:] == ["2 more structures likewise", "odd"]


def test_a_scan_is_flagged_by_its_score() -> None:
    scan = review(
        row(rank=0.5),
        row("spleen", 0.6, rank=0.04, dice_interval=(0.5, 0.7)),
        row("colon", 0.1),
        row("gut", 0.3, rank=0.01),
    )
    assert (scan.score, [s.name for s in scan.worst_first]) == (0.01, ["gut", "spleen", "liver", "colon"])
    assert reasons_to_look(scan, Thresholds({}, 0.05), ()) == {
        "predicted Dice of gut 0.30, spleen 0.60 (0.50 to 0.70) is unusually low (score 0.01, below 0.05)": [
            "gut",
            "spleen",
        ]
    }
    for value in (0.01, math.nan):  # nine in ten are as high; or no structure has a rank
        assert not reasons_to_look(scan, Thresholds({}, value), ())
    assert "nine in ten" in Thresholds({}, 0.01).explanation and "constant" in Thresholds({}, math.nan).explanation


def test_what_is_probably_there_decides_whether_absence_is_a_reason() -> None:
    gone = row("lesion", math.nan, pieces=0, largest=math.nan)

    def reasons(*structures, present):
        known = (replace(structure, present=p) for structure, p in zip(structures, present))
        return looked(review(*known), below(0.8), ())

    assert reasons(row(), gone, present=(math.nan, 0.1)) == []  # a healthy one
    assert reasons(row(), gone, present=(math.nan, 0.5)) == ["lesion was not segmented, but is probably there (0.50)"]
    assert reasons(row(), row("lesion"), present=(math.nan, 0.3)) == ["lesion is probably not there (0.30)"]
    assert reasons(row(), row("lesion"), present=(math.nan, 0.7)) == []
    assert reasons(row(), gone, present=(math.nan, math.nan)) == ["empty: lesion"]
    assert reasons(gone, present=(0.2,)) == []  # nothing was segmented, and nothing is to be expected
    assert reasons(gone, gone, present=(0.2, math.nan))[0].startswith("nothing was segmented")


def test_an_image_in_half_precision_keeps_the_units() -> None:
    rng = np.random.default_rng(0)
    image = np.stack([rng.uniform(-1024, 3071, (3, 4, 5)), rng.uniform(0, 5e5, (3, 4, 5))])
    compact = CompactImage(image)
    for found, channel in zip(compact, image):
        np.testing.assert_allclose(found, channel, atol=np.ptp(channel) / 2048)
    assert compact.shape == (3, 4, 5) and compact.slice(1, 2).shape == (3, 5)
    assert compact.slice(0, 0).min() >= 0 and compact.slice(0, 0).max() <= 1


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
    found = Thresholds.of(parse_thresholds(texts), STRUCTURES, {"1": math.nan, "3": 0.25})
    assert tuple(found.dice.values()) == values and found.to_json() == dict(zip(STRUCTURES.values(), values))


def test_it_is_put_into_words():
    assert Thresholds.of(0.7, STRUCTURES).explanation == "A predicted Dice below 0.7 is a reason to look"
    usual = Thresholds.of({}, STRUCTURES, {"1": 0.75, "3": 0.1234})
    assert usual.explanation == "A predicted Dice below LV cavity 0.75, infarct 0.123 is a reason to look"


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
        Thresholds.of(parse_thresholds(texts), STRUCTURES)
