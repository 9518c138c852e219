"""Pictures of a slice: proportions in millimetres, scale bar, window, outlines, colours."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nnunet_nacl.show.drawing import (
    STRUCTURE_COLORS,
    Grid,
    draw_labels,
    grey_levels,
)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def rgb(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


@given(
    st.tuples(st.integers(1, 600), st.integers(1, 600)),
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
)
@settings(max_examples=100)
def test_a_pixel_is_as_high_as_wide_in_millimetres(shape, spacing_mm):
    grid = Grid(shape, spacing_mm)
    height, width = grid.pixels
    assert max(height, width) <= 481 and min(height, width) >= 1
    for pixel, size in zip((height, width), grid.size_mm):
        assert abs(pixel * grid.pixel_mm - size) <= max(grid.pixel_mm, 1e-9)
    assert grid.enlarge(np.zeros(shape)).shape == (height, width)
    length, bar = grid.scale_bar()
    assert 0 < length <= 0.4 * grid.size_mm[1] + 1e-9
    assert bar == pytest.approx(length / grid.pixel_mm, abs=1)
    assert f"{length:e}"[0] in "125"


def test_every_voxel_is_a_block_at_its_place():
    mask = np.zeros((10, 20), bool)
    mask[3, 7] = True
    grid = Grid(mask.shape, (2.0, 1.0))
    rows, columns = np.nonzero(grid.enlarge(mask))
    height, width = grid.pixels
    assert height == width == 320
    assert (rows.min(), rows.max() + 1) == (96, 128) and (columns.min(), columns.max() + 1) == (112, 128)


def test_the_window_runs_from_the_1st_to_the_99th_percentile():
    image = np.linspace(0, 1, 10_000).reshape(100, 100)
    image[0, 0], image[-1, -1] = -1e6, 1e6  # metal
    grey = grey_levels(image, Grid((100, 100), (1, 1)))[..., 0].astype(int)
    assert grey.min() == 0 and grey.max() == 255 and abs(np.median(grey) - 127) <= 4
    for flat in (np.full((5, 5), 7.0), np.full((5, 5), np.nan)):
        assert len(np.unique(grey_levels(flat, Grid((5, 5), (1, 1))))) == 1


def test_structures_are_tinted_and_outlined_and_later_ones_lie_on_top():
    outer, inner = np.zeros((2, 40, 40), bool)
    outer[5:35, 5:35], inner[15:25, 15:25] = True, True
    grid = Grid((40, 40), (1, 1))
    shown, grey = (
        pixels(draw_labels(outer * 0, [outer, inner], grid, (), (0, 0))),
        grey_levels(outer * 0, Grid((1, 1), (1, 1)))[0, 0],
    )
    assert shown.shape == (320, 320, 3)
    assert np.abs(shown[8, 310] - grey).max() <= 2
    assert np.abs(shown[40, 160] - rgb(STRUCTURE_COLORS[0])).max() <= 2
    assert np.abs(shown[120, 160] - rgb(STRUCTURE_COLORS[1])).max() <= 2
    for place, color in (((80, 80), 0), ((160, 160), 1)):
        tint = 0.65 * grey + 0.35 * np.array(rgb(STRUCTURE_COLORS[color]))
        assert np.abs(shown[place] - tint).max() <= 0.5, "rounded, not cut off"
