"""The grid of an image's voxels: its spacing, and the box in which a mask lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import find_objects


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box that holds all of a boolean mask; None if nothing is in it."""
    if not mask.size:
        return None
    boxes = find_objects(mask.view(np.int8))
    return boxes[0] if boxes else None


def read_spacing(spacing_mm: Sequence[float] | np.ndarray, num_axes: int) -> np.ndarray:
    """(num_axes,) float64; ValueError unless these are as many positive numbers."""
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (num_axes,) or not (spacing > 0).all():
        raise ValueError(f"spacing_mm must be {num_axes} positive numbers, got {spacing_mm!r}.")
    return spacing
