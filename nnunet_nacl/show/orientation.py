"""How a slice is to be turned so that it looks as radiologists are used to see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_nacl.cases.geometry import Geometry

__all__ = ["Plane", "anatomical_axes", "plane_of"]

# World axes as in DICOM: x grows to the patient's left, y to the back, z to the head.
_LEFT, _BACK, _HEAD = range(3)
_LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))
_WORDS = {
    "R": "the patient's right",
    "L": "the patient's left",
    "A": "anterior",
    "P": "posterior",
    "I": "inferior",
    "S": "superior",
}
# For a slice across a world axis: its name, then world axis and direction of growth of its rows and of its columns.
_VIEWS = {
    _HEAD: ("axial", (_BACK, 1), (_LEFT, 1)),
    _BACK: ("coronal", (_HEAD, -1), (_LEFT, 1)),
    _LEFT: ("sagittal", (_HEAD, -1), (_BACK, 1)),
}

Axes = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Plane:
    """A family of parallel slices, and how each is turned.

    Attributes:
        axis: Array axis across the slices.
        name: ``axial``, ``coronal`` or ``sagittal``; empty where the orientation is unknown.
        edges: Letters of the left, right, upper and lower edge (R, L, A, P, I, S); empty where unknown.
        transpose: Whether rows and columns are swapped, before they are flipped.
        flip_rows: Whether the rows are turned round.
        flip_columns: Whether the columns are turned round.
    """

    axis: int
    name: str = ""
    edges: tuple[str, ...] = ()
    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def turn(self, array: np.ndarray) -> np.ndarray:
        """A slice as it is shown."""
        if self.transpose:
            array = array.T
        return array[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def cut(self, volume: np.ndarray, index: int) -> np.ndarray:
        """The slice ``index`` of a volume, as it is shown."""
        return self.turn(np.take(volume, index, axis=self.axis))

    def spacing_mm(self, spacing_mm: tuple[float, ...]) -> tuple[float, float]:
        """Row and column spacing of what is shown."""
        rows, columns = (value for axis, value in enumerate(spacing_mm) if axis != self.axis)
        return (columns, rows) if self.transpose else (rows, columns)

    @property
    def description(self) -> str:
        """A clause for a caption."""
        if not self.name:
            return "turned as it is stored"
        return f"{self.name}, {_WORDS[self.edges[0]]} on the left, {_WORDS[self.edges[2]]} at the top"


def anatomical_axes(geometry: Geometry) -> Axes | None:
    """World axis and direction (1 or -1) of each array axis.

    None where the file says nothing about it (as PNG), the data are 2D, or the volume is so oblique that it cannot
    be told.
    """
    directions = geometry.directions
    if directions is None or directions.shape != (3, 3) or not np.isfinite(directions).all():
        return None
    world = np.abs(directions).argmax(axis=0)
    if sorted(world) != [0, 1, 2]:
        return None
    signs = np.sign(directions[world, range(3)]).astype(int)
    # array axes run the other way round: the last one is the file's first
    return tuple((int(world[i]), int(signs[i])) for i in (2, 1, 0))


def plane_of(axis: int, axes: Axes | None) -> Plane:
    """The slices across an array axis."""
    if axes is None:
        return Plane(axis)
    name, (row_world, row_sign), (column_world, column_sign) = _VIEWS[axes[axis][0]]
    first, second = (value for i, value in enumerate(axes) if i != axis)
    transpose = first[0] != row_world
    rows, columns = (second, first) if transpose else (first, second)
    left, right = _LETTERS[column_world][::column_sign]
    top, bottom = _LETTERS[row_world][::row_sign]
    return Plane(axis, name, (left, right, top, bottom), transpose, rows[1] != row_sign, columns[1] != column_sign)
