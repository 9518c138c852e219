"""Reliability diagrams and predicted Dice: what they write, what they show, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.numbers import BinStats, count_masks, ece
from nnunet_nacl.show.reliability import draw_predicted_dice, draw_reliability
from tests.numbers.problems import quality_of
from tests.numbers.test_counting import random_classes
from tests.show.looks import all_text, marked, points


def stats(seed: int = 0) -> BinStats:
    return count_masks(*random_classes(seed, 3, (8, 9, 10), 2.0))["all"]


def test_shows_the_accuracy_the_gap_and_the_share_of_every_bin(tmp_path, drawn):
    one = stats()
    draw_reliability({"NACL": one}, tmp_path / "figure.png")
    count, correct, confidence = one.count[0], one.correct[0], one.confidence[0]
    full = np.flatnonzero(count)
    accuracy, mean = correct[full] / count[full], confidence[full] / count[full]
    upper, lower = drawn[0].axes
    bars = sorted((bar.get_x(), bar.get_height()) for bar in marked(upper, "accuracy"))
    assert np.array(bars) == pytest.approx(np.stack([one.edges[full], accuracy], axis=1))
    for mark, bins in (("over", mean > accuracy), ("under", mean <= accuracy)):
        assert bins.any()
        gaps = np.array([(bar.get_x(), bar.get_y(), bar.get_height()) for bar in marked(upper, mark)])
        expected = np.stack([one.edges[full], np.minimum(accuracy, mean), abs(accuracy - mean)], axis=1)[bins]
        assert gaps == pytest.approx(expected)
    tops = sorted(line[:, 1].tolist() for lines in marked(upper, "top") for line in lines.get_segments())
    assert np.array(tops) == pytest.approx(np.stack([accuracy, accuracy], axis=1)[accuracy.argsort()])
    assert [bar.get_height() for bar in marked(lower, "share")] == pytest.approx((count / count.sum()).tolist())
    assert f"pooled ECE {ece(one):.3f}, n = 720 voxels" in all_text(drawn[0])


def test_bands_are_drawn_where_there_are_any(tmp_path, drawn):
    one = stats()
    low, high = np.full(15, np.nan), np.full(15, np.nan)
    low[9], high[9], low[14], high[14] = 0.5, 0.7, 0.8, 0.9
    draw_reliability({"a": one, "b": one}, tmp_path / "figure.png", bands={"a": (low, high)})
    first, second, *_ = drawn[0].axes
    expected = [(9.5 / 15, 0.5, 9.5 / 15, 0.7), (14.5 / 15, 0.8, 14.5 / 15, 0.9)]
    assert [value for line in points(marked(first, "band")) for value in line] == pytest.approx(np.ravel(expected))
    assert not marked(second, "band")
    assert "95 % interval over cases" in all_text(drawn[0])


def test_empty_and_region_sums(tmp_path, drawn):
    probs = np.random.default_rng(0).random((2, 50)).astype(np.float32)
    regions = count_masks(probs, probs > 0.7, regions=True)["all"]
    draw_reliability({"none": BinStats.zeros(3), "regions": regions}, tmp_path / "figure.png")
    assert "no voxel" in all_text(drawn[0])


def test_refuses_what_it_cannot_draw(tmp_path):
    with pytest.raises(ValueError, match="at least one method"):
        draw_reliability({}, tmp_path / "figure.png")
    with pytest.raises(ValueError, match="'.jpg'"):
        draw_reliability({"a": stats()}, tmp_path / "figure.jpg")
    with pytest.raises(ValueError, match="band of 'b'.* fits no method"):
        draw_reliability({"a": stats()}, tmp_path / "figure.png", bands={"b": ([0] * 15, [1] * 15)})
    with pytest.raises(ValueError, match="band of 'a', of shape .2, 3."):
        draw_reliability({"a": stats()}, tmp_path / "figure.png", bands={"a": ([0] * 3, [1] * 3)})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        draw_reliability({"a": stats()}, tmp_path / "file" / "figure.png")


def test_points_intervals_and_coverage_are_the_numbers(tmp_path, drawn):
    nan = math.nan
    rows = quality_of({"2": ([0.8, 0.9, 0.7, 0.6], [0.85, 0.6, nan, 0.5])})
    rows = rows.assign(predicted_dice_low=[0.7, 0.8, 0.6, nan], predicted_dice_high=[0.85, 0.95, 0.8, nan])
    draw_predicted_dice(rows, {"2": "posterior"}, tmp_path / "dice.png")
    (panel,) = drawn[0].axes
    shown = [line for line in panel.lines if line.get_linestyle() == "None"]
    assert points(shown) == [(0.8, 0.85), (0.9, 0.6), (0.6, 0.5)]
    assert len({line.get_marker() for line in shown}) == 3  # within, outside, without an interval
    assert points(marked(panel, "interval")) == [(0.8, 0.7, 0.8, 0.85), (0.9, 0.8, 0.9, 0.95)]
    (identity,) = marked(panel, "identity")
    assert identity.get_slope() == 1 and identity.get_xy1() == (0, 0)
    assert panel.get_xlim() == panel.get_ylim() and panel.get_xlim()[0] < 0.5
    text = all_text(drawn[0])
    assert "posterior 1 of 2 (50 %) within" in text and "90 % interval" in text
    assert "left out: posterior (1 of 4)." in text
