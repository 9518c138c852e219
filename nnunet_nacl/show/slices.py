"""Which slice of a case is shown, and which part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Choice", "choose_slice", "crop_box"]

_SMALLEST_CROP = 48  # voxels; what is smaller loses its surroundings


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
