"""Which slice of a case is shown, which part of it, and how it is turned so that radiologists are used to the sight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.io.geometry import Geometry
from nnunet_nacl.show.drawing import LONG_SIDE, Grid

_SMALLEST_CROP = 48  # voxels; what is smaller loses its surroundings

# Where the ends of DICOM's world axes lie: x grows to the patient's left, y to the back, z to the head.
_ENDS = ("RL", "AP", "IS")
_OPPOSITE = dict(zip("RLAPIS", "LRPASI"))
# For a slice across a world axis: its name, and where its rows and its columns grow to.
_VIEWS = {"IS": ("axial", "P", "L"), "AP": ("coronal", "I", "L"), "RL": ("sagittal", "I", "P")}


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

    @classmethod
    def across(cls, axis: int, geometry: Geometry) -> Plane:
        """The slices across an array axis, turned as usual; as stored where :func:`anatomical_axes` is None."""
        axes = anatomical_axes(geometry)
        if axes is None:
            return cls(axis)
        name, down, right = next(view for ends, view in _VIEWS.items() if axes[axis] in ends)
        rows, columns = (letter for i, letter in enumerate(axes) if i != axis)
        transpose = rows not in (down, _OPPOSITE[down])
        if transpose:
            rows, columns = columns, rows
        edges = (_OPPOSITE[right], right, _OPPOSITE[down], down)
        return cls(axis, name, edges, transpose, rows != down, columns != right)

    def turn(self, array: np.ndarray) -> np.ndarray:
        """A slice as it is shown."""
        array = array.T if self.transpose else array
        return array[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def cut(self, volume: np.ndarray, index: int) -> np.ndarray:
        """The slice ``index`` of a volume, as it is shown."""
        return self.turn(np.take(volume, index, axis=self.axis))

    def spacing_mm(self, spacing_mm: Sequence[float]) -> tuple[float, float]:
        """Row and column spacing of what is shown."""
        rows, columns = (value for axis, value in enumerate(spacing_mm) if axis != self.axis)
        return (columns, rows) if self.transpose else (rows, columns)


def anatomical_axes(geometry: Geometry) -> str | None:
    """Where each array axis grows to: a letter of R, L, A, P, I and S.

    None where the file says nothing about it (as PNG), the data are 2D, or the volume is so oblique that no axis
    is nearest.
    """
    directions = geometry.directions
    if directions is None or directions.shape != (3, 3) or not np.isfinite(directions).all():
        return None
    world = np.abs(directions).argmax(axis=0)
    if sorted(world) != [0, 1, 2]:
        return None
    # array axes run the other way round: the last one is the file's first
    return "".join(_ENDS[world[i]][int(directions[world[i], i] > 0)] for i in (2, 1, 0))


def choose_slice(
    truth: np.ndarray,
    valid: np.ndarray,
    segmentations: Sequence[np.ndarray],
    axis: int,
    among: Sequence[int] | None = None,
) -> int:
    """The slice where the methods differ most.

    Counted are voxels that not all of them label alike; where no slice has any, voxels where one differs from the
    truth; where there are none either, voxels of the structures. Ignored voxels do not count. The first of equals; the
    slice in the middle of a case with nothing in it.

    Args:
        truth: (*spatial) label map.
        valid: (*spatial), False where a voxel is ignored.
        segmentations: Predicted label map of each method; at least one.
        axis: Across the slices.
        among: Numbers of the slices that can be chosen; None: all.
    """
    allowed = np.arange(truth.shape[axis]) if among is None else np.asarray(among)
    others = tuple(i for i in range(truth.ndim) if i != axis)
    differing = np.any([segmentation != segmentations[0] for segmentation in segmentations], axis=0)
    wrong = np.any([segmentation != truth for segmentation in segmentations], axis=0)
    for voxels in (differing, wrong, truth != 0):
        counts = np.count_nonzero(voxels & valid, axis=others)[allowed]
        if counts.any():
            return int(allowed[counts.argmax()])
    return int(allowed[len(allowed) // 2])


def crop_box(occupied: np.ndarray) -> tuple[slice, slice]:
    """The part of a slice that is shown: around what is occupied, grown by half its size to each side.

    The whole slice where nothing is occupied, or where the part would be nearly all of it.

    Args:
        occupied: (rows, columns) voxels that any method or the truth calls a structure.
    """
    whole = (slice(0, occupied.shape[0]), slice(0, occupied.shape[1]))
    if not occupied.any():
        return whole
    box = []
    for axis, n in enumerate(occupied.shape):
        where = np.flatnonzero(occupied.any(axis=1 - axis))
        size = max(2 * (where[-1] - where[0] + 1), _SMALLEST_CROP)
        start = int(max((where[0] + where[-1] + 1 - size) // 2, 0))
        stop = int(min((where[0] + where[-1] + 1 + size) // 2, n))
        box.append(slice(start, stop))
    part = np.prod([b.stop - b.start for b in box]) / occupied.size
    return whole if part > 0.7 else (box[0], box[1])


@dataclass(frozen=True)
class View:
    """The part of a slice that is shown.

    Attributes:
        plane: How the slice lies, and how it is turned.
        index: Of the slice.
        box: Rows and columns of the turned slice.
        grid: From its voxels to pixels.
    """

    plane: Plane
    index: int
    box: tuple[slice, slice]
    grid: Grid

    @classmethod
    def around(
        cls, occupied: np.ndarray, plane: Plane, index: int, geometry: Geometry, long_side: tuple[int, int] = LONG_SIDE
    ) -> View:
        """The part around what is occupied in a turned slice, (rows, columns); ``long_side`` as in :class:`Grid`."""
        box = crop_box(occupied)
        shape = (box[0].stop - box[0].start, box[1].stop - box[1].start)
        spacing = plane.spacing_mm(geometry.spacing_mm)
        return cls(plane, index, box, Grid(shape, spacing, geometry.unit != "pixels", long_side))

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        """What it shows of a volume."""
        return self.flat(np.take(volume, self.index, axis=self.plane.axis))

    def flat(self, array: np.ndarray) -> np.ndarray:
        """What it shows of a slice that was cut already."""
        return self.plane.turn(array)[self.box]

    def name(self, total: int) -> str:
        """``axial slice 3 of 20``; empty where there is no other slice."""
        return f"{self.plane.name} slice {self.index + 1} of {total}".strip() if total > 1 else ""
