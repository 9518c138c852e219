"""Bars of relative differences: length, direction, and what is cut says so."""

from __future__ import annotations

import math

import pytest

from nnunet_nacl.show.relative_difference import draw_relative_difference
from tests.show.conftest import LONG
from tests.show.looks import all_text, assert_legible, interval, marked, points


def draw(tmp_path, metrics, percent, intervals, better, **keywords):
    differences = {name: interval(mean, *(ends or ())) for name, mean, ends in zip(metrics, percent, intervals)}
    given = {"first": "CE", "second": "NACL", "better": dict(zip(metrics, better)), **keywords}
    return draw_relative_difference(differences, tmp_path / "bars.png", **given)


def test_bars_are_the_numbers_and_tell_better_from_worse(tmp_path, drawn):
    draw(tmp_path, ["Dice", "ECE", "NLL"], [-2.5, -40, 0], [(-3, -1), None, (-1, 1)], ["higher", "lower", "lower"])
    bars = marked(drawn[0], "difference")
    assert [bar.get_width() for bar in bars] == [-2.5, -40, 0]
    assert [bar.get_hatch() is not None for bar in bars] == [True, False, False]  # worse is hatched
    assert points(marked(drawn[0], "interval")) == [(-3, 0, -1, 0), (-1, 2, 1, 2)]
    text = all_text(drawn[0])
    for words in (
        "−2.5 %",
        "−40.0 %",
        "0.0 %",
        "Dice, higher is better",
        "ECE, lower is better",
        "NACL is worse",
        "difference of NACL, in percent of CE",
    ):
        assert words in text


def test_a_bar_too_long_is_cut_marked_and_written(tmp_path, drawn):
    draw(tmp_path, ["ECE", "NLL", "HD95"], [667.2, 10, 0], [(600, 700), (-5, 400), (-151, 7)], ["lower"] * 3)
    bars = marked(drawn[0], "difference")
    assert [bar.get_width() for bar in bars] == [150, 10, 0]
    assert len(marked(drawn[0], "cut")) == 1 and "+667.2 %" in all_text(drawn[0])
    assert "go on beyond the axis" in all_text(drawn[0])
    assert points(marked(drawn[0], "interval")) == [(-5, 1, 150, 1), (-150, 2, 7, 2)]
    assert points(marked(drawn[0], "cut interval")) == [(150, 1), (-150, 2)]
    assert [line.get_marker() for line in marked(drawn[0], "cut interval")] == [">", "<"]
    assert_legible(drawn[0])


@pytest.mark.parametrize("percent", [[-100, 300], [-500, -1], [0, 0], [math.nan, math.nan], [1e-3, -1e-3]])
def test_extremes_are_legible(tmp_path, drawn, percent):
    draw(tmp_path, ["ECE " + LONG, "NLL"], percent, [None, None], ["lower", "lower"], second=LONG, title="t")
    assert_legible(drawn[0])


def test_missing_values_are_named(tmp_path, drawn):
    draw(tmp_path, ["ECE", "NLL"], [math.nan, 1], [None, None], ["lower", "lower"])
    assert "No value: NLL." not in all_text(drawn[0]) and "No value: ECE." in all_text(drawn[0])
