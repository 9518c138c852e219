"""The forest plot: differences and intervals are the numbers given; looks tell what the tests say."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from nnunet_nacl.show import layout
from nnunet_nacl.show.forest_plot import draw_differences
from tests.show.conftest import LONG, METHODS
from tests.show.looks import all_text, assert_legible, marked, points


def row(label="NACL", title="ECE", difference=-0.1, low=-0.2, high=-0.05, n=40, p_holm=0.03, verdict="better"):
    return locals()


def draw(rows, tmp_path, reference="r", **frame):
    better = {one["title"]: "lower" for one in rows}
    draw_differences(pd.DataFrame(rows), tmp_path / "forest.png", reference=reference, better=better, **frame)


def test_points_intervals_and_texts(tmp_path, drawn):
    rows = [
        row("CE", p_holm=0.04),
        row("NACL", difference=0.01, low=-0.1, high=0.2, p_holm=1e-9, verdict="worse"),
        row("CE", "HD95 (mm)", 1.5, 1, 2, p_holm=0.5, verdict="none"),
    ]
    draw(rows, tmp_path, "CE+Dice (stock)")
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
    for words in (
        "HD95 (mm)",
        "< 0.001",
        "0.040",
        "n = 40 cases.",
        "better than CE+Dice (stock)",
        "no difference shown",
    ):
        assert words in text


def test_markers_tell_the_verdict_without_colour_and_what_is_not_tested_is_grey(tmp_path, drawn):
    verdicts = ("better", "worse", "none", "untested", "mixed")
    draw([row(name, p_holm=math.nan, verdict=name) for name in verdicts], tmp_path)
    looks = {line.get_label(): line for line in drawn[0].axes[0].lines if line.get_gid() is None}
    assert len({looks[name].get_marker() for name in verdicts[:4]}) == 4
    assert looks["mixed"].get_marker() == looks["none"].get_marker()
    assert looks["untested"].get_markerfacecolor() == looks["untested"].get_markeredgecolor() == layout.GREY
    assert "not tested: too few cases" in all_text(drawn[0])


def test_missing_values_get_a_note_and_no_point(tmp_path, drawn):
    nothing = {"difference": math.nan, "low": math.nan, "high": math.nan, "n": 0, "p_holm": math.nan}
    draw([row("CE"), row("LS", **nothing, verdict="untested"), row("NACL", low=math.nan, high=math.nan)], tmp_path)
    assert "no value" in [text.get_text() for text in drawn[0].axes[0].texts]
    assert "ECE: no value for LS." in all_text(drawn[0]) and "n = 0 to 40 cases." in all_text(drawn[0])
    assert points(marked(drawn[0], "interval")) == [(-0.2, 0, -0.05, 0)]


@pytest.mark.parametrize("metrics", [1, 5])
def test_many_long_names_do_not_overlap(tmp_path, drawn, metrics):
    rows = [row(m, f"metric {i}", n=40 + i, p_holm=0.5) for i in range(metrics) for m in METHODS]
    draw(rows, tmp_path, LONG, title="t", subtitle="s")
    assert_legible(drawn[0])
    assert drawn[0].get_size_inches()[0] <= 9.01
