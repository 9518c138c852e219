"""Spacing, origin and axes of an image, taken from the properties that nnU-Net's readers return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_SPACING_TOLERANCE, _DIRECTION_TOLERANCE = 1e-2, 1e-2  # the first relative; file formats round
_ORIGIN_TOLERANCE_VOXELS = 0.5
_SAME_SPACING = 1.01
# NIfTI's patient coordinates to DICOM's: x and y grow the other way
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Geometry:
    """Position, orientation and voxel size of an array as one of nnU-Net's readers returned it,
    turned or not.

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
        """The geometry in the properties that a reader of nnU-Net returned, or that a prediction's
        pkl holds."""
        spacing = tuple(float(value) for value in properties["spacing"])
        if (stuff := properties.get("sitk_stuff")) is not None:
            n = len(stuff["origin"])
            affine = np.eye(n + 1)
            affine[:n, :n] = np.reshape(stuff["direction"], (n, n)) * np.asarray(stuff["spacing"])
            affine[:n, n] = stuff["origin"]
            return cls(spacing, affine)
        if (stuff := properties.get("nibabel_stuff")) is not None:
            affine = np.asarray(
                stuff.get("reoriented_affine", stuff["original_affine"]), dtype=float
            )
            return cls(spacing, _RAS_TO_LPS @ affine)
        return cls(spacing)

    @property
    def is_2d(self) -> bool:
        """Whether the first array axis is one that nnU-Net's reader added."""
        return len(self.spacing_mm) == 3 and self.spacing_mm[0] > 900 * max(self.spacing_mm[1:])

    @property
    def unit(self) -> str:
        """Of a voxel's size: ``ml``, ``mm2`` in 2D, ``pixels`` for pictures, whose spacing is no
        length."""
        return "ml" if not self.is_2d else "pixels" if self.affine is None else "mm2"

    @property
    def voxel_size(self) -> float:
        """Volume or area of a voxel in ``unit``."""
        if self.unit == "ml":
            return float(np.prod(self.spacing_mm)) / 1000
        return float(np.prod(self.spacing_mm[1:])) if self.unit == "mm2" else 1.0

    @property
    def directions(self) -> np.ndarray | None:
        """(n, n) unit vectors, a column for each axis (x, y, z); NaN for an axis of no length, None
        if unknown."""
        if self.affine is None:
            return None
        axes = self.affine[:-1, :-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return axes / np.linalg.norm(axes, axis=0)


def geometry_difference(
    first: Geometry, second: Geometry, first_shape: tuple[int, ...], second_shape: tuple[int, ...]
) -> str:
    """What differs between the places and spatial shapes of two images, in words; empty if nothing
    does.

    Compares shape, spacing and, where the formats hold them, the directions of the axes and the
    origin. Differences that file formats introduce by rounding, and origins less than half a voxel
    apart, are none.
    """
    if tuple(first_shape) != tuple(second_shape):
        return f"shape {tuple(first_shape)} and {tuple(second_shape)}"
    compared: list[Any] = [("spacing", first.spacing_mm, second.spacing_mm, _SPACING_TOLERANCE, 0)]
    if first.affine is not None and second.affine is not None:
        if first.affine.shape != second.affine.shape:
            return f"{len(first.affine) - 1} and {len(second.affine) - 1} dimensions"
        half_voxel = _ORIGIN_TOLERANCE_VOXELS * min(first.spacing_mm)
        compared += [
            ("direction", first.directions, second.directions, 0, _DIRECTION_TOLERANCE),
            ("origin", first.affine[:-1, -1], second.affine[:-1, -1], 0, half_voxel),
        ]
    for name, a, b, relative, absolute in compared:
        if not np.allclose(a, b, relative, absolute, equal_nan=True):
            shown = (str(tuple(np.ravel(np.round(place, 4) + 0.0).tolist())) for place in (a, b))
            return f"{name} {' and '.join(shown)}"
    return ""


def slicing_axis(spacing_mm: Sequence[float]) -> int:
    """The array axis across the slices: the first of the thickest slices, so that what is shown has
    the finest grid."""
    return next(
        axis for axis, value in enumerate(spacing_mm) if value * _SAME_SPACING >= max(spacing_mm)
    )
