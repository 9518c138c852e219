"""The scatter: points and intervals are the numbers given, in every panel."""

from __future__ import annotations

import math

import pytest

from nnunet_nacl.show.scatter import draw_scatter
from tests.show.conftest import METHODS
from tests.show.looks import all_text, assert_legible, marked, points

POINT = (0.8, 0.1, (0.7, 0.9), (0.05, 0.2))


def test_points_and_intervals_are_the_numbers(tmp_path, drawn):
    panels = {"ECE": {"a": POINT, "b": (0.6, 0.3, None, (0.2, 0.4))}, "CECE": {"b": (0.6, 0.5, None, None)}}
    draw_scatter(panels, tmp_path / "scatter.png")
    first, second = drawn[0].axes
    shown = {line.get_label(): tuple(line.get_xydata()[0]) for line in first.lines if line.get_gid() is None}
    assert shown == {"a": (0.8, 0.1), "b": (0.6, 0.3)}
    assert points(marked(first, "x interval")) == [(0.7, 0.1, 0.9, 0.1)]
    assert points(marked(first, "y interval")) == [(0.8, 0.05, 0.8, 0.2), (0.6, 0.2, 0.6, 0.4)]
    assert not marked(second, "x interval") and len(second.lines) == 1
    assert first.get_xlim() == second.get_xlim()
    assert "DSC, higher is better →" in all_text(drawn[0]) and "CECE, lower is better ←" in all_text(drawn[0])


def test_missing_values_are_left_out_and_named(tmp_path, drawn):
    panels = {"ECE": {"a": POINT, "b": (0.6, math.nan, None, None)}, "CECE": {"a": (None, 0.5, None, None)}}
    draw_scatter(panels, tmp_path / "scatter.png")
    assert "ECE: no value for b." in all_text(drawn[0]) and "CECE: no value for a." in all_text(drawn[0])
    assert "no value" in [text.get_text() for text in drawn[0].axes[1].texts]


@pytest.mark.parametrize("panels", [1, 5])
def test_many_long_names_do_not_overlap(tmp_path, drawn, panels):
    points = {method: (0.8 + i / 100, 0.1, None, None) for i, method in enumerate(METHODS)}
    draw_scatter({f"panel {i}": points for i in range(panels)}, tmp_path / "scatter.png", title="t", subtitle="s")
    assert_legible(drawn[0])
    assert all(method in all_text(drawn[0]).replace(" ", "") for method in ("SVLS", "L" * 60))
    assert drawn[0].get_size_inches()[0] <= 9


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"panels": {}}, "at least one panel"),
        ({"panels": {"ECE": {}}}, "at least one panel"),
        ({"panels": {"ECE": {"a": (1, 2)}}}, "point of a in ECE must be"),
        ({"panels": {"ECE": {"a": (1, math.inf, None, None)}}}, "point of a in ECE must be finite"),
        ({"panels": {"ECE": {"a": (1, 2, (3, 1), None)}}}, "x of a in ECE must run from low to high"),
        ({"path": "s.tiff"}, "'.tiff'"),
    ],
)
def test_refuses_what_it_cannot_draw(tmp_path, keywords, message):
    given = {"panels": {"ECE": {"a": POINT}}, "path": "s.png", **keywords}
    given["path"] = tmp_path / given["path"]
    with pytest.raises(ValueError, match=message):
        draw_scatter(**given)
