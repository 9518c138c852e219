"""The forest plot: differences and intervals are the numbers given; a verdict needs an interval without 0."""

from __future__ import annotations

import math

import pytest

from nnunet_nacl.metrics.bootstrap import Interval
from nnunet_nacl.show import layout
from nnunet_nacl.show.forest_plot import ForestRow, draw_differences
from tests.show.conftest import LONG, METHODS
from tests.show.looks import all_text, assert_legible, marked, points


def row(label="NACL", metric="ECE", difference=-0.1, low=-0.2, high=-0.05, better="lower", n=40, **keywords):
    return ForestRow(label, metric, Interval(difference, low, high, n), better, **keywords)


@pytest.mark.parametrize(
    ("low", "high", "better", "verdict"),
    [
        (-2, -1, "lower", "better"),
        (-2, -1, "higher", "worse"),
        (1, 2, "higher", "better"),
        (1, 2, "lower", "worse"),
        (-1, 1, "lower", "open"),
        (0, 1, "higher", "open"),
        (math.nan, math.nan, "lower", "open"),
    ],
)
def test_verdicts(low, high, better, verdict):
    assert row(low=low, high=high, better=better).verdict == verdict


def test_too_few_cases_for_a_test_are_grey_whatever_their_interval(tmp_path, drawn):
    untested = row("CE", p_value=math.nan)
    assert untested.verdict == "untested" and row("CE", p_value=0.5).verdict == "better"
    draw_differences([untested], tmp_path / "forest.png", reference="r")
    [point] = [line for line in drawn[0].axes[0].lines if line.get_gid() is None]
    assert point.get_markerfacecolor() == point.get_markeredgecolor() == layout.GREY
    text = all_text(drawn[0])
    assert "not tested: too few cases" in text and "excludes 0" not in text and "undecided" not in text
    assert "p (Holm)" not in text
    draw_differences([untested, row("NACL", p_value=0.5)], tmp_path / "forest.png", reference="r")
    assert "not tested: too few cases" in all_text(drawn[1]) and "better than r" in all_text(drawn[1])


def test_points_intervals_and_texts(tmp_path, drawn):
    rows = [
        row("CE", p_value=0.04),
        row("NACL", difference=0.01, low=-0.1, high=0.2, p_value=1e-9),
        row("CE", "HD95 (mm)", 1.5, 1, 2, p_value=0.5),
    ]
    draw_differences(rows, tmp_path / "forest.png", reference="CE+Dice (stock)")
    ece, hd95 = drawn[0].axes
    assert {line.get_label(): tuple(line.get_xydata()[0]) for line in ece.lines if line.get_gid() is None} == {
        "CE": (-0.1, 0),
        "NACL": (0.01, 1),
    }
    assert points(marked(ece, "interval")) == [(-0.2, 0, -0.05, 0), (-0.1, 1, 0.2, 1)]
    assert points(marked(hd95, "interval")) == [(1, 0, 2, 0)]
    for panel in (ece, hd95):
        low, high = panel.get_xlim()
        assert low < 0 < high  # the line of no difference is always seen
    text = all_text(drawn[0])
    for words in ("HD95 (mm)", "< 0.001", "0.040", "n = 40 cases.", "95 % interval", "better than CE+Dice (stock)"):
        assert words in text


def test_markers_tell_the_verdict_without_colour(tmp_path, drawn):
    rows = [row("a"), row("b", low=0.1, high=0.2, difference=0.15), row("c", low=-1, high=1)]
    draw_differences(rows, tmp_path / "forest.png", reference="r")
    assert len({line.get_marker() for line in drawn[0].axes[0].lines if line.get_gid() is None}) == 3


def test_differing_numbers_of_cases_get_a_column_and_missing_values_a_note(tmp_path, drawn):
    rows = [row("CE", n=40), row("NACL", n=39), row("LS", difference=math.nan, low=math.nan, high=math.nan, n=0)]
    draw_differences(rows, tmp_path / "forest.png", reference="r")
    texts = [text.get_text() for text in drawn[0].axes[0].texts]
    assert {"n", "40", "39", "0", "no value"} <= set(texts)
    assert "ECE: no value for LS." in all_text(drawn[0])


def test_a_point_without_an_interval_says_so(tmp_path, drawn):
    rows = [row("CE", low=math.nan, high=math.nan), row("LS", low=math.nan, high=math.nan), row("NACL")]
    draw_differences(rows, tmp_path / "forest.png", reference="r")
    assert "ECE: no interval for CE, LS." in all_text(drawn[0]) and len(marked(drawn[0], "interval")) == 1
    assert "p is corrected" not in all_text(drawn[0])  # no p is shown


@pytest.mark.parametrize("metrics", [1, 5])
def test_many_long_names_do_not_overlap(tmp_path, drawn, metrics):
    rows = [row(m, f"metric {i}", n=40 + i, p_value=0.5) for i in range(metrics) for m in METHODS]
    draw_differences(rows, tmp_path / "forest.png", reference=LONG, title="t", subtitle="s")
    assert_legible(drawn[0])
    assert drawn[0].get_size_inches()[0] <= 9.01
