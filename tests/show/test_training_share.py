"""Lines over the share of training cases: the numbers given, in order, with gaps."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl.show.training_share import draw_training_share
from tests.show.conftest import METHODS
from tests.show.looks import all_text, assert_legible, interval, marked, points

SHARES = (5, 10, 25, 50, 100)


def line(panel, method):
    return next(found for found in panel.lines if found.get_label() == method)


def test_lines_and_intervals_are_the_numbers(tmp_path, drawn):
    lines = {"a": {10: interval(0.5), 100: interval(0.9, 0.8, 0.95)}, "b": {50: interval(0.7, 0.6, 0.8)}}
    panels = {"Dice": lines}
    draw_training_share(panels, tmp_path / "share.png", better={"Dice": "higher"})
    (panel,) = drawn[0].axes
    assert line(panel, "a").get_xydata().tolist() == [[10, 0.5], [100, 0.9]]
    assert points(marked(panel, "interval")) == [(100, 0.8, 100, 0.95), (50, 0.6, 50, 0.8)]
    assert panel.get_xscale() == "log" and [t for t in panel.get_xticks()] == [10, 50, 100]
    low, high = panel.get_ylim()
    assert low < 0.5 and high > 0.95
    assert "Dice, higher is better →" in all_text(drawn[0])


def test_near_shares_stay_linear(tmp_path, drawn):
    panels = {"Dice": {"a": {50: interval(1), 100: interval(2)}}}
    draw_training_share(panels, tmp_path / "share.svg", better={"Dice": "higher"})
    assert drawn[0].axes[0].get_xscale() == "linear"


def test_missing_values_leave_gaps_and_are_named(tmp_path, drawn):
    panels = {"ECE": {"a": {10: interval(0.1), 50: interval(), 100: interval(0.2)}}}
    draw_training_share(panels, tmp_path / "share.png", better={"ECE": "lower"})
    assert np.isnan(line(drawn[0].axes[0], "a").get_ydata()).tolist() == [False, True, False]
    assert "ECE: no value for a at 50 %." in all_text(drawn[0])


def test_methods_at_one_share_stand_apart(tmp_path, drawn):
    lines = dict.fromkeys("abc", {50: interval(0.1, 0, 1)})
    draw_training_share({"ECE": lines}, tmp_path / "share.png", better={"ECE": "lower"})
    panel = drawn[0].axes[0]
    places = [line(panel, m).get_transform().transform((50, 0.1))[0] for m in "abc"]
    assert places[0] < places[1] < places[2]
    assert places[1] == pytest.approx(panel.transData.transform((50, 0.1))[0])


@pytest.mark.parametrize("panels", [1, 4])
def test_many_long_names_do_not_overlap(tmp_path, drawn, panels):
    lines = {
        method: {share: interval(i + share / 100, i, i + 2) for share in SHARES} for i, method in enumerate(METHODS)
    }
    metrics = [f"metric {i}" for i in range(panels)]
    draw_training_share(dict.fromkeys(metrics, lines), tmp_path / "share.png", better=dict.fromkeys(metrics, "higher"))
    assert_legible(drawn[0])
    assert drawn[0].get_size_inches()[0] <= 9
