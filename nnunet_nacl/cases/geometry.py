"""Spacing, origin and axes of an image, taken from the properties that nnU-Net's readers return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

# Within these two images lie at the same place: file formats round.
_SPACING_TOLERANCE = 1e-2  # relative
_DIRECTION_TOLERANCE = 1e-2  # of each component of a unit vector
_ORIGIN_TOLERANCE_VOXELS = 0.5
_SAME_SPACING = 1.01  # axes whose spacings differ by a smaller factor are equally thick
# NIfTI's patient coordinates to DICOM's: x and y grow the other way
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Geometry:
    """Position, orientation and voxel size of an array as one of nnU-Net's readers returned it.

    Attributes:
        spacing_mm: In the order of the array axes (z, y, x). nnU-Net's readers give 2D images a
            third axis, the first, with 999 times the largest spacing. Pictures have spacing 1,
            which is no length.
        affine: (n + 1, n + 1) matrix from voxel indices in the order (x, y, z) to mm in DICOM's
            patient coordinates (x grows to the left, y to the back, z to the head); n is 2 for 2D
            images, else 3. None where the format does not say (tif and pictures).
    """

    spacing_mm: tuple[float, ...]
    affine: np.ndarray | None = None

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> Geometry:
        """The geometry in the properties of a reader of nnU-Net, or of a prediction's pkl."""
        spacing = tuple(float(value) for value in properties["spacing"])
        sitk_stuff = properties.get("sitk_stuff")
        if sitk_stuff is not None:
            n = len(sitk_stuff["origin"])
            directions = np.reshape(sitk_stuff["direction"], (n, n))
            affine = np.eye(n + 1)
            affine[:n, :n] = directions * np.asarray(sitk_stuff["spacing"])
            affine[:n, n] = sitk_stuff["origin"]
            return cls(spacing, affine)
        nibabel_stuff = properties.get("nibabel_stuff")
        if nibabel_stuff is not None:
            original = nibabel_stuff["original_affine"]
            affine = np.asarray(nibabel_stuff.get("reoriented_affine", original), dtype=float)
            return cls(spacing, _RAS_TO_LPS @ affine)
        return cls(spacing)

    @property
    def is_2d(self) -> bool:
        """Whether the first array axis is one that nnU-Net's reader added."""
        # the reader gives it 999 times the largest spacing; 900 leaves room for rounding
        return len(self.spacing_mm) == 3 and self.spacing_mm[0] > 900 * max(self.spacing_mm[1:])

    @property
    def unit(self) -> Literal["ml", "mm2", "pixels"]:
        """Of a voxel's size: ``pixels`` is for pictures, whose spacing is no length."""
        if not self.is_2d:
            return "ml"
        if self.affine is None:
            return "pixels"
        return "mm2"

    @property
    def voxel_size(self) -> float:
        """Volume or area of a voxel in ``unit``."""
        if self.unit == "ml":
            return float(np.prod(self.spacing_mm)) / 1000
        if self.unit == "mm2":
            return float(np.prod(self.spacing_mm[1:]))
        return 1.0

    @property
    def directions(self) -> np.ndarray | None:
        """(n, n) unit vectors, a column for each axis (x, y, z); None where they are not known.

        NaN for an axis of no length.
        """
        if self.affine is None:
            return None
        return _directions_of(self.affine)


def _directions_of(affine: np.ndarray) -> np.ndarray:
    axes = affine[:-1, :-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return axes / np.linalg.norm(axes, axis=0)


def geometry_difference(
    first: Geometry, second: Geometry, first_shape: tuple[int, ...], second_shape: tuple[int, ...]
) -> str:
    """What differs between places and spatial shapes of two images, in words; empty if nothing.

    Compares shape, spacing and, where the formats hold them, the directions of the axes and the
    origin. Differences that file formats introduce by rounding, and origins less than half a voxel
    apart, do not count.
    """
    if tuple(first_shape) != tuple(second_shape):
        return f"shape {tuple(first_shape)} and {tuple(second_shape)}"
    if first.affine is not None and second.affine is not None:
        if first.affine.shape != second.affine.shape:
            return f"{len(first.affine) - 1} and {len(second.affine) - 1} dimensions"
    spacing = np.array(first.spacing_mm)
    other_spacing = np.array(second.spacing_mm)
    if not np.allclose(spacing, other_spacing, rtol=_SPACING_TOLERANCE, atol=0, equal_nan=True):
        return f"spacing {_as_text(spacing)} and {_as_text(other_spacing)}"
    if first.affine is None or second.affine is None:
        return ""
    half_voxel = _ORIGIN_TOLERANCE_VOXELS * min(first.spacing_mm)
    compared = (
        (
            "direction",
            _directions_of(first.affine),
            _directions_of(second.affine),
            _DIRECTION_TOLERANCE,
        ),
        ("origin", first.affine[:-1, -1], second.affine[:-1, -1], half_voxel),
    )
    for name, values, other_values, tolerance in compared:
        if not np.allclose(values, other_values, rtol=0, atol=tolerance, equal_nan=True):
            return f"{name} {_as_text(values)} and {_as_text(other_values)}"
    return ""


def _as_text(values: np.ndarray) -> str:
    return str(tuple(np.ravel(np.round(values, 4) + 0.0).tolist()))  # -0.0 + 0.0 is 0.0


def slicing_axis(spacing_mm: Sequence[float]) -> int:
    """The array axis across the slices: the first of the thickest ones.

    What is shown of a slice then has the finest grid.
    """
    thickest = max(spacing_mm)
    is_thickest = [spacing * _SAME_SPACING >= thickest for spacing in spacing_mm]
    return is_thickest.index(True)
