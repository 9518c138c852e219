"""How frequent the classes are among labelled voxels, and the biases at which a network predicts just that."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np

from nnunet_nacl.io.labels import Labels

_BLOCK_VOXELS = 1 << 20  # read at a time, or one chunk where that is larger; a read of one small slice costs as much


def count_labels(segmentation: Any, num_labels: int) -> np.ndarray:
    """Voxels of each label in a preprocessed segmentation, of which one block at a time is in memory.

    Args:
        segmentation: (1, *spatial) integers, as nnU-Net's data sets give them: an array of blosc2, read by chunks, or
            of NumPy, read by slices. -1, which nnU-Net's preprocessing leaves around the image, counts as 0, since
            nnU-Net's transforms make it 0.
        num_labels: Labels from this one on are not counted.

    Returns:
        (num_labels,) int64.
    """
    channels, depth, *plane = getattr(segmentation, "chunks", None) or (1, 1, *segmentation.shape[2:])
    sizes = (channels, depth * max(1, _BLOCK_VOXELS // math.prod((channels, depth, *plane))), *plane)
    counts = np.zeros(num_labels, np.int64)
    for starts in product(*(range(0, length, size) for length, size in zip(segmentation.shape, sizes))):
        block = np.asarray(segmentation[tuple(slice(start, start + size) for start, size in zip(starts, sizes))])
        counts += np.bincount(np.maximum(block, 0).ravel(), minlength=num_labels)[:num_labels]
    return counts


def class_frequencies(counts: np.ndarray, labels: Labels) -> np.ndarray:
    """Share of each class, or region, among the voxels without ignore label.

    Args:
        counts: Voxels by label, as from :func:`count_labels`.
        labels: The data set's.

    Returns:
        (K,) or (R,); zeros where no voxel has a label.
    """
    labelled = counts[list(labels.all_values)].sum()
    return np.array([counts[np.atleast_1d(value)].sum() for value in labels.values]) / max(labelled, 1)


def biases_at(frequencies: np.ndarray, regions: bool) -> np.ndarray:
    """Biases at which a last layer with weights of 0 predicts the frequencies.

    For classes ``log f_k``, less the largest; for regions ``log f_r - log(1 - f_r)``. What occurs nowhere gets the
    smallest frequency that was found.

    Args:
        frequencies: (K,) or (R,) shares, see :func:`class_frequencies`.
        regions: Whether they are those of regions.

    Returns:
        As many numbers, finite; zeros where nothing was found.
    """
    sides = np.stack([frequencies, 1 - frequencies]) if regions else frequencies[None]
    logs = np.log(np.where(sides > 0, sides, sides.min(where=sides > 0, initial=1)))
    return logs[0] - logs[1] if regions else logs[0] - logs[0].max()
