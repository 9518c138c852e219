"""Predicted against true Dice: the points are the numbers, and what lies outside its interval is counted and marked."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.calibration.quality_report import QualityRows
from nnunet_nacl.show.predicted_dice import draw_predicted_dice
from tests.calibration.problems import quality_of
from tests.show.looks import all_text, assert_legible, marked, points


def rows_of(predicted, true, low, high) -> QualityRows:
    """Rows whose expected Dice does not matter; (structures, cases) values."""
    rows = quality_of({str(i): (values, values) for i, values in enumerate(true)})
    return replace(rows, predicted=np.stack([predicted, low, high]).transpose(2, 1, 0), level=0.9)


def test_points_intervals_and_coverage_are_the_numbers(tmp_path, drawn):
    nan = math.nan
    low, high = [[0.7, 0.8, 0.6, nan]], [[0.85, 0.95, 0.8, nan]]
    rows = rows_of([[0.8, 0.9, 0.7, 0.6]], [[0.85, 0.6, nan, 0.5]], low, high)
    draw_predicted_dice(rows, ["posterior"], tmp_path / "dice.png")
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


@pytest.mark.parametrize("count", [1, 2, 14])
def test_many_structures_with_long_names_do_not_overlap(tmp_path, drawn, count):
    rng = np.random.default_rng(0)
    predicted, true = rng.uniform(0.5, 1, (2, count, 30))
    rows = rows_of(predicted, true, np.maximum(predicted - 0.1, 0), np.minimum(predicted + 0.1, 1))
    names = [f"a structure_of many words in its name {i}" for i in range(count)]
    draw_predicted_dice(rows, names, tmp_path / "dice.png", title="t", notes=["n"])
    assert_legible(drawn[0])
    assert drawn[0].get_size_inches()[0] <= 9


def test_a_structure_without_cases_says_so(tmp_path, drawn):
    draw_predicted_dice(rows_of(*[[[math.nan]]] * 4), ["a"], tmp_path / "dice.png")
    assert "no value" in all_text(drawn[0]) and "no intervals" in all_text(drawn[0])
