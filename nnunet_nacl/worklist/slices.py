"""Says how a slice of a scan is shown: its crop, its size, and turned as radiologists view it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nnunet_nacl.cases.geometry import Geometry

_SMALLEST_CROP = 48  # voxels; what is smaller loses its surroundings
_NEARLY_ALL = 0.7  # of a slice

# Where the ends of DICOM's world axes lie: x grows to the patient's left, y to the back, z to the
# head.
_ENDS = ("RL", "AP", "IS")
_OPPOSITE = dict(zip("RLAPIS", "LRPASI"))
# For a slice across a world axis: its name, and where its rows and its columns grow to.
_VIEWS = {"IS": ("axial", "P", "L"), "AP": ("coronal", "I", "L"), "RL": ("sagittal", "I", "P")}


class ScaleBar(NamedTuple):
    """Length of a scale bar, in the unit of the spacing, and in pixels."""

    length: float
    pixels: int


@dataclass(frozen=True)
class Grid:
    """From voxels of a slice to pixels of a picture.

    Attributes:
        shape: Rows and columns of voxels.
        spacing_mm: Of rows and columns.
        long_side: Fewest and most pixels of the longer side; in between, a voxel is one pixel at
            its finest.
        physical: Whether the spacing is in millimetres; else in voxels.
    """

    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    long_side: tuple[int, int]
    physical: bool = True

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width."""
        return self.shape[0] * self.spacing_mm[0], self.shape[1] * self.spacing_mm[1]

    @property
    def pixel_mm(self) -> float:
        """Side of a pixel."""
        finest = max(self.size_mm) / min(self.spacing_mm)
        return max(self.size_mm) / min(max(finest, self.long_side[0]), self.long_side[1])

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the picture."""
        height_mm, width_mm = self.size_mm
        height = max(1, round(height_mm / self.pixel_mm))
        width = max(1, round(width_mm / self.pixel_mm))
        return height, width

    def enlarge(self, array: np.ndarray) -> np.ndarray:
        """Voxels as blocks of pixels."""
        rows, columns = map(_voxels_of_pixels, self.shape, self.pixels)
        return array[rows][:, columns]

    def scale_bar(self) -> ScaleBar:
        """A bar of at most 40 % of the width, of a round number of millimetres."""
        longest = 0.4 * self.size_mm[1]
        decade = 10.0 ** np.floor(np.log10(longest))
        # half a decade, where rounding makes of 999.99... mm a decade of 1000
        lengths = decade * np.array([0.5, 1, 2, 5])
        length = float(lengths[lengths <= longest].max())
        return ScaleBar(length, max(1, round(length / self.pixel_mm)))


def _voxels_of_pixels(n_voxels: int, n_pixels: int) -> np.ndarray:
    """Along one axis the index of the voxel that the middle of each pixel lies in."""
    return ((np.arange(n_pixels) + 0.5) * n_voxels / n_pixels).astype(int)


@dataclass(frozen=True)
class View:
    """The part of a slice that is shown, and how it is turned.

    Attributes:
        axis: Array axis across the slices.
        index: Of the slice.
        box: Rows and columns of the slice as it is stored.
        grid: From the voxels that are shown to pixels.
        plane: ``axial``, ``coronal`` or ``sagittal``; empty where the orientation is unknown.
        edges: Letters of the left, right, upper and lower edge (R, L, A, P, I, S); empty where
            unknown.
        transpose: Whether rows and columns are swapped.
        flips: Which of rows (0) and columns (1) are turned round afterwards.
    """

    axis: int
    index: int
    box: tuple[slice, slice]
    grid: Grid
    plane: str = ""
    edges: tuple[str, ...] = ()
    transpose: bool = False
    flips: tuple[int, ...] = ()

    @classmethod
    def around(
        cls,
        occupied: np.ndarray,
        axis: int,
        index: int,
        geometry: Geometry,
        long_side: tuple[int, int],
    ) -> View:
        """The part around what is occupied of a slice, turned as radiologists view it.

        Args:
            occupied: (rows, columns) as the slice is stored.
            axis: Array axis across the slices.
            index: Of the slice.
            geometry: Where the image lies; where it does not say how, slices are shown as stored.
            long_side: Fewest and most pixels of the longer side of the picture.
        """
        box = crop_box(occupied)
        turn = _turn_of_slice(geometry, axis)
        shape = [part.stop - part.start for part in box]
        spacing_mm = [value for other, value in enumerate(geometry.spacing_mm) if other != axis]
        if turn.transpose:
            shape.reverse()
            spacing_mm.reverse()
        grid = Grid(
            shape=(shape[0], shape[1]),
            spacing_mm=(spacing_mm[0], spacing_mm[1]),
            long_side=long_side,
            physical=geometry.unit != "pixels",
        )
        return cls(axis, index, box, grid, turn.plane, turn.edges, turn.transpose, turn.flips)

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        """What it shows of a volume."""
        return self.flat(np.take(volume, self.index, axis=self.axis))

    def flat(self, array: np.ndarray) -> np.ndarray:
        """What it shows of a slice that was cut already."""
        part = array[self.box]
        return np.flip(part.T if self.transpose else part, self.flips)

    def find(self, voxel: Sequence[int]) -> tuple[int, int]:
        """Row and column of a voxel of the volume in what it shows."""
        position = [index for axis, index in enumerate(voxel) if axis != self.axis]
        for direction, part in enumerate(self.box):
            position[direction] -= part.start
        if self.transpose:
            position.reverse()
        for direction in self.flips:
            position[direction] = self.grid.shape[direction] - 1 - position[direction]
        row, column = position
        return row, column

    def name(self, total: int) -> str:
        """``axial slice 3 of 20``; empty where there is no other slice."""
        if total == 1:
            return ""
        return f"{self.plane} slice {self.index + 1} of {total}".strip()


class _Turn(NamedTuple):
    """How slices are turned, and what lies at their edges; see :class:`View`."""

    plane: str = ""
    edges: tuple[str, ...] = ()
    transpose: bool = False
    flips: tuple[int, ...] = ()


def _turn_of_slice(geometry: Geometry, axis: int) -> _Turn:
    """How slices across an axis are turned: not at all where the orientation is unknown."""
    axes = anatomical_axes(geometry)
    if axes is None:
        return _Turn()
    plane, down, right = next(view for ends, view in _VIEWS.items() if axes[axis] in ends)
    letters = [letter for other, letter in enumerate(axes) if other != axis]
    transpose = letters[0] not in (down, _OPPOSITE[down])
    if transpose:
        letters.reverse()
    flips = []
    for direction, wanted in enumerate((down, right)):
        if letters[direction] != wanted:
            flips.append(direction)
    edges = (_OPPOSITE[right], right, _OPPOSITE[down], down)
    return _Turn(plane, edges, transpose, tuple(flips))


def anatomical_axes(geometry: Geometry) -> str | None:
    """Where each array axis grows to: a letter of R, L, A, P, I and S.

    None, for as stored, where the file does not say (PNG), for 2D data, and if a volume is too
    oblique to tell.
    """
    directions = geometry.directions
    if directions is None or directions.shape != (3, 3) or not np.isfinite(directions).all():
        return None
    world = np.abs(directions).argmax(axis=0)
    if sorted(world) != [0, 1, 2]:
        return None
    letters = ""
    for file_axis in (2, 1, 0):  # array axes run the other way round
        world_axis = world[file_axis]
        grows = directions[world_axis, file_axis] > 0
        letters += _ENDS[world_axis][int(grows)]
    return letters


def crop_box(occupied: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a slice that are shown: around what is occupied of (rows, columns).

    The whole slice where nothing is occupied, or where the part would be nearly all of it.
    """
    whole = (slice(0, occupied.shape[0]), slice(0, occupied.shape[1]))
    if not occupied.any():
        return whole
    n_rows, n_columns = occupied.shape
    rows = _crop_range(np.flatnonzero(occupied.any(axis=1)), n_rows)
    columns = _crop_range(np.flatnonzero(occupied.any(axis=0)), n_columns)
    n_shown = (rows.stop - rows.start) * (columns.stop - columns.start)
    if n_shown > _NEARLY_ALL * occupied.size:
        return whole
    return rows, columns


def _crop_range(occupied: np.ndarray, n: int) -> slice:
    """The range around occupied indices of an axis of length n, grown by half its size each way."""
    start = int(occupied[0])
    stop = int(occupied[-1]) + 1
    size = max(2 * (stop - start), _SMALLEST_CROP)
    return slice(max((start + stop - size) // 2, 0), min((start + stop + size) // 2, n))
