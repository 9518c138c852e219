"""Masks around the ground truth, in mm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from nnunet_nacl.metrics.surface import bounding_box

__all__ = ["boundary_mask", "dilated_mask"]

_ROUNDING = 1e-6  # relative; a neighbour exactly at the radius counts, whatever its distance rounds to


def dilated_mask(
    labels: np.ndarray, radius_mm: float, spacing_mm: Sequence[float], *, valid: np.ndarray | None = None
) -> np.ndarray:
    """The foreground grown by a radius: voxels whose centre is at most ``radius_mm`` from a foreground voxel's centre.

    Args:
        labels: Label map or boolean mask of any number of dimensions; 0 is the background.
        radius_mm: Radius; 0 gives the foreground itself.
        spacing_mm: Voxel size along each axis.
        valid: False where a voxel is ignored; such voxels neither grow nor are in the mask.

    Returns:
        Boolean mask.

    Raises:
        ValueError: The radius is negative or the spacing does not fit.
    """
    foreground = labels != 0 if valid is None else (labels != 0) & valid

    def grow(part: np.ndarray, _: None) -> np.ndarray:
        return _spread(part, radius_mm, spacing_mm, np.maximum)

    result = _in_box(foreground, radius_mm, spacing_mm, grow)
    return result if valid is None else result & valid


def boundary_mask(
    labels: np.ndarray, width_mm: float, spacing_mm: Sequence[float], *, valid: np.ndarray | None = None
) -> np.ndarray:
    """Band around the surfaces of the ground truth: voxels with another label at most ``width_mm`` away.

    Distances are from centre to centre, so a width below the spacing gives an empty band along that axis. Surfaces
    between two structures count like those against the background.

    Args:
        labels: Label map of any number of dimensions.
        width_mm: Reach to either side.
        spacing_mm: Voxel size along each axis.
        valid: False where a voxel is ignored; such voxels make no surface and are not in the mask.

    Returns:
        Boolean mask.

    Raises:
        ValueError: The width is negative or the spacing does not fit.
    """
    labels = np.asarray(labels)
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    kinds = (np.uint8, np.int32, np.int64) if labels.min(initial=0) >= 0 else (np.int32, np.int64)
    dtype = next(kind for kind in kinds if labels.max(initial=0) < np.iinfo(kind).max)
    top = np.iinfo(dtype).max
    known = np.ones(labels.shape, dtype=bool) if valid is None else valid

    def band(part: np.ndarray, part_known: np.ndarray) -> np.ndarray:
        highest = _spread(np.where(part_known, part, 0).astype(dtype), width_mm, spacing_mm, np.maximum)
        lowest = _spread(np.where(part_known, part, top).astype(dtype), width_mm, spacing_mm, np.minimum)
        return part_known & ((highest != part) | (lowest != part))

    return _in_box((labels != 0) & known, width_mm, spacing_mm, band, labels, known)


def _in_box(foreground, radius_mm, spacing_mm, function, labels=None, known=None) -> np.ndarray:
    """Apply ``function`` to the box of the foreground, grown by the radius; the result is False elsewhere."""
    if len(spacing_mm) != foreground.ndim or not all(s > 0 for s in spacing_mm):
        raise ValueError(f"spacing_mm must be {foreground.ndim} positive numbers, got {tuple(spacing_mm)}.")
    if not radius_mm >= 0:
        raise ValueError(f"the radius in mm must not be negative, got {radius_mm!r}.")
    result = np.zeros(foreground.shape, dtype=bool)
    box = bounding_box(foreground)
    if box is None:
        return result
    # one voxel more than the radius, so that the border of the box is background
    reach = [int(radius_mm / spacing) + 1 for spacing in spacing_mm]
    box = tuple(slice(max(part.start - r, 0), part.stop + r) for part, r in zip(box, reach))
    part = foreground[box] if labels is None else labels[box]
    result[box] = function(part, None if known is None else known[box])
    return result


def _spread(array: np.ndarray, radius_mm: float, spacing_mm: Sequence[float], combine) -> np.ndarray:
    """Greatest (or least) value within the radius: the ball as runs along the last axis, shifted along the others."""
    spacing = np.asarray(spacing_mm, dtype=float)
    limit = radius_mm**2 * (1 + _ROUNDING)
    reach = [min(int(radius_mm / s * (1 + _ROUNDING)), n - 1) for s, n in zip(spacing, array.shape)]
    runs: dict[int, list[tuple[int, ...]]] = {}
    for offset in product(*(range(-r, r + 1) for r in reach[:-1])):
        left = limit - float(((np.array(offset) * spacing[:-1]) ** 2).sum())
        if left >= 0:
            runs.setdefault(min(int(np.sqrt(left) / spacing[-1]), array.shape[-1] - 1), []).append(offset)
    result, run, done = array.copy(), array.copy(), 0
    for half_length in sorted(runs):
        for step in range(done + 1, half_length + 1):
            for shift in (-step, step):
                _combine_shifted(run, array, (0,) * (array.ndim - 1) + (shift,), combine)
        done = half_length
        for offset in runs[half_length]:
            _combine_shifted(result, run, (*offset, 0), combine)
    return result


def _combine_shifted(target: np.ndarray, source: np.ndarray, offset: tuple[int, ...], combine) -> None:
    to = tuple(slice(max(o, 0), n + min(o, 0)) for o, n in zip(offset, target.shape))
    origin = tuple(slice(max(-o, 0), n + min(-o, 0)) for o, n in zip(offset, target.shape))
    combine(target[to], source[origin], out=target[to])
