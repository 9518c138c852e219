"""Which slice of a case is shown, which part of it, and how it is turned so that radiologists are used to the sight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.show.drawing import LONG_SIDE, Grid

_SMALLEST_CROP = 48  # voxels; what is smaller loses its surroundings

# Where the ends of DICOM's world axes lie: x grows to the patient's left, y to the back, z to the head.
_ENDS = ("RL", "AP", "IS")
_OPPOSITE = dict(zip("RLAPIS", "LRPASI"))
_WORDS = {
    "R": "the patient's right",
    "L": "the patient's left",
    "A": "anterior",
    "P": "posterior",
    "I": "inferior",
    "S": "superior",
}
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


def plane_of(axis: int, axes: str | None) -> Plane:
    """The slices across an array axis, given what :func:`anatomical_axes` says."""
    if axes is None:
        return Plane(axis)
    name, down, right = next(view for ends, view in _VIEWS.items() if axes[axis] in ends)
    rows, columns = (letter for i, letter in enumerate(axes) if i != axis)
    transpose = rows not in (down, _OPPOSITE[down])
    if transpose:
        rows, columns = columns, rows
    return Plane(
        axis, name, (_OPPOSITE[right], right, _OPPOSITE[down], down), transpose, rows != down, columns != right
    )


@dataclass(frozen=True)
class Choice:
    """A slice, and why this one.

    Attributes:
        index: From 0.
        n_differing: Voxels of the slice that not all methods label alike.
        reason: A clause for a caption.
    """

    index: int
    n_differing: int
    reason: str


def choose_slice(
    truth: np.ndarray,
    valid: np.ndarray,
    segmentations: Sequence[np.ndarray],
    axis: int,
    among: Sequence[int] | None = None,
) -> Choice:
    """The slice where the methods differ most.

    Counted are voxels that not all of them label alike; where no slice has any, voxels where one differs from the
    truth; where there are none either, voxels of the structures. Ignored voxels do not count. The first of equals.

    Args:
        truth: (*spatial) label map.
        valid: (*spatial), False where a voxel is ignored.
        segmentations: Predicted label map of each method; may be empty.
        axis: Across the slices.
        among: Numbers of the slices that can be chosen; None: all.
    """
    allowed = np.ones(truth.shape[axis], dtype=bool)
    if among is not None:
        allowed[:] = False
        allowed[list(among)] = True
    others = tuple(i for i in range(truth.ndim) if i != axis)
    differing = np.zeros(truth.shape, dtype=bool)
    wrong = np.zeros(truth.shape, dtype=bool)
    for segmentation in segmentations:
        differing |= segmentation != segmentations[0]
        wrong |= segmentation != truth
    kinds = (
        (differing, "where the methods' predictions differ most"),
        (wrong, "where the predictions, which agree with each other, differ most from the ground truth"),
        (
            truth != 0,
            "which holds most of the structures (predictions and ground truth agree)"
            if segmentations
            else "which holds most of the structures",
        ),
    )
    for voxels, reason in kinds:
        counts = np.where(allowed, np.count_nonzero(voxels & valid, axis=others), 0)
        if counts.any():
            index = int(counts.argmax())
            reason += "" if among is None else ", of the slices that were kept"
            return Choice(index, int(np.count_nonzero(np.take(differing & valid, index, axis))), reason)
    middle = int(np.flatnonzero(allowed)[np.count_nonzero(allowed) // 2])
    return Choice(middle, 0, "in the middle (there is nothing in this case)")


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
