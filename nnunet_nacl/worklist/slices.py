"""Chooses which slice of a scan is drawn, its crop and size, and turns it as radiologists view
it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_nacl.cases.geometry import Geometry

_SMALLEST_CROP = 48  # voxels; what is smaller loses its surroundings

# Where the ends of DICOM's world axes lie: x grows to the patient's left, y to the back, z to the
# head.
_ENDS = ("RL", "AP", "IS")
_OPPOSITE = dict(zip("RLAPIS", "LRPASI"))
# For a slice across a world axis: its name, and where its rows and its columns grow to.
_VIEWS = {"IS": ("axial", "P", "L"), "AP": ("coronal", "I", "L"), "RL": ("sagittal", "I", "P")}


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
        height, width = (max(1, round(size / self.pixel_mm)) for size in self.size_mm)
        return height, width

    def enlarge(self, array: np.ndarray) -> np.ndarray:
        """Voxels as blocks of pixels."""
        rows, columns = (
            ((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(self.pixels, self.shape)
        )
        return array[rows][:, columns]

    def scale_bar(self) -> tuple[float, int]:
        """A round number of millimetres that is at most 40 % of the width, and how many pixels it
        is long."""
        longest = 0.4 * self.size_mm[1]
        decade = 10.0 ** np.floor(np.log10(longest))
        # half a decade, where rounding makes of 999.99... mm a decade of 1000
        length = float(max(step * decade for step in (0.5, 1, 2, 5) if step * decade <= longest))
        return length, max(1, round(length / self.pixel_mm))


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
        """The part around what is occupied of a slice, (rows, columns) as stored; turned by
        :func:`anatomical_axes`."""
        box, axes = crop_box(occupied), anatomical_axes(geometry)
        turned: tuple[str, tuple[str, ...], bool, tuple[int, ...]] = "", (), False, ()
        if axes is not None:
            name, down, right = next(view for ends, view in _VIEWS.items() if axes[axis] in ends)
            letters = [letter for i, letter in enumerate(axes) if i != axis]
            transpose = letters[0] not in (down, _OPPOSITE[down])
            letters = letters[::-1] if transpose else letters
            flips = tuple(k for k, letter in enumerate((down, right)) if letters[k] != letter)
            turned = name, (_OPPOSITE[right], right, _OPPOSITE[down], down), transpose, flips
        shape = [part.stop - part.start for part in box]
        spacing = [value for i, value in enumerate(geometry.spacing_mm) if i != axis]
        i, j = (1, 0) if turned[2] else (0, 1)
        grid = Grid(
            (shape[i], shape[j]), (spacing[i], spacing[j]), long_side, geometry.unit != "pixels"
        )
        return cls(axis, index, box, grid, *turned)

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        """What it shows of a volume."""
        return self.flat(np.take(volume, self.index, axis=self.axis))

    def flat(self, array: np.ndarray) -> np.ndarray:
        """What it shows of a slice that was cut already."""
        part = array[self.box]
        return np.flip(part.T if self.transpose else part, self.flips)

    def name(self, total: int) -> str:
        """``axial slice 3 of 20``; empty where there is no other slice."""
        return f"{self.plane} slice {self.index + 1} of {total}".strip() if total > 1 else ""


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
    # array axes run the other way round: the last one is the file's first
    return "".join(_ENDS[world[i]][int(directions[world[i], i] > 0)] for i in (2, 1, 0))


def crop_box(occupied: np.ndarray) -> tuple[slice, slice]:
    """The part of a slice that is shown: around what is occupied of (rows, columns), grown by half
    its size each way.

    The whole slice where nothing is occupied, or where the part would be nearly all of it.
    """
    whole = (slice(0, occupied.shape[0]), slice(0, occupied.shape[1]))
    if not occupied.any():
        return whole
    ends = np.array([np.flatnonzero(occupied.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]) + (
        0,
        1,
    )
    size = np.maximum(2 * np.diff(ends)[:, 0], _SMALLEST_CROP)
    start, stop = (
        np.maximum((ends.sum(1) - size) // 2, 0),
        np.minimum((ends.sum(1) + size) // 2, occupied.shape),
    )
    rows, columns = (slice(*part) for part in np.stack([start, stop], axis=1).tolist())
    return whole if np.prod(stop - start) > 0.7 * occupied.size else (rows, columns)
