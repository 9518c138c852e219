"""The confidence in a few slices of a case, kept for pictures when the probabilities are not.

Which slices is known from the ground truth alone, so that all methods keep the same ones and can be shown beside each
other.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_nacl.cases.case import Case
from nnunet_nacl.metrics.voxel_uncertainty import confidence

_SAME_SPACING = 1.01
_NUMBER = 5  # slices at the quantiles of the structures, beside the one that holds most of them
_MOST_BYTES = 60_000  # of a case, compressed


@dataclass(frozen=True, eq=False)
class KeptSlices:
    """Confidence in n slices of a case.

    Attributes:
        axis: Array axis across the slices.
        index: (n,) numbers of the slices.
        values: (n, rows, columns) uint8: confidence times 255.
    """

    axis: int
    index: np.ndarray
    values: np.ndarray

    def confidence(self, index: int) -> np.ndarray | None:
        """(rows, columns) float32 confidence in a slice, to 0.002; None if it was not kept."""
        where = np.flatnonzero(self.index == index)
        return self.values[where[0]].astype(np.float32) / 255 if len(where) else None


def slicing_axis(spacing_mm: Sequence[float], plans: Mapping[str, Any]) -> int:
    """The array axis across the slices: the one of the thickest slices, so that what is shown has the finest grid.

    Args:
        spacing_mm: Voxel spacing in the order of the axes.
        plans: Content of plans.json: the axis along which a 2D configuration slices wins among equals.
    """
    largest = max(spacing_mm)
    thick = [axis for axis, value in enumerate(spacing_mm) if value * _SAME_SPACING >= largest]
    try:
        preferred = int(plans["transpose_forward"][0])
    except (KeyError, IndexError, TypeError, ValueError):
        preferred = 0
    return preferred if preferred in thick else thick[0]


def keep_slices(data: Case, valid: np.ndarray | None, axis: int, *, regions: bool) -> KeptSlices:
    """Take the slices of a case in memory, as many as the space for them allows.

    Args:
        data: Its content.
        valid: (*spatial) False where the truth is ignored; None where nothing is.
        axis: Array axis across the slices.
        regions: Whether the structures are regions.
    """
    shape = data.truth.shape
    rest = [n for i, n in enumerate(shape) if i != axis]
    index, values, size = [], [], 0
    for i in _worth_keeping(data.truth, valid, axis):
        where = tuple(slice(i, i + 1) if a == axis else slice(0, n) for a, n in enumerate(shape))
        plane = confidence(data.probabilities.in_box(where), regions=regions, check_values=False)
        small = np.rint(255 * plane.reshape(rest)).astype(np.uint8)
        size += len(zlib.compress(small.tobytes(), 1))
        if size > _MOST_BYTES:
            break
        index.append(i)
        values.append(small)
    kept = np.stack(values) if values else np.zeros((0, *rest), np.uint8)
    return KeptSlices(axis, np.array(index, dtype=np.int64), kept)


def _worth_keeping(truth: np.ndarray, valid: np.ndarray | None, axis: int) -> list[int]:
    """The slice that holds most of the structures, then those that divide them evenly; the middle if there are none."""
    others = tuple(i for i in range(truth.ndim) if i != axis)
    counts = np.count_nonzero(truth if valid is None else (truth != 0) & valid, axis=others)
    if not counts.any():
        return [len(counts) // 2]
    quantiles = (np.arange(_NUMBER) + 0.5) / _NUMBER * counts.sum()
    return list(dict.fromkeys(map(int, [counts.argmax(), *np.searchsorted(counts.cumsum(), quantiles)])))
