"""Predicted against true Dice: the points are the numbers, and what lies outside its interval is counted and marked."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.show.predicted_dice import covered_cases, draw_predicted_dice
from tests.show.looks import all_text, assert_legible, marked, points

ONE = {"predicted": [[0.8, 0.9, 0.7, 0.6]], "true": [[0.85, 0.6, None, 0.5]]}
ENDS = {"low": [[0.7, 0.8, 0.6, None]], "high": [[0.85, 0.95, 0.8, None]]}


def test_cases_at_an_end_of_their_interval_are_covered_and_those_without_any_are_not_counted():
    assert covered_cases([0.85, 0.6, None, 0.5, 0.2], [0.7, 0.8, 0, None, 0.2], [0.85, 0.95, 1, None, 0.3]) == (2, 3)


def test_points_intervals_and_coverage_are_the_numbers(tmp_path, drawn):
    draw_predicted_dice(["posterior"], **ONE, **ENDS, path=tmp_path / "dice.png", level=0.9)
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
    low, high = np.maximum(predicted - 0.1, 0), np.minimum(predicted + 0.1, 1)
    names = [f"a structure_of_many words in its name {i}" for i in range(count)]
    draw_predicted_dice(names, predicted, true, low, high, tmp_path / "dice.png", title="t", notes=["n"])
    assert_legible(drawn[0])
    assert drawn[0].get_size_inches()[0] <= 9


def test_a_structure_without_cases_says_so(tmp_path, drawn):
    nothing = [[math.nan]]
    draw_predicted_dice(["a"], nothing, nothing, nothing, nothing, tmp_path / "dice.png")
    assert "no value" in all_text(drawn[0]) and "no intervals" in all_text(drawn[0])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"structures": []}, "at least one structure"),
        ({"true": [[1], [1]]}, "true must have an entry per structure, 1, got 2"),
        ({"true": [[1]]}, "true Dice of a must have 4 values, got 1"),
        ({"predicted": [[0.8, 90, 0.7, 0.6]]}, "predicted Dice of a must lie in 0..1, got"),
        ({"low": [[0.9, 0.8, 0.6, None]]}, "case 0 of a must run from low to high"),
        ({"level": 90}, "level must lie between 0 and 1, got 90"),
        ({"path": "dice.bmp"}, "'.bmp'"),
    ],
)
def test_refuses_what_it_cannot_draw(tmp_path, keywords, message):
    given = {"structures": ["a"], "path": "dice.png", **ONE, **ENDS, **keywords}
    given["path"] = tmp_path / given["path"]
    with pytest.raises(ValueError, match=message):
        draw_predicted_dice(**given)
    assert not list(tmp_path.iterdir())
