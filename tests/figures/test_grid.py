"""Panels lie in a grid of one size, and each gets what is its own."""

from __future__ import annotations

import pytest

from nnunet_nacl.figures.grid import Grid, of_panel, shown_methods
from nnunet_nacl.figures.style import MAX_WIDTH, figure_settings
from tests.figures.looks import assert_legible


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (7, 3)])
def test_panels_have_one_size_and_do_not_touch(count, columns):
    with figure_settings():
        grid = Grid([f"a panel with a long name {i}" for i in range(count)], widest=(4, 3), height=2, gap=0.8)
        sheet = grid.sheet(title="title", notes=["note"])
        panels = list(grid.axes(sheet))
    assert sheet.width <= MAX_WIDTH and len({round(axis.get_position().x0, 9) for axis in panels}) == columns
    boxes = [axis.get_position() for axis in panels]
    for box in boxes:
        assert box.width * sheet.width == pytest.approx(grid.width) and box.height * sheet.height == pytest.approx(2)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert_legible(sheet.figure)


def test_panels_are_square_without_a_height():
    grid = Grid(["a", "b"], widest=(4, 3), height=None, gap=0.8)
    assert grid.height == grid.width == 3
    assert Grid(["a"], widest=(4, 3), height=None, gap=0.8).width == 4


def test_what_belongs_to_a_panel():
    assert of_panel("all", "ECE", "better") == "all" and of_panel({"ECE": "own"}, "ECE", "better") == "own"
    with pytest.raises(ValueError, match="better lacks the panel 'ECE': it has DSC, NLL"):
        of_panel({"DSC": "x", "NLL": "y"}, "ECE", "better")


def test_methods_come_in_the_order_of_the_comparison_with_its_looks():
    panels = {"ECE": {"c": 1, "a": 2}, "DSC": {"b": 1}}
    looks = shown_methods(panels, ["x", "a", "b", "c"])
    assert list(looks) == ["a", "b", "c"] and looks["a"] != shown_methods({"ECE": {"a": 1}}, None)["a"]
    with pytest.raises(ValueError, match="at least one panel with one method"):
        shown_methods({"ECE": {}}, None)
