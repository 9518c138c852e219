"""Describes a scan by at most forty numbers of its intensities and geometry, by which unlike scans
are recognised.

Confidence, entropy and predicted Dice are left out, as they differ between single networks and the
average of folds; volumes and numbers of parts, as they vary so much that with them fewer noisy and
blurred scans are seen.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.cases.case import Labels
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.quality.unlike import LOG

MOST_CHANNELS, MOST_STRUCTURES = 3, 5

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
_LEAST = 1e-3
_MOST_VOXELS = 1 << 20  # of larger images every second, third, ... slice is looked at
_SLACK = 1.1  # how far beyond the training's range is still like it


def profile_names(labels: Labels, channels: Sequence[str]) -> list[str]:
    """Of the numbers of :func:`profile`, in its order; ``channels`` are those of dataset.json."""
    structures = [labels.names[channel] for channel in labels.foreground[:MOST_STRUCTURES]]
    return [
        *(
            f"{number} ({channel})"
            for channel in channels[:MOST_CHANNELS]
            for number in _OF_CHANNEL
        ),
        *(f"{channels[0]} {where} {name}" for name in structures for where in ("in", "around")),
        *_OF_GEOMETRY,
    ]


def profile(
    image: np.ndarray,
    segmentation: np.ndarray,
    labels: Labels,
    properties: Mapping[str, Any],
    transpose: Sequence[int],
) -> np.ndarray:
    """(F,) numbers of a scan: intensities as nnU-Net normalises them; logarithms of noise, spread,
    sharpness and sizes.

    Noise is the robust spread of second differences within slices, sharpness the mean gradient on
    the outline of all structures by the spread of the image; *inside* is inside all structures,
    *around* a shell of three voxels within slices. NaN are gaps: what a structure that was not
    segmented has no value for. ``image`` (C, *grid) is as the network is given it, without a stage
    before; ``transpose`` is ``transpose_forward`` of nnU-Net's plans.
    """
    from scipy.ndimage import binary_dilation, binary_erosion

    step = min(len(image[0]), max(1, math.ceil(image[0].size / _MOST_VOXELS)))
    slices = slice((len(image[0]) - 1) % step // 2, None, step)
    spacing = np.array(Geometry.of(properties).spacing_mm)
    cropped = segmentation.transpose(transpose)[
        tuple(slice(*ends) for ends in properties["bbox_used_for_cropping"])
    ]
    size = np.array(cropped.shape)[np.argsort(transpose)] * spacing
    on_grid, image = (
        _nearest(cropped, image.shape[1:], slices),
        image[:MOST_CHANNELS, slices].astype(np.float32),
    )
    foreground = on_grid != 0
    outline = foreground & ~_in_slices(binary_erosion, foreground, 1)
    numbers: list[float] = []
    for channel in image:
        second = np.diff(channel, 2, axis=-1)
        noise = (
            _MAD * np.median(np.abs(second - np.median(second))) / _DIFFERENCES
            if second.size
            else math.nan
        )
        numbers += [_log(noise), *np.quantile(channel, (0.5, 0.95)).tolist()]
        if (inside := channel[foreground]).size:
            steps = np.hypot(*np.gradient(channel, axis=(-1, -2)))
            sharpness = steps[outline].mean() / max(float(channel.std()), _LEAST)
            numbers += [float(inside.mean()), _log(inside.std()), _log(sharpness)]
        else:
            numbers += [math.nan] * 3
    for structure in labels.foreground[:MOST_STRUCTURES]:
        mask = labels.mask(on_grid, structure)
        shell = _in_slices(binary_dilation, mask, _SHELL) & ~mask
        numbers += [
            float(image[0][where].mean()) if where.any() else math.nan for where in (mask, shell)
        ]
    return np.array([*numbers, *map(_log, spacing), *map(_log, size)], float)


def _nearest(values: np.ndarray, shape: Sequence[int], slices: slice) -> np.ndarray:
    """Slices of an array brought to another shape, each voxel with the value of the nearest."""
    first, *others = (
        ((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(shape, values.shape)
    )
    return values[np.ix_(first[slices], *others)]


def _in_slices(operation: Callable[..., np.ndarray], mask: np.ndarray, times: int) -> np.ndarray:
    """A morphological operation within slices, which may be far apart."""
    cross = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)
    return operation(mask, cross, iterations=times)


def _log(value: float) -> float:
    return math.log(max(float(value), _LEAST))


@dataclass(frozen=True)
class TrainingRange:
    """(n, 3) spacing and size, borders of zeros cut off, in mm of the training's images, axes z, y,
    x; n may be 0."""

    spacings_mm: np.ndarray
    sizes_mm: np.ndarray

    @classmethod
    def find(cls, model: Path) -> TrainingRange:
        """From nnU-Net's fingerprint beside the model; unknown where that is missing or damaged."""
        with contextlib.suppress(UserError, KeyError, TypeError, ValueError, OverflowError):
            content = read_dict(model / "dataset_fingerprint.json")
            spacings, shapes = (
                np.array(content[key], float) for key in ("spacings", "shapes_after_crop")
            )
            both = np.stack([spacings, spacings * shapes])
            if both.shape == (2, len(spacings), 3) and (np.isfinite(both) & (both > 0)).all():
                return cls(*both)
        return cls(*np.empty((2, 0, 3)))

    def times_largest(self, size_mm: Sequence[float]) -> float:
        """Volume of an image of this size, as a multiple of the training's largest; 0 if that is
        not known."""
        largest = self.sizes_mm.prod(-1).max(initial=0)
        return float(np.prod(size_mm) / largest) if largest else 0.0

    def compare(self, geometry: Geometry, shape: Sequence[int]) -> list[str]:
        """Spacing and size of an image, borders of zeros cut off, that lie beyond the range: a text
        for each axis."""
        spacing, said = np.array(geometry.spacing_mm), list[str]()
        unit = "pixels" if geometry.unit == "pixels" else "mm"
        sizes = (
            ("spacing", spacing, self.spacings_mm),
            ("size", spacing * np.array(shape), self.sizes_mm),
        )
        for quantity, values, usual in sizes if len(self.sizes_mm) else ():
            for axis in range(int(geometry.is_2d), 3):  # nnU-Net's first axis of 2D images is none
                value, low, high = values[axis], usual[:, axis].min(), usual[:, axis].max()
                if not low / _SLACK <= value <= high * _SLACK:
                    reach = f"{low:.3g} to {high:.3g}" if low < high else f"{low:.3g}"
                    said.append(
                        f"{quantity} along {'zyx'[axis]} {value:.3g} {unit} (training {reach})"
                    )
        return said
