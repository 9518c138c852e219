"""How frequent the classes are among labelled voxels, and the biases at which a network predicts just that."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnunet_nacl.io.labels import Labels


def count_labels(segmentation: Any, num_labels: int) -> np.ndarray:
    """Voxels of each label in a preprocessed segmentation.

    Args:
        segmentation: (1, *spatial) integers, as nnU-Net's data sets give them: an array of NumPy or of blosc2. -1,
            which nnU-Net's preprocessing leaves around the image, counts as 0, since nnU-Net's transforms make it 0.
        num_labels: Labels from this one on are not counted.

    Returns:
        (num_labels,) int64.
    """
    planes = np.asarray(segmentation[:])[0]  # a block at a time would be decompressed more than once
    counts = (np.bincount(np.maximum(plane, 0).ravel(), minlength=num_labels)[:num_labels] for plane in planes)
    return sum(counts, np.zeros(num_labels, np.int64))


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
