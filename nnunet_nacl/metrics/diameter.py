"""The largest diameter of a component: the largest distance between two points of its voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BLOCK = 1 << 22  # distances at a time


def largest_diameter(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """The largest distance between two points of a component, its voxels taken as boxes: one alone has its diagonal.

    Exact. Both points are corners of voxels, and the first or the last of the component on the line along each axis;
    of those that are, the corners of the convex hull are compared pair by pair. A ball of a million voxels has some
    thousands of them.

    Args:
        mask: Boolean, of any number of dimensions.
        spacing_mm: Voxel size along each axis; an axis of length 1 that is no length (nnU-Net's of 2D images) must be
            left out.

    Returns:
        In the unit of the spacing; 0 where the mask is empty.
    """
    if not mask.any():
        return 0.0
    corners = np.zeros(tuple(n + 1 for n in mask.shape), bool)
    for place in np.ndindex((2,) * mask.ndim):
        corners[tuple(slice(p, p + n) for p, n in zip(place, mask.shape))] |= mask
    for axis in range(corners.ndim):
        corners &= _first_and_last(corners, axis)
    points = np.argwhere(corners)
    if len(points) > 64 and corners.ndim > 1:
        from scipy.spatial import ConvexHull

        points = points[ConvexHull(points).vertices]
    places, largest = points * np.asarray(spacing_mm, float), 0.0
    step = max(1, _BLOCK // len(places))
    for start in range(0, len(places), step):
        squares = sum((places[start : start + step, None, i] - places[None, :, i]) ** 2 for i in range(mask.ndim))
        largest = max(largest, float(np.max(squares)))
    return largest**0.5


def _first_and_last(mask: np.ndarray, axis: int) -> np.ndarray:
    """Where nothing of the mask lies before, or nothing after, on the line along an axis."""
    before = np.maximum.accumulate(mask, axis)
    after = np.flip(np.maximum.accumulate(np.flip(mask, axis), axis), axis)
    edge = [(int(i == axis), int(i == axis)) for i in range(mask.ndim)]
    padded_before, padded_after = np.pad(before, edge), np.pad(after, edge)
    inner = tuple(slice(None) for _ in range(axis))
    return ~padded_before[(*inner, slice(0, -2))] | ~padded_after[(*inner, slice(2, None))]
