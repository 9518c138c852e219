"""Describes a scan by at most 34 numbers, by which unlike scans are recognised.

They are of its intensities and geometry. Confidence, entropy and predicted Dice are left out, as
they differ between single networks and the average of folds; volumes and numbers of parts, as they
vary so much that with them fewer noisy and blurred scans are seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.cases.case import Labels
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.estimators.unlike import LOG, SLACK
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.json_files import read_dict

MOST_CHANNELS = 3
MOST_STRUCTURES = 5

_OF_CHANNEL = (
    f"{LOG}noise",
    "median",
    "95 % quantile",
    "mean inside",
    f"{LOG}spread inside",
    f"{LOG}sharpness",
)
_OF_GEOMETRY = [f"{LOG}{number} along {axis}" for number in ("spacing", "size") for axis in "zyx"]
_SHELL = 3  # voxels around a structure
_MAD = 1.4826  # from median absolute deviation to standard deviation
_DIFFERENCES = math.sqrt(6)  # standard deviation of the second difference of white noise
_LEAST = 1e-3  # what logarithms and divisors are raised to at least
_MOST_VOXELS = 1 << 20  # of larger images every second, third, ... slice is looked at


def profile_names(labels: Labels, channels: Sequence[str]) -> list[str]:
    """Of the numbers of :func:`profile`, in its order; ``channels`` are those of dataset.json."""
    names: list[str] = []
    for channel in channels[:MOST_CHANNELS]:
        names += [f"{number} ({channel})" for number in _OF_CHANNEL]
    for structure in labels.foreground[:MOST_STRUCTURES]:
        name = labels.names[structure]
        names += [f"{channels[0]} in {name}", f"{channels[0]} around {name}"]
    return names + _OF_GEOMETRY


def profile(
    image: np.ndarray,
    segmentation: np.ndarray,
    labels: Labels,
    properties: Mapping[str, Any],
    transpose: Sequence[int],
) -> np.ndarray:
    """(F,) numbers of a scan.

    Intensities are as nnU-Net normalises them; noise, spread, sharpness and sizes are logarithms.
    Noise is the robust spread of second differences within slices. Sharpness is the mean gradient
    on the outline of all structures, divided by the spread of the image. *inside* is inside all
    structures, *around* a shell of three voxels within slices. NaN are gaps: what a
    structure that was not segmented has no value for.

    Args:
        image: (C, *grid) as the network is given it, without a stage before.
        segmentation: (*spatial) label map in the axis order of the reader.
        labels: Which structures it holds.
        properties: nnU-Net's, of the preprocessed image.
        transpose: ``transpose_forward`` of nnU-Net's plans.
    """
    from scipy.ndimage import binary_erosion

    num_slices = len(image[0])
    step = min(num_slices, max(1, math.ceil(image[0].size / _MOST_VOXELS)))
    # every step-th slice, with about as many left out before the first as behind the last
    slices = slice((num_slices - 1) % step // 2, None, step)
    crop = tuple(slice(*ends) for ends in properties["bbox_used_for_cropping"])
    cropped = segmentation.transpose(transpose)[crop]
    on_grid = _nearest(cropped, image.shape[1:], slices)
    channels = image[:MOST_CHANNELS, slices].astype(np.float32)
    foreground = on_grid != 0
    outline = foreground & ~_in_slices(binary_erosion, foreground, 1)
    numbers: list[float] = []
    for channel in channels:
        numbers += _numbers_of_channel(channel, foreground, outline)
    for structure in labels.foreground[:MOST_STRUCTURES]:
        numbers += _means_at_structure(channels[0], labels.mask(on_grid, structure))
    spacing = np.array(Geometry.of(properties).spacing_mm)
    # argsort of a permutation is its inverse: back to the axes of the reader, as spacing has them
    size = np.array(cropped.shape)[np.argsort(transpose)] * spacing
    return np.array([*numbers, *map(_log, spacing), *map(_log, size)], float)


def _numbers_of_channel(
    channel: np.ndarray, foreground: np.ndarray, outline: np.ndarray
) -> list[float]:
    """Those of ``_OF_CHANNEL``; ``foreground`` is where there is any structure."""
    numbers = [_log(_noise_of(channel)), *np.quantile(channel, (0.5, 0.95)).tolist()]
    inside = channel[foreground]
    if not inside.size:
        return [*numbers, math.nan, math.nan, math.nan]
    gradient = np.hypot(*np.gradient(channel, axis=(-1, -2)))
    sharpness = gradient[outline].mean() / max(float(channel.std()), _LEAST)
    return [*numbers, float(inside.mean()), _log(inside.std()), _log(sharpness)]


def _noise_of(channel: np.ndarray) -> float | np.floating:
    """Robust spread of second differences along rows; NaN where rows are too short."""
    differences = np.diff(channel, 2, axis=-1)
    if not differences.size:
        return math.nan
    return _MAD * np.median(np.abs(differences - np.median(differences))) / _DIFFERENCES


def _means_at_structure(channel: np.ndarray, mask: np.ndarray) -> list[float]:
    """Mean intensity inside a structure, and in a shell around it; NaN without any voxel."""
    from scipy.ndimage import binary_dilation

    shell = _in_slices(binary_dilation, mask, _SHELL) & ~mask
    means = []
    for where in (mask, shell):
        means.append(float(channel[where].mean()) if where.any() else math.nan)
    return means


def _nearest(values: np.ndarray, shape: Sequence[int], slices: slice) -> np.ndarray:
    """Slices of an array brought to another shape, each voxel with the value of the nearest."""
    indices = []
    for length, length_of_values in zip(shape, values.shape):
        indices.append(((np.arange(length) + 0.5) * length_of_values / length).astype(int))
    return values[np.ix_(indices[0][slices], *indices[1:])]


def _in_slices(operation: Callable[..., np.ndarray], mask: np.ndarray, times: int) -> np.ndarray:
    """A morphological operation within slices, which may be far apart."""
    cross = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)
    return operation(mask, cross, iterations=times)


def _log(value: float | np.floating) -> float:
    return math.log(max(float(value), _LEAST))


@dataclass(frozen=True)
class TrainingRange:
    """Of the training's images, axes z, y, x; n may be 0.

    Attributes:
        spacings_mm: (n, 3) voxel spacing.
        sizes_mm: (n, 3) size, borders of zeros cut off.
    """

    spacings_mm: np.ndarray
    sizes_mm: np.ndarray

    @classmethod
    def find(cls, model: Path) -> TrainingRange:
        """From nnU-Net's fingerprint beside the model; unknown where that is missing or damaged."""
        unknown = cls(np.empty((0, 3)), np.empty((0, 3)))
        try:
            content = read_dict(model / "dataset_fingerprint.json")
            spacings = np.array(content["spacings"], float)
            shapes = np.array(content["shapes_after_crop"], float)
            both = np.stack([spacings, spacings * shapes])
        except (UserError, KeyError, TypeError, ValueError, OverflowError):
            return unknown  # then scans are not held against it
        if both.shape != (2, len(spacings), 3) or not (np.isfinite(both) & (both > 0)).all():
            return unknown
        return cls(*both)

    def times_largest(self, size_mm: Sequence[float]) -> float:
        """Volume of an image as a multiple of the training's largest; 0 if that is not known."""
        largest = self.sizes_mm.prod(-1).max(initial=0)
        if not largest:
            return 0.0
        return float(np.prod(size_mm) / largest)

    def compare(self, geometry: Geometry, shape: Sequence[int]) -> list[str]:
        """In words each axis along which spacing or size of an image lie beyond the range.

        ``shape`` (3,) is that of the image, borders of zeros cut off.
        """
        if not len(self.sizes_mm):
            return []
        unit = "pixels" if geometry.unit == "pixels" else "mm"
        spacing = np.array(geometry.spacing_mm)
        size = spacing * np.array(shape)
        first_axis = 1 if geometry.is_2d else 0  # nnU-Net's readers add the first axis of 2D images
        differences = []
        for quantity, values, usual in (
            ("spacing", spacing, self.spacings_mm),
            ("size", size, self.sizes_mm),
        ):
            for axis in range(first_axis, 3):
                low = usual[:, axis].min()
                high = usual[:, axis].max()
                if not low / SLACK <= values[axis] <= high * SLACK:
                    usual_range = f"{low:.3g} to {high:.3g}" if low < high else f"{low:.3g}"
                    differences.append(
                        f"{quantity} along {'zyx'[axis]} {values[axis]:.3g} {unit}"
                        f" (training {usual_range})"
                    )
        return differences
