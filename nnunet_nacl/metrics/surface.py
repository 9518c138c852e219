"""Distances between surfaces in mm, exact, by k-d tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

__all__ = ["SurfaceDistances", "bounding_box", "surface_distances", "surface_voxels"]


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances of one structure, in mm if the spacing was.

    Attributes:
        to_truth: Distance of each surface voxel of the prediction to the nearest one of the truth.
        to_prediction: The same the other way round.
    """

    to_truth: np.ndarray
    to_prediction: np.ndarray

    @property
    def defined(self) -> bool:
        """False where the structure is missing in either segmentation."""
        return len(self.to_truth) > 0 and len(self.to_prediction) > 0

    def hausdorff(self, percentile: float = 95.0, *, directions: str = "pooled") -> float:
        """Percentile of the surface distances; NaN where the structure is missing in either segmentation.

        Args:
            percentile: 95 gives HD95, 100 the Hausdorff distance.
            directions: ``pooled`` takes the percentile of both directions' distances together (medpy's definition),
                ``max`` the larger of the two directions' percentiles (MONAI's).

        Raises:
            ValueError: ``directions`` is neither.
        """
        if directions not in ("pooled", "max"):
            raise ValueError(f"directions must be 'pooled' or 'max', got {directions!r}.")
        if not self.defined:
            return float("nan")
        if directions == "max":
            return float(max(np.percentile(self.to_truth, percentile), np.percentile(self.to_prediction, percentile)))
        return float(np.percentile(np.concatenate((self.to_truth, self.to_prediction)), percentile))

    @property
    def assd(self) -> float:
        """Average symmetric surface distance: the mean of both directions' distances together, as medpy's; or NaN."""
        return float(np.concatenate((self.to_truth, self.to_prediction)).mean()) if self.defined else float("nan")


def surface_distances(
    truth: np.ndarray, predicted: np.ndarray, spacing_mm: Sequence[float] | None = None
) -> SurfaceDistances:
    """Distances between the surface voxels of two masks, from centre to centre.

    A surface voxel has a face neighbour outside the mask, or lies at the border of the image. Axes of length 1 (2D
    images in nnU-Net's arrays) count as absent. Voxels that both surfaces share have distance 0 and are not searched.

    Args:
        truth: Boolean mask of any number of dimensions.
        predicted: Boolean mask of the same shape.
        spacing_mm: Voxel size along each axis; None takes 1.

    Returns:
        Both directed distances, empty where a mask is.

    Raises:
        ValueError: Shapes differ or the spacing does not fit.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth and predicted must have one shape, got {truth.shape} and {predicted.shape}.")
    spacing = np.ones(truth.ndim) if spacing_mm is None else np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (truth.ndim,) or not (spacing > 0).all():
        raise ValueError(f"spacing_mm must be {truth.ndim} positive numbers, got {spacing_mm!r}.")
    true_surface, predicted_surface = surface_voxels(truth), surface_voxels(predicted)
    if not len(true_surface) or not len(predicted_surface):
        return SurfaceDistances(np.empty(0), np.empty(0))
    true_flat, predicted_flat = (np.ravel_multi_index(s.T, truth.shape) for s in (true_surface, predicted_surface))
    true_points, predicted_points = true_surface * spacing, predicted_surface * spacing
    return SurfaceDistances(
        _nearest(predicted_points, ~np.isin(predicted_flat, true_flat, assume_unique=True), true_points),
        _nearest(true_points, ~np.isin(true_flat, predicted_flat, assume_unique=True), predicted_points),
    )


def surface_voxels(mask: np.ndarray) -> np.ndarray:
    """(n, ndim) indices of the mask's surface voxels; see :func:`surface_distances`."""
    mask = np.asarray(mask, dtype=bool)
    box = bounding_box(mask)
    if box is None:
        return np.empty((0, mask.ndim), dtype=np.int64)
    cropped = mask[box]
    inner = np.pad(cropped, 1)
    inside = np.ones_like(cropped)
    for axis, length in enumerate(mask.shape):
        if length == 1:
            continue
        for shift in (0, 2):
            starts = (shift if a == axis else 1 for a in range(mask.ndim))
            inside &= inner[tuple(slice(start, start + n) for start, n in zip(starts, cropped.shape))]
    return np.argwhere(cropped & ~inside) + [part.start for part in box]


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box that holds all of a boolean mask; None if nothing is in it."""
    return next(iter(find_objects(mask.view(np.int8))), None) if mask.size else None


def _nearest(points: np.ndarray, search: np.ndarray, others: np.ndarray) -> np.ndarray:
    distances = np.zeros(len(points))
    if search.any():
        distances[search] = cKDTree(others).query(points[search])[0]
    return distances
