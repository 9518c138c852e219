"""The forest plot: differences and intervals are the numbers given; looks tell what the tests say."""

from __future__ import annotations

import math

import pandas as pd

from nnunet_nacl.compare.forest_plot import draw_differences
from tests.show.looks import all_text, marked, points


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


def test_missing_values_get_a_note_and_no_point(tmp_path, drawn):
    nothing = {"difference": math.nan, "low": math.nan, "high": math.nan, "n": 0, "p_holm": math.nan}
    draw([row("CE"), row("LS", **nothing, verdict="untested"), row("NACL", low=math.nan, high=math.nan)], tmp_path)
    assert "no value" in [text.get_text() for text in drawn[0].axes[0].texts]
    assert "ECE: no value for LS." in all_text(drawn[0]) and "n = 0 to 40 cases." in all_text(drawn[0])
    assert points(marked(drawn[0], "interval")) == [(-0.2, 0, -0.05, 0)]
