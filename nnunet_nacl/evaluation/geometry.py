"""Whether two images that nnU-Net's readers returned lie in the same place."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["geometry_difference"]

_SPACING_TOLERANCE = 1e-2  # relative; file formats round
_DIRECTION_TOLERANCE = 1e-2
_ORIGIN_TOLERANCE_VOXELS = 0.5


def geometry_difference(
    first: dict[str, Any], second: dict[str, Any], first_shape: tuple[int, ...], second_shape: tuple[int, ...]
) -> str:
    """What differs between two images, in words; empty if nothing does.

    Compares shape, spacing and, where the reader keeps them, origin and direction or the affine matrix. Differences
    that file formats introduce by rounding, and origins less than half a voxel apart, are none.

    Args:
        first: Properties from a reader of nnU-Net.
        second: Those of the other image.
        first_shape: Spatial shape of the first array.
        second_shape: That of the second.

    Returns:
        For example ``"spacing (1.0, 1.0, 1.0) and (2.0, 1.0, 1.0)"``.
    """
    if tuple(first_shape) != tuple(second_shape):
        return f"shape {tuple(first_shape)} and {tuple(second_shape)}"
    spacing, other_spacing = (np.asarray(p["spacing"], dtype=float) for p in (first, second))
    if not np.allclose(spacing, other_spacing, rtol=_SPACING_TOLERANCE, atol=0):
        return f"spacing {_tuple(spacing)} and {_tuple(other_spacing)}"
    for key in ("sitk_stuff", "nibabel_stuff"):
        if key not in first or key not in second:
            continue
        for name, difference in _details(first[key], second[key], spacing.min()):
            if difference:
                return f"{name} {difference}"
    return ""


def _details(first: dict[str, Any], second: dict[str, Any], voxel: float):
    for name in ("origin", "direction", "original_affine"):
        if name not in first or name not in second:
            continue
        a, b = np.asarray(first[name], dtype=float), np.asarray(second[name], dtype=float)
        if a.shape != b.shape:
            yield name, f"of shape {a.shape} and {b.shape}"
        elif name == "origin":
            apart = np.abs(a - b).max() > _ORIGIN_TOLERANCE_VOXELS * voxel
            yield name, f"{_tuple(a)} and {_tuple(b)}" if apart else ""
        elif name == "direction":
            apart = np.abs(a - b).max() > _DIRECTION_TOLERANCE
            yield name, f"{_tuple(a)} and {_tuple(b)}" if apart else ""
        else:
            apart = np.abs(a[:, :-1] - b[:, :-1]).max() > _DIRECTION_TOLERANCE * np.abs(a[:, :-1]).max()
            apart |= np.abs(a[:, -1] - b[:, -1]).max() > _ORIGIN_TOLERANCE_VOXELS * voxel
            yield "affine", f"{a.round(3).tolist()} and {b.round(3).tolist()}" if apart else ""


def _tuple(array: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in array.ravel())
