"""Where a network is least certain: the place to look at first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_BLOCK_MM = 5.0


@dataclass(frozen=True)
class Place:
    """A voxel, and the structure that the doubt there is most about.

    Attributes:
        index: Of the voxel, a number an axis.
        channel: Probability channel of the structure.
    """

    index: tuple[int, ...]
    channel: int


def least_certain_place(
    doubt: np.ndarray,
    in_box: Callable[[tuple[slice, ...]], np.ndarray],
    foreground: Sequence[int],
    spacing_mm: Sequence[float],
) -> Place:
    """The block of about 5 mm with most doubt, summed over its voxels, and its least certain voxel.

    Every border of a structure is uncertain, but thinly: a block that is uncertain throughout stands out.

    Args:
        doubt: (*spatial) 1 - confidence, see :func:`~nnunet_nacl.numbers.voxel_uncertainty.confidence`.
        in_box: Gives the (C, *block) class or region probabilities of a block.
        foreground: Channels that are structures.
        spacing_mm: Of the axes.
    """
    edges = [max(1, min(n, round(_BLOCK_MM / step))) for n, step in zip(doubt.shape, spacing_mm)]
    sums = doubt
    for axis, edge in enumerate(edges):
        sums = np.add.reduceat(sums, np.arange(0, doubt.shape[axis], edge), axis=axis)
    block = np.unravel_index(int(sums.argmax()), sums.shape)
    corner = [int(i) * edge for i, edge in zip(block, edges)]
    inside = tuple(slice(start, min(start + edge, n)) for start, edge, n in zip(corner, edges, doubt.shape))
    voxel = np.unravel_index(int(doubt[inside].argmax()), doubt[inside].shape)
    probs = in_box(inside)
    channel = max(foreground, key=lambda k: float((probs[k] * (1 - probs[k])).sum()))
    return Place(tuple(start + int(i) for start, i in zip(corner, voxel)), channel)
