"""The list of scans: its order, what a map adds, who is flagged or chosen by chance, and its
tables."""

from __future__ import annotations

import csv
import math
import re

import numpy as np
import pytest

from nnunet_nacl.cases.findings import Finding, StructureFindings
from nnunet_nacl.estimators.flags import Flags
from nnunet_nacl.worklist.list_files import REVIEW, SCANS, STRUCTURES, csv_texts
from tests.reference.reasons import reasons_of_scan
from tests.worklist.records import calibrator, list_of, record, structure
from tools.files_page import files_page

NAN = math.nan
GONE = {"dice": NAN, "pieces": 0, "largest_piece": NAN}


def limit(threshold: float, **bad: float) -> Flags:
    return Flags(
        bad=bad,
        find=0.9,
        miss=None,
        threshold=threshold,
        n_scans=40,
        n_bad_patients=20,
        share_bad=0.5,
        share_found=0.95,
        share_flagged=0.6,
    )


def texts_of(listed) -> dict[str, str]:
    return csv_texts(listed.scans, listed.structures, listed.records, listed.run.problems)


def tables(listed) -> dict[str, list[dict[str, str]]]:
    """Rows of the tables by their names."""
    return {
        name: list(csv.DictReader(text.splitlines())) for name, text in texts_of(listed).items()
    }


def test_the_lowest_score_comes_first_and_what_nothing_is_known_of_before_all():
    """A score is the predicted Dice of what was segmented and 1 - p of what was not."""
    seen = [
        record(case, structure(dice, network_dice=p))
        for case, dice, p in (("b", 0.8, 0.9), ("a", 0.9, 0.02))
    ]
    missed, healthy = (
        record(case, structure(**GONE, network_dice=p)) for case, p in (("c", 0.5), ("d", 0.01))
    )
    known = calibrator()
    known.presence.present_probability = lambda key, rows: rows.network_dice
    listed = list_of([*seen, missed, healthy], known)
    assert listed.scans.score.to_dict() == {"c": 0.5, "b": 0.8, "a": 0.9, "d": 0.99}
    found = tables(listed)[REVIEW]
    assert [row["score"] for row in found] == ["0.5", "0.8", "0.9", "0.99"]
    assert [row["worst_structure"] for row in found] == ["s0"] * 4  # what was missed too
    assert list_of([missed, healthy], calibrator(always=["1"])).scans.score.tolist() == [0, 0]
    # as near to a structure as each other
    assert list_of([missed, healthy]).scans.index.tolist() == ["c", "d"]


def random_structure(rng: np.random.Generator) -> dict:
    """Values of few digits, so that some are equal; a quarter is not segmented."""
    if rng.random() < 0.25:
        return structure(**GONE, largest=round(rng.random(), 1))
    return structure(
        dice=round(rng.random(), 1),
        pieces=int(rng.integers(1, 5)),
        largest_piece=round(rng.random(), 1),
        members_dice=rng.choice([NAN, round(rng.random(), 1)]),
    )


def test_a_scan_has_the_same_reasons_in_a_list_of_many_as_row_by_row():
    rng = np.random.default_rng(0)
    probabilities = np.array([NAN, 0.2, 0.4, 0.5, 0.9])
    known = calibrator(dice=(0.1, 0.9))
    known.presence.present_probability = lambda key, rows: rng.choice(probabilities, len(rows))
    known.quality.may_be_in_pieces = ("3",)
    records = []
    for i in range(200):
        found = (StructureFindings("s1", ()),) if rng.random() < 0.5 else ()
        structures = [random_structure(rng) for _ in range(1 if i < 80 else 4)]
        differences = ("odd",) if rng.random() < 0.2 else ()
        profile = (1.0,) if rng.random() < 0.2 else ()
        values = {"findings": found, "differences": differences, "profile": profile}
        records.append(record(f"{i:03}", *structures, **values))
    bad = {f"s{i}": 0.5 for i in range(4)}
    flags = limit(-0.2, **bad)
    listed = list_of(records, known, flags)
    expected = {}
    for case, rows in listed.structures.groupby(level=0):
        of_case = listed.records[case]
        names = {"s2"} | {structure.name for structure in of_case.findings}
        unlike = "unlike: odd" if of_case.profile else ""
        expected[case] = reasons_of_scan(rows, -0.2, unlike, of_case.differences, names)
    texts = listed.scans.reasons.map(lambda reasons: [reason.text for reason in reasons])
    assert texts.to_dict() == expected
    assert len(set(map(str, expected.values()))) > 100  # they do differ


def test_each_reason_is_counted_and_what_all_scans_share_is_said_once():
    same = structure(members_dice=0.3)
    records = [
        record("a", same),
        record("b", same, differences=("odd",)),
        record("c", structure(members_dice=0.6)),
    ]
    off = "Flagging by predicted Dice is off: a Dice below which a scan is bad turns it on."
    listed = list_of(records, calibrator())
    differs = "1 also because the image differs from the training images"
    assert (
        listed.summary == f"3 of 3 scans are flagged, each because folds disagree, {differs}. {off}"
    )
    assert [listed.reasons(case) for case in "abc"] == [[], ["odd"], []]
    assert listed.scans.why.tolist() == [
        "folds disagree (0.30)",
        "folds disagree (0.30); odd",
        "folds disagree (0.60)",
    ]
    listed = list_of(
        [*records, record("d"), record("e", structure(0.4))],
        calibrator(),
        limit(-0.05, s0=0.5),
    )
    assert listed.summary.startswith(
        "4 of 5 scans are flagged, 1 because predicted Dice is low, 3 because folds disagree, 1"
        " because the image differs from the training images. Aim "
    )
    assert listed.reasons("e") == ["predicted Dice 0.40"]
    assert listed.reasons("a") == ["folds disagree (0.30)"]
    alone = list_of(records[:1])
    assert alone.summary.startswith(
        "1 of 1 scan is flagged, because folds disagree. Flagging by predicted Dice is off:"
    )
    assert alone.reasons("a") == ["folds disagree (0.30)"]


def test_a_map_that_learned_another_unit_predicts_dice_alone():
    known = calibrator((0.4, 0.7), (1.5, 3.0), {"1": 0.9})
    for unit, column, learned in (("ml", "volume_ml", [1.5, 0.9]), ("mm2", "area_mm2", [NAN, NAN])):
        listed = list_of([record(unit=unit)], known, limit(0.1, s0=0.4))
        assert listed.structures.loc["a", ["dice_low", "score"]].tolist() == [0.4, 0.5 - 0.4]
        assert listed.structures.loc["a", ["volume_low", "present"]].tolist() == pytest.approx(
            learned, nan_ok=True
        )
        assert column in tables(listed)[STRUCTURES][0]


def test_a_scan_has_one_row_whatever_its_structures(n=118):
    rows = [structure(dice) for dice in (0.1, *[0.6] * (n - 1))]
    records = [
        record('a "b", c', *rows, differences=("odd", "new")),
        record("b", *[structure()] * n),
    ]
    found = tables(list_of(records, calibrator((0.4, 0.7)), problems={"d": "d.npz is missing"}))
    assert [list(row.values()) for row in found[REVIEW]] == [
        ["1", 'a "b", c', "yes", "odd; new", "0.1", "s0", "0.1", "0.4", "0.7", ""],
        ["2", "b", "no", "", "0.5", "s0", "0.5", "0.4", "0.7", ""],
        ["", "d", "", "", "", "", "", "", "", "d.npz is missing"],
    ]
    assert [row["case"] for row in found[SCANS]] == ['a "b", c', "b"]
    assert len(found[SCANS][0]) == 11
    names = [(case, f"s{i}") for case in ('a "b", c', "b") for i in range(n)]
    assert [(row["case"], row["structure"]) for row in found[STRUCTURES]] == names


def test_the_page_of_files_has_every_column_with_a_unit_and_a_meaning():
    found = StructureFindings("s0", (Finding(8, 2.0, (0.0, 1.0, 2.0), 0.5, 0.9),))
    listed = list_of([record("a", structure(members=(1.0, 3.0)), n_members=2, findings=(found,))])
    page = files_page()
    assert "|  |" not in page  # nor is a key without a meaning
    for name, text in texts_of(listed).items():
        columns = [
            re.sub(" [pq]$", " FOLD", column) for column in next(csv.reader(text.splitlines()))
        ]
        [section] = re.findall(rf"^## {name}$(.*?)^## ", page, re.MULTILINE | re.DOTALL)
        rows = re.findall(r"^\| `(.+)` \| (?:[^|]*\w) \| (?:[^|]*\w.*) \|$", section, re.MULTILINE)
        assert rows == list(dict.fromkeys(columns)), name


def test_scans_chosen_by_chance_are_named_and_not_flagged():
    records = [record(f"{i:02}", differences=("odd",) * (i < 4)) for i in range(20)]

    def chosen(also: int, records=records) -> list[str]:
        return sorted(list_of(records, also=also).cases("is_random"))

    five = chosen(5)
    assert len(five) == 5
    assert min(five) >= "04"
    assert chosen(5, records[::-1]) == five
    assert set(chosen(6)) > set(five)
    assert chosen(0) == []
    assert chosen(50) == [f"{i:02}" for i in range(4, 20)]  # no more than there are
    listed = list_of(records, also=5)
    rows = {row["case"]: row for row in tables(listed)[REVIEW]}
    assert {case for case, row in rows.items() if row["reasons"] == "chosen by chance"} == set(five)
    assert listed.counts.startswith("4 of 20 scans are flagged")
    assert listed.counts.endswith("; 5 more were chosen by chance.")
    assert len(listed.cases("is_flagged")) == 4
    assert {rows[case]["flag"] for case in five} == {"no"}
    all_flagged = list_of(records[:4], also=5).counts
    assert all_flagged.endswith(
        "; none could be chosen by chance, since no scan is without a flag."
    )


@pytest.mark.parametrize(
    ("pages", "cases"), [("flagged", [*range(11), 15]), ("all", range(20)), ("none", ())]
)
def test_the_flagged_and_the_ten_next_have_a_page(pages, cases):
    records = [
        record(f"{i:02}", structure(i / 100), differences=("odd",) * (i in (0, 15)))
        for i in range(20)
    ]
    assert list_of(records, pages=pages).cases("has_page") == [f"{i:02}" for i in cases]


def test_structures_that_reasons_name_come_before_those_with_lower_scores():
    rows = structure(0.6), structure(0.9, members_dice=0.3), structure(0.5)
    alone = list_of([record("a", *rows), record("b", *rows[::2])])
    assert alone.structures_by_need("a") == ["s1", "s2", "s0"]
    assert alone.structures_by_need("b") == ["s1", "s0"]  # no reason: by the score
    empty = [structure(math.nan, pieces=0, largest=share) for share in (0.1, 0.3)]
    nothing = list_of([record("c", *empty)]).structures_by_need("c")
    assert nothing[0] == "s1", "the network was nearest to predicting it"
