"""What a scan looks like to the network: at most forty numbers of its image on the network's grid, and its geometry.

None needs a pass of a network of its own. Confidence, entropy and predicted Dice are left out: they differ between the
single networks that predict validation cases and the average of folds that predicts new scans. So are volumes and the
number of parts: they vary so much among calibration scans that with them fewer noisy and blurred scans are seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.numbers.unlike import LOG

MOST_CHANNELS, MOST_STRUCTURES = 3, 5

_OF_CHANNEL = (f"{LOG}noise", "median", "95 % quantile", "mean inside", f"{LOG}spread inside", f"{LOG}sharpness")
_SHELL = 3  # voxels around a structure
_MAD = 1.4826  # from median absolute deviation to standard deviation
_DIFFERENCES = math.sqrt(6)  # standard deviation of the second difference of white noise
_LEAST = 1e-3
_MOST_VOXELS = 1 << 20  # of larger images every second, third, ... slice is looked at


def profile_names(labels: Labels, channels: Sequence[str]) -> list[str]:
    """Of the numbers of :func:`profile`, in its order; ``channels`` are those of dataset.json."""
    structures = [labels.names[channel] for channel in labels.foreground[:MOST_STRUCTURES]]
    return [
        *(f"{number} ({channel})" for channel in channels[:MOST_CHANNELS] for number in _OF_CHANNEL),
        *(f"{channels[0]} {where} {name}" for name in structures for where in ("in", "around")),
        *(f"{LOG}{number} along {axis}" for number in ("spacing", "size") for axis in "zyx"),
    ]


def profile(
    image: np.ndarray, segmentation: np.ndarray, labels: Labels, properties: Mapping[str, Any], transpose: Sequence[int]
) -> np.ndarray:
    """The numbers of a scan: intensities as nnU-Net normalises them; logarithms of noise, spread, sharpness and sizes.

    Noise is the robust spread of second differences within slices, sharpness the mean gradient on the outline of all
    structures by the spread of the image; *inside* is inside all structures, *around* a shell of three voxels within
    slices. Of many structures the first five in dataset.json's order are looked at.

    Args:
        image: (C, *grid) as the network is given it, without a stage before.
        segmentation: (*spatial) nnU-Net's own label map of the scan.
        labels: The structures.
        properties: nnU-Net's, of reading and preprocessing.
        transpose: ``transpose_forward`` of nnU-Net's plans.

    Returns:
        (F,) float64, NaN for gaps: what a structure that was not segmented has no value for.
    """
    from scipy.ndimage import binary_dilation, binary_erosion

    step = min(len(image[0]), max(1, math.ceil(image[0].size / _MOST_VOXELS)))
    slices = slice((len(image[0]) - 1) % step // 2, None, step)
    cropped = segmentation.transpose(transpose)[tuple(slice(*ends) for ends in properties["bbox_used_for_cropping"])]
    size = np.array(cropped.shape)[np.argsort(transpose)] * Geometry.of(properties).spacing_mm
    on_grid, image = _nearest(cropped, image.shape[1:], slices), image[:MOST_CHANNELS, slices].astype(np.float32)
    foreground = on_grid != 0
    outline = foreground & ~_in_slices(binary_erosion, foreground, 1)
    numbers: list[float] = []
    for channel in image:
        second = np.diff(channel, 2, axis=-1)
        noise = _MAD * np.median(np.abs(second - np.median(second))) / _DIFFERENCES if second.size else math.nan
        numbers += [_log(noise), *np.quantile(channel, (0.5, 0.95)).tolist()]
        inside, steps = channel[foreground], np.hypot(*np.gradient(channel, axis=(-1, -2)))
        of_outline = _log(steps[outline].mean() / max(float(channel.std()), _LEAST)) if inside.size else math.nan
        numbers += [float(inside.mean()), _log(inside.std())] if inside.size else [math.nan] * 2
        numbers.append(of_outline)
    for structure in labels.foreground[:MOST_STRUCTURES]:
        mask = labels.mask(on_grid, structure)
        shell = _in_slices(binary_dilation, mask, _SHELL) & ~mask
        numbers += [float(image[0][where].mean()) if where.any() else math.nan for where in (mask, shell)]
    return np.array([*numbers, *map(_log, Geometry.of(properties).spacing_mm), *map(_log, size)], float)


def _nearest(values: np.ndarray, shape: Sequence[int], slices: slice) -> np.ndarray:
    """Slices of an array brought to another shape, each voxel with the value of the nearest."""
    first, *others = (((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(shape, values.shape))
    return values[np.ix_(first[slices], *others)]


def _in_slices(operation: Callable[..., np.ndarray], mask: np.ndarray, times: int) -> np.ndarray:
    """A morphological operation within slices, which may be far apart."""
    cross = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)
    return operation(mask, cross, iterations=times)


def _log(value: float) -> float:
    return math.log(max(float(value), _LEAST))
