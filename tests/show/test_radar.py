"""Radars: outward is better, gaps are gaps, and many methods do not lie on each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.show.radar import draw_radar
from tests.show.conftest import METHODS
from tests.show.looks import all_text, assert_legible, marked

SETS = ["ACDC", "FLARE", "a data set with a long name", "KiTS_2019_and_more"]


def radii(line) -> np.ndarray:
    return np.asarray(line.get_ydata(), dtype=float)[:-1]  # without the corner that closes the polygon


@pytest.mark.parametrize(("better", "center", "rim"), [("higher", 0.6, 1.0), ("lower", 1.1, 0.7)])
def test_corners_are_the_values_and_better_ones_lie_outward(tmp_path, drawn, better, center, rim):
    values = {"a": [0.7, 0.8, 0.9, 0.95], "b": [0.9, 0.7, 0.7, 0.7]}
    draw_radar(SETS, values, tmp_path / "radar.png", better=better, metric="M")
    polygons = marked(drawn[0], "polygon")
    assert f"Centre {center}, rim {rim}, rings" in all_text(drawn[0])
    for line, expected in zip(polygons, values.values()):
        assert center + radii(line) * (rim - center) == pytest.approx(np.array(expected))
        assert line.get_ydata()[0] == line.get_ydata()[-1]
    axes = drawn[0].axes[0]
    x, y = (axes.transData.transform(polygons[0].get_xydata()[:4]) - axes.transData.transform((0, 0))).T
    assert x[0] == pytest.approx(0, abs=1) and y[0] > 0 and x[1] > 0 and y[2] < 0 and x[3] < 0  # clockwise from the top
    assert f"Outward is better (M: {better} is better)" in all_text(drawn[0])


def test_a_scale_of_each_axis_runs_from_its_worst_to_its_best(tmp_path, drawn):
    values = {"a": [0.5, 30, 1], "b": [0.6, 10, 1], "c": [0.55, 20, 1]}
    draw_radar(SETS[:3], values, tmp_path / "radar.png", better="lower", metric="ECE", scale="axis")
    first, second, third = (radii(line) for line in marked(drawn[0], "polygon"))
    assert first == pytest.approx([1, 0.2, 0.6]) and second == pytest.approx([0.2, 1, 0.6])
    assert third == pytest.approx([0.6, 0.6, 0.6])
    assert "ACDC 0.600 to 0.500" in all_text(drawn[0]) and "FLARE 30.000 to 10.000" in all_text(drawn[0])


@pytest.mark.parametrize(("count", "scale"), [(6, "common"), (6, "axis"), (13, "axis")])
def test_missing_values_are_named_and_few_axes_become_rows_of_points(tmp_path, drawn, count, scale):
    values = {method: [0.5, 0.6, 0.7, 0.8] for method in METHODS[:count]}
    values["CE"] = [0.5, math.nan, math.nan, 0.8]
    values["NACL"] = [math.nan] * 4
    draw_radar(SETS, values, tmp_path / "radar.png", better="higher", metric="ECE", scale=scale)
    assert not marked(drawn[0], "polygon")
    assert [text.get_text() for text in marked(drawn[0].axes[1], "number")][:3] == ["0.600", "–", "–"]
    assert "No value for CE: FLARE, a data set with a long name." in all_text(drawn[0])
    assert_legible(drawn[0])


def test_missing_values_on_many_axes_are_gaps(tmp_path, drawn):
    values = {"a": np.arange(20.0), "b": np.full(20, np.nan), "c": np.arange(20.0)[::-1].copy()}
    values["c"][3:5] = np.nan
    draw_radar([f"s{i}" for i in range(20)], values, tmp_path / "radar.png", better="lower", metric="ECE", scale="axis")
    _, empty, line = marked(drawn[0], "polygon")
    assert np.isnan(radii(line)).nonzero()[0].tolist() == [3, 4] and np.isnan(radii(empty)).all()
    assert "No value for c: s3, s4." in all_text(drawn[0])


@pytest.mark.parametrize(("values", "scale"), [({"a": [1, 2, 3]}, "axis"), ({"a": [0] * 3, "b": [0] * 3}, "common")])
def test_a_radar_that_would_be_the_same_whatever_the_values_becomes_rows_of_points(tmp_path, drawn, values, scale):
    draw_radar(SETS[:3], values, tmp_path / "radar.png", better="lower", metric="ECE", scale=scale)
    assert not marked(drawn[0], "polygon") and len(marked(drawn[0], "number")) == 3 * len(values)
    assert_legible(drawn[0])


def test_many_methods_get_a_radar_each_over_the_first(tmp_path, drawn):
    values = {method: [0.5 + i / 40, 0.6, 0.7] for i, method in enumerate(METHODS)}
    draw_radar(SETS[:3], values, tmp_path / "radar.png", better="higher", metric="Dice")
    assert len(drawn[0].axes) == 13
    outlines = marked(drawn[0], "reference")
    assert len(outlines) == 12
    assert radii(outlines[0]) == pytest.approx(radii(marked(drawn[0].axes[0], "polygon")[0]))
    assert "Grey and dashed in every radar: CE+Dice (stock)." in all_text(drawn[0])


@pytest.mark.parametrize(("axes", "scale"), [(1, "axis"), (2, "common"), (2, "axis")])
def test_one_or_two_axes_become_rows_of_points(tmp_path, drawn, axes, scale):
    values = {method: [i / 7, i / 100][:axes] for i, method in enumerate(METHODS)}
    values["NACL"] = [math.nan] * axes
    draw_radar(SETS[2:][:axes], values, tmp_path / "radar.png", better="lower", metric="HD95 (mm)", scale=scale)
    for j, panel in enumerate(drawn[0].axes):
        shown = [line.get_xydata()[0] for line in panel.lines if line.get_label() != "NACL"]
        expected = [(line[j], i) for i, line in enumerate(values.values()) if not math.isnan(line[j])]
        assert np.array(shown) == pytest.approx(np.array(expected))
    assert "HD95 (mm), lower is better ←" in all_text(drawn[0])
    assert "No value for NACL" in all_text(drawn[0])
    assert (drawn[0].axes[0].get_xlim() == drawn[0].axes[-1].get_xlim()) == (scale == "common" or axes == 1)
    assert_legible(drawn[0])


def test_labels_beside_small_radars_stay_inside(tmp_path, drawn):
    names = ["ACDC", "FLARE", "Dataset104_Hippocampus", "KiTS", "Prostate MRI", "a_data_set_of_many_words_in_its_name"]
    values = {method: range(6) for method in METHODS[:8]}
    draw_radar(names, values, tmp_path / "radar.png", better="higher", metric="ECE")
    assert_legible(drawn[0])
    words = all_text(drawn[0])
    assert words.count("Hippocampus") == 8  # in one piece


@pytest.mark.parametrize(("methods", "count"), [(2, 24), (8, 12)])
def test_names_that_would_lie_on_each_other_become_numbers(tmp_path, drawn, methods, count):
    names = [f"Dataset{100 + i}_with_a_long_name of part {i}" for i in range(count)]
    values = {method: np.linspace(0.1, 0.4, count) + i for i, method in enumerate(METHODS[:methods])}
    draw_radar(names, values, tmp_path / "radar.png", better="lower", metric="ECE", scale="axis")
    (first, *_) = drawn[0].axes
    assert [text.get_text() for text in marked(first, "axis")] == [str(i + 1) for i in range(count)]
    words = f"Spokes: 1 Dataset100_with_a_long_name of part 0 ({methods - 1}.100 to 0.100); 2 Dataset101"
    assert words in all_text(drawn[0])
    assert_legible(drawn[0])


def test_of_very_many_spokes_some_are_numbered_and_all_are_named(tmp_path, drawn):
    names = [f"structure {i}" for i in range(104)]
    draw_radar(names, {"a": np.arange(104), "b": np.ones(104)}, tmp_path / "radar.png", better="higher", metric="ECE")
    shown = [text.get_text() for text in marked(drawn[0], "axis") if text.get_text()]
    assert shown[0] == "1" and 20 < len(shown) < 104 and all(name in all_text(drawn[0]) for name in names)
    assert len(marked(drawn[0], "polygon")[0].get_xdata()) == 105
    assert_legible(drawn[0])


@pytest.mark.parametrize("table", [-np.eye(3), np.eye(3), 1e-9 * np.eye(3), [[0, 0, 1e6]]])
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_every_value_lies_within_the_rim_and_the_worst_off_the_centre(tmp_path, drawn, table, better):
    draw_radar(SETS[:3], dict(zip("abc", table)), tmp_path / "radar.png", better=better, metric="ECE")
    shares = np.concatenate([radii(line) for line in marked(drawn[0], "polygon")])
    worst_is_zero = better == "higher" and np.min(table) == 0  # no ring of a metric without negative values is negative
    assert shares.max() <= 1 + 1e-9 and (shares.min() == 0 if worst_is_zero else shares.min() > 0)
