"""Where a network is least certain: the place to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.metrics.voxel_uncertainty import confidence

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
    probs: np.ndarray, foreground: Sequence[int], spacing_mm: Sequence[float], *, regions: bool = False
) -> Place:
    """The block of about 5 mm with most doubt, 1 - max p summed over its voxels, and its least certain voxel.

    Every border of a structure is uncertain, but thinly: a block that is uncertain throughout stands out.

    Args:
        probs: (K, *spatial) class or (R, *spatial) region probabilities.
        foreground: Channels that are structures.
        spacing_mm: Of the axes.
        regions: Whether these are sigmoid regions.
    """
    doubt = confidence(probs, regions=regions, check_values=False)
    np.subtract(1, doubt, out=doubt)
    edges = [max(1, min(n, round(_BLOCK_MM / step))) for n, step in zip(doubt.shape, spacing_mm)]
    sums = doubt
    for axis, edge in enumerate(edges):
        sums = np.add.reduceat(sums, np.arange(0, doubt.shape[axis], edge), axis=axis)
    block = np.unravel_index(int(sums.argmax()), sums.shape)
    corner = [int(i) * edge for i, edge in zip(block, edges)]
    inside = tuple(slice(start, start + edge) for start, edge in zip(corner, edges))
    voxel = np.unravel_index(int(doubt[inside].argmax()), doubt[inside].shape)
    p = probs[(slice(None), *inside)].reshape(len(probs), -1)
    channel = max(foreground, key=lambda k: float((p[k] * (1 - p[k])).sum()))
    return Place(tuple(start + int(i) for start, i in zip(corner, voxel)), channel)
