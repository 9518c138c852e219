"""The scatter: points and intervals are the numbers given, in every panel."""

from __future__ import annotations

import pytest

from nnunet_nacl.show.scatter import draw_scatter
from tests.show.conftest import METHODS
from tests.show.looks import all_text, assert_legible, interval, marked, points

POINT = (interval(0.8, 0.7, 0.9), interval(0.1, 0.05, 0.2))


def test_points_and_intervals_are_the_numbers(tmp_path, drawn):
    panels = {
        "ECE": {"a": POINT, "b": (interval(0.6), interval(0.3, 0.2, 0.4))},
        "CECE": {"b": (interval(0.6), interval(0.5))},
    }
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
    panels = {"ECE": {"a": POINT, "b": (interval(0.6), interval())}, "CECE": {"a": (interval(), interval(0.5))}}
    draw_scatter(panels, tmp_path / "scatter.png")
    assert "ECE: no value for b." in all_text(drawn[0]) and "CECE: no value for a." in all_text(drawn[0])
    assert "no value" in [text.get_text() for text in drawn[0].axes[1].texts]


@pytest.mark.parametrize("panels", [1, 5])
def test_many_long_names_do_not_overlap(tmp_path, drawn, panels):
    points = {method: (interval(0.8 + i / 100), interval(0.1)) for i, method in enumerate(METHODS)}
    draw_scatter({f"panel {i}": points for i in range(panels)}, tmp_path / "scatter.png", title="t", subtitle="s")
    assert_legible(drawn[0])
    assert all(method in all_text(drawn[0]).replace(" ", "") for method in ("SVLS", "L" * 60))
    assert drawn[0].get_size_inches()[0] <= 9


def test_refuses_other_suffixes(tmp_path):
    with pytest.raises(ValueError, match="'.tiff'"):
        draw_scatter({"ECE": {"a": POINT}}, tmp_path / "s.tiff")
