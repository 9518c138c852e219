"""Overlap of two segmentations (Dice, IoU) as nnU-Net defines it, surface distances, and masks
around surfaces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

from nnunet_nacl.json_types import Share

# relative; a neighbour exactly at the radius counts, whatever its distance rounds to
_ROUNDING = 1e-6


class Overlap(NamedTuple):
    """Voxels of a structure in truth and prediction, in the prediction alone, in the truth alone,
    in neither."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN), as nnU-Net: NaN where the structure is in neither
        segmentation."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else math.nan

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), NaN where the structure is in neither segmentation."""
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else math.nan


def count_overlap(
    truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray | None = None
) -> Overlap:
    """Count the agreement of boolean masks of one shape (ValueError if not), where ``valid`` is not
    False."""
    shapes = [mask.shape for mask in (truth, predicted, valid) if mask is not None]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"truth, predicted and valid must have one shape, got {', '.join(map(str, shapes))}."
        )
    if valid is not None:
        truth, predicted = truth & valid, predicted & valid
    total = truth.size if valid is None else np.count_nonzero(valid)
    tp = np.count_nonzero(truth & predicted)
    fp, fn = np.count_nonzero(predicted) - tp, np.count_nonzero(truth) - tp
    return Overlap(int(tp), int(fp), int(fn), int(total - tp - fp - fn))


@dataclass(frozen=True)
class Detected:
    """What the segmentations of some cases find of a structure.

    ``dice`` is the mean over the ``n_there`` cases whose truth has it, 0 where it was ``missed``;
    NaN without such a case. In ``invented`` of the ``n_absent`` others the segmentation has it.
    """

    dice: Share
    n_there: NonNegativeInt
    missed: NonNegativeInt
    n_absent: NonNegativeInt
    invented: NonNegativeInt

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Detected:
        """Of a row for each case, with ``TP``, ``FP``, ``FN`` and ``Dice``."""
        there, found = rows.TP + rows.FN > 0, rows.TP + rows.FP > 0
        counts = (there.sum(), (there & ~found).sum(), (~there).sum(), (~there & found).sum())
        return cls(float(rows.Dice[there].mean()), *map(int, counts))


def surface_distances(
    truth: np.ndarray, predicted: np.ndarray, spacing_mm: Sequence[float] | None = None
) -> np.ndarray:
    """Distance of each surface voxel of the prediction, then of the truth, to the nearest one of
    the other, by centres.

    A surface voxel has a face neighbour outside the boolean mask, or lies at the border of the
    image. Axes of length 1 (2D images in nnU-Net's arrays) count as absent. (n,) in mm, or in
    voxels without ``spacing_mm``; none where a mask is empty. ValueError where shapes differ or the
    spacing does not fit.
    """
    if truth.shape != predicted.shape:
        raise ValueError(
            f"truth and predicted must have one shape, got {truth.shape} and {predicted.shape}."
        )
    spacing = _read_spacing(np.ones(truth.ndim) if spacing_mm is None else spacing_mm, truth.ndim)
    surfaces = [surface_voxels(mask) for mask in (predicted, truth)]
    if not all(map(len, surfaces)):
        return np.empty(0)
    flat, points = (
        [np.ravel_multi_index(s.T, truth.shape) for s in surfaces],
        [s * spacing for s in surfaces],
    )
    distances = [np.zeros(len(surface)) for surface in surfaces]
    for source, other in ((0, 1), (1, 0)):  # voxels that both share have distance 0
        search = ~np.isin(flat[source], flat[other], assume_unique=True)
        if search.any():
            distances[source][search] = cKDTree(points[other]).query(points[source][search])[0]
    return np.concatenate(distances)


def hausdorff(distances: np.ndarray, percentile: float = 95.0) -> float:
    """Percentile of surface distances, as medpy's: 95 gives HD95, 100 the Hausdorff distance; NaN
    without any."""
    return float(np.percentile(distances, percentile)) if len(distances) else float("nan")


def assd(distances: np.ndarray) -> float:
    """Average symmetric surface distance: the mean of the surface distances, as medpy's; NaN
    without any."""
    return float(distances.mean()) if len(distances) else float("nan")


def surface_voxels(mask: np.ndarray) -> np.ndarray:
    """(n, ndim) indices of a boolean mask's surface voxels; see :func:`surface_distances`."""
    box = bounding_box(mask)
    if box is None:
        return np.empty((0, mask.ndim), dtype=np.int64)
    padded, inside = np.pad(mask[box], 1), mask[box].copy()
    for axis in [axis for axis, length in enumerate(mask.shape) if length > 1]:
        for shift in (-1, 1):
            inside &= np.roll(padded, shift, axis)[(slice(1, -1),) * mask.ndim]
    return np.argwhere(mask[box] & ~inside) + [part.start for part in box]


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box that holds all of a boolean mask; None if nothing is in it."""
    return next(iter(find_objects(mask.view(np.int8))), None) if mask.size else None


def _read_spacing(spacing_mm: Sequence[float] | np.ndarray, ndim: int) -> np.ndarray:
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (ndim,) or not (spacing > 0).all():
        raise ValueError(f"spacing_mm must be {ndim} positive numbers, got {spacing_mm!r}.")
    return spacing


def dilated_mask(
    labels: np.ndarray,
    radius_mm: float,
    spacing_mm: Sequence[float],
    *,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """The foreground grown by a radius: voxels whose centre is at most ``radius_mm`` from a
    foreground voxel's centre.

    ``labels`` are a label map or boolean mask of any number of dimensions. Voxels where ``valid``
    is False neither grow nor are in the mask. ValueError where the radius is negative or the
    spacing does not fit.
    """
    foreground = labels != 0 if valid is None else (labels != 0) & valid
    return foreground | boundary_mask(foreground, radius_mm, spacing_mm, valid=valid)


def boundary_mask(
    labels: np.ndarray,
    width_mm: float,
    spacing_mm: Sequence[float],
    *,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """Band around the surfaces of the ground truth: voxels with another label at most ``width_mm``
    away.

    Distances are from centre to centre, so a width below the spacing gives an empty band along that
    axis. Surfaces between two structures count like those against the background. Ignored voxels
    make no surface and are in no mask.
    """
    spacing = _read_spacing(spacing_mm, labels.ndim)
    if not width_mm >= 0:
        raise ValueError(f"the radius in mm must not be negative, got {width_mm!r}.")
    band, usable = (
        np.zeros(labels.shape, bool),
        np.ones(labels.shape, bool) if valid is None else valid,
    )
    box = bounding_box((labels != 0) & usable)
    if box is None:
        return band
    # one voxel more, so that the border of the box is background
    reach = (width_mm / spacing).astype(int) + 1
    box = tuple(
        slice(max(part.start - r, 0), part.stop + r) for part, r in zip(box, reach.tolist())
    )
    dtype = np.uint8 if labels.min() >= 0 and labels.max() < 255 else np.int64
    part, inside = labels[box].astype(dtype), usable[box]
    for ignored, combine in ((0, np.maximum), (np.iinfo(dtype).max, np.minimum)):
        band[box] |= (
            _spread(np.where(inside, part, dtype(ignored)), width_mm, spacing, combine) != part
        )
    return band & usable


def _spread(
    array: np.ndarray, radius_mm: float, spacing: np.ndarray, combine: np.ufunc
) -> np.ndarray:
    """Greatest (or least) value within the radius: the ball as runs along the last axis, shifted
    along the others."""
    limit = radius_mm**2 * (1 + _ROUNDING)
    reach = [min(int(radius_mm / s * (1 + _ROUNDING)), n - 1) for s, n in zip(spacing, array.shape)]
    runs: dict[int, list[tuple[int, ...]]] = {}
    for offset in product(*(range(-r, r + 1) for r in reach[:-1])):
        left = limit - float(((np.array(offset) * spacing[:-1]) ** 2).sum())
        if left >= 0:
            runs.setdefault(min(int(np.sqrt(left) / spacing[-1]), array.shape[-1] - 1), []).append(
                offset
            )
    result, run, done = array.copy(), array.copy(), 0
    for half_length in sorted(runs):
        for step in range(done + 1, half_length + 1):
            for shift in (-step, step):
                _combine_shifted(run, array, (0,) * (array.ndim - 1) + (shift,), combine)
        done = half_length
        for offset in runs[half_length]:
            _combine_shifted(result, run, (*offset, 0), combine)
    return result


def _combine_shifted(
    target: np.ndarray, source: np.ndarray, offset: tuple[int, ...], combine
) -> None:
    to = tuple(slice(max(o, 0), n + min(o, 0)) for o, n in zip(offset, target.shape))
    origin = tuple(slice(max(-o, 0), n + min(-o, 0)) for o, n in zip(offset, target.shape))
    combine(target[to], source[origin], out=target[to])
