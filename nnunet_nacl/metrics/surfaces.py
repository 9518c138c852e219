"""Distances between the surfaces of two segmentations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from nnunet_nacl.metrics.grid import bounding_box, read_spacing


def surface_distances(
    truth: np.ndarray, predicted: np.ndarray, spacing_mm: Sequence[float] | None = None
) -> np.ndarray:
    """Distance of each surface voxel of the prediction, then of the truth, to the nearest one of
    the other, by centres.

    A surface voxel has a face neighbour outside the boolean mask, or lies at the border of the
    image. Axes of length 1 (2D images in nnU-Net's arrays) count as absent.

    Args:
        truth: Boolean mask.
        predicted: Boolean mask of the same shape.
        spacing_mm: Of the voxels along each axis; None: distances are in voxels.

    Returns:
        (n,) in mm, or in voxels; empty where a mask is empty.

    Raises:
        ValueError: Shapes differ, or the spacing does not fit.
    """
    if truth.shape != predicted.shape:
        raise ValueError(
            f"truth and predicted must have one shape, got {truth.shape} and {predicted.shape}."
        )
    if spacing_mm is None:
        spacing = np.ones(truth.ndim)
    else:
        spacing = read_spacing(spacing_mm, truth.ndim)
    surface_of_prediction = surface_voxels(predicted)
    surface_of_truth = surface_voxels(truth)
    if not len(surface_of_prediction) or not len(surface_of_truth):
        return np.empty(0)
    shape = truth.shape
    to_truth = _find_distances(surface_of_prediction, surface_of_truth, shape, spacing)
    to_prediction = _find_distances(surface_of_truth, surface_of_prediction, shape, spacing)
    return np.concatenate([to_truth, to_prediction])


def _find_distances(
    voxels: np.ndarray, others: np.ndarray, shape: tuple[int, ...], spacing: np.ndarray
) -> np.ndarray:
    """(n,) distance of each of (n, ndim) voxels of an image to the nearest of (m, ndim) others."""
    numbers = np.ravel_multi_index(tuple(voxels.T), shape)
    numbers_of_others = np.ravel_multi_index(tuple(others.T), shape)
    # A voxel that both have is at distance 0: only the rest is searched.
    is_apart = ~np.isin(numbers, numbers_of_others, assume_unique=True)
    distances = np.zeros(len(voxels))
    if is_apart.any():
        tree = cKDTree(others * spacing)
        distances[is_apart] = tree.query(voxels[is_apart] * spacing)[0]
    return distances


def surface_voxels(mask: np.ndarray) -> np.ndarray:
    """(n, ndim) indices of a boolean mask's surface voxels; see :func:`surface_distances`.

    SciPy's binary erosion makes every voxel of a single slice a surface: it counts what lies
    outside of an axis of length 1 as neighbours.
    """
    box = bounding_box(mask)
    if box is None:
        return np.empty((0, mask.ndim), dtype=np.int64)
    in_box = mask[box]
    padded = np.pad(in_box, 1)
    without_padding = (slice(1, -1),) * mask.ndim
    is_inner = in_box.copy()
    for axis, length in enumerate(mask.shape):
        if length == 1:
            continue
        for step in (-1, 1):
            is_inner &= np.roll(padded, step, axis)[without_padding]
    corner = [part.start for part in box]
    return np.argwhere(in_box & ~is_inner) + corner


def hausdorff(distances: np.ndarray, percentile: float = 95.0) -> float:
    """Percentile of surface distances, as medpy's: 95 gives HD95, 100 the Hausdorff distance; NaN
    without any."""
    return float(np.percentile(distances, percentile)) if len(distances) else math.nan


def assd(distances: np.ndarray) -> float:
    """Average symmetric surface distance: the mean of the surface distances, as medpy's; NaN
    without any."""
    return float(distances.mean()) if len(distances) else math.nan
