"""The rank heat map: every number in its cell, dark for good, the best framed."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from nnunet_nacl.show.rank_heatmap import draw_rank_heatmap
from tests.show.conftest import METHODS
from tests.show.looks import all_text, assert_legible, marked

METRICS = ["DSC", "HD95", "ECE", "CECE", "NLL", "total"]


def draw(tmp_path, rows, columns, ranks, decimals=0):
    path = tmp_path / "ranks.png"
    draw_rank_heatmap(rows, columns, np.array(ranks, dtype=float), path, decimals=decimals, what="rank")


def brightness(axis) -> dict[tuple[int, int], float]:
    """Of the cells, by row and column."""
    cells = [p for p in axis.patches if isinstance(p, Rectangle) and p.get_width() == 1]
    return {(round(c.get_y() + 0.5), round(c.get_x() + 0.5)): sum(to_rgb(c.get_facecolor())) for c in cells}


def test_every_cell_states_its_number(tmp_path, drawn):
    ranks = np.arange(78).reshape(13, 6) / 7
    draw(tmp_path, METHODS, METRICS, ranks, decimals=2)
    for (i, j), value in np.ndenumerate(ranks):
        (text,) = marked(drawn[0], f"cell {i} {j}")
        assert text.get_text() == f"{value:.2f}" and text.get_position() == (j, i)


def test_dark_is_good_within_a_column(tmp_path, drawn):
    draw(tmp_path, METHODS[:3], METRICS[:2], [[1, 30], [2, 10], [3, 20]])
    column = brightness(drawn[0].axes[0])
    assert column[0, 0] == column[1, 1] < column[1, 0] < column[2, 0] == column[0, 1]
    assert "one column" in all_text(drawn[0]) and "low rank is better" in all_text(drawn[0])


def test_the_best_of_a_line_is_framed_with_its_ties(tmp_path, drawn):
    ranks = [[1, 3], [1, 2], [2, math.nan]]
    draw(tmp_path, METHODS[:3], METRICS[:2], ranks)
    framed = [(round(p.get_y() + 0.42), round(p.get_x() + 0.44)) for p in marked(drawn[0], "best")]
    assert framed == [(0, 0), (1, 0), (1, 1)]
    assert marked(drawn[0], "cell 1 1")[0].get_fontweight() == "bold"


def test_missing_ranks_are_hatched_and_counted(tmp_path, drawn):
    draw(tmp_path, ["a", "b"], ["x", "y"], [[1, math.nan], [math.nan, math.nan]])
    assert "Hatched: no value (3 of 4 cells)" in all_text(drawn[0])
    assert sum(patch.get_hatch() is not None for patch in drawn[0].axes[0].patches) == 3
    assert not marked(drawn[0], "cell 0 1") and len(marked(drawn[0], "best")) == 1


def test_long_names_do_not_overlap(tmp_path, drawn):
    draw(tmp_path, METHODS, METRICS, np.ones((len(METHODS), len(METRICS))))
    assert_legible(drawn[0])
    assert drawn[0].get_size_inches()[0] <= 9.01
