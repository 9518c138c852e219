"""The review list on the terminal."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from nnunet_nacl.cli.review_text import print_list, table_text
from tests.review.test_review_list import review


def lines_of(*arguments) -> list[str]:
    return table_text(*arguments).splitlines()


def test_a_line_for_each_case():
    rows = [review("liver_1", members=(1.0, 3.0)), review("b", pieces=0, members=(0.0, 0.0))]
    header, _, *lines = lines_of(rows, False, False)
    assert header.split() == "lowest predicted Dice s0 (ml)".split()
    assert "liver_1" in lines[0] and lines[0].endswith(" 2") and lines[1].split()[:4] == ["2", "b", "-", "2"]


def test_of_many_structures_the_worst_three_are_named():
    rows = [review("a", structures=25, bad=0.25), review("b", 0.25, structures=4, says_nothing=True)]
    header, _, first, second = lines_of(rows, True, True)
    assert header.split()[0] == "score" and "worst 3 (predicted Dice)" in header and "and 22 more" in header
    assert first.split()[2:] == "0.250 0.500 s0 0.50 s1 0.60 s2 0.70".split()
    assert second.split()[2:5] == ["-", "0.250", "s0"]


def test_how_probably_a_structure_is_there_is_said_where_it_is_known():
    rows = [review("a", present=0.375), review("b")]
    header, _, first, second = lines_of(rows, True, False)
    assert header.endswith("s0 (predicted Dice)") and first.endswith(", there 0.38") and "there" not in second
    assert lines_of(rows, False, False)[2].endswith("2, there 0.38")


def printed(capsys, rows, predicts_dice=True) -> list[str]:
    reasons = {row.case: {} for row in rows}
    found = SimpleNamespace(
        drawn=[],
        rows=rows,
        reasons=reasons,
        notes=(),
        summary="None is flagged.",
        findings={},
        reservation="A ranking.",
    )
    found.quality, found.scored = object() if predicts_dice else None, False
    print_list(found, Path("out"))
    return capsys.readouterr().out.splitlines()


def test_the_first_cases_are_shown(capsys):
    lines = printed(capsys, [review(str(i)) for i in range(30)], False)
    assert lines[0] == "None is flagged." and lines[1].endswith("(10 of 30):")
    assert lines[13].split()[:2] == ["10", "9"] and not lines[14]


def test_intervals_are_spoken_of_where_there_is_one(capsys):
    assert not any("intervals" in line for line in printed(capsys, [review("a"), review("b")]))
    lines = printed(capsys, [review("a"), review("b", 0.8, dice_interval=(0.7, 0.9))])
    assert lines[5].endswith("0.80 (0.70-0.90)") and lines[6].startswith("In brackets: 90 % intervals")
