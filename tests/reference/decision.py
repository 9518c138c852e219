"""Slow, obvious expected Dice and sensitive labels: what the fast ones are held against.

Arrays are numpy: class probabilities (K, *spatial) with the background first, or region
probabilities (R, *spatial).
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def expected_dice(probs, segmentation, structures) -> list[float]:
    """E of each structure; NaN where it is absent from the segmentation.

    Args:
        structures: {channel: label values}.
    """
    return [
        _expected_dice_of_structure(probs[channel], segmentation, values)
        for channel, values in structures.items()
    ]


def _expected_dice_of_structure(probs, segmentation, values) -> float:
    """2 sum of p inside / (sum of p + number of voxels inside)."""
    p_inside = 0.0
    p_everywhere = 0.0
    size = 0
    for voxel in np.ndindex(segmentation.shape):
        p = float(probs[voxel])
        p_everywhere += p
        if segmentation[voxel] in values:
            p_inside += p
            size += 1
    if size == 0:
        return math.nan
    return 2 * p_inside / (p_everywhere + size)


def classes(num_classes: int) -> dict:
    """The structures of classes: each but the background."""
    return {k: (k,) for k in range(1, num_classes)}


def largest_total(probs) -> float:
    """The largest sum of E over all label maps whose classes all occur in the argmax.

    Args:
        probs: (K, N), both small: all label maps are tried.
    """
    num_classes, num_voxels = probs.shape
    present = sorted(set(probs.argmax(0)) | {0})
    totals = []
    for labels in itertools.product(present, repeat=num_voxels):
        dice = expected_dice(probs, np.array(labels), classes(num_classes))
        totals.append(np.nansum(dice))
    return max(totals)


def sensitive(probs, inside, limits, regions: bool) -> np.ndarray:
    """Whether each voxel is in each structure of the sensitive labels, (structures, *spatial).

    Args:
        inside: The same of the delivered labels.
        limits: Log-odds from which a voxel outside is added, by structure.
    """
    sensitive_labels = inside.copy()
    structures = probs if regions else probs[1:]
    for voxel in np.ndindex(probs.shape[1:]):
        p = [float(channel[voxel]) for channel in structures]
        for k, limit in enumerate(limits):
            if regions:
                may_be_added = not inside[k][voxel]
            else:
                is_background = not any(other[voxel] for other in inside)
                may_be_added = is_background and _first_largest(p) == k
            if may_be_added and _log_odds(p[k]) >= limit:
                sensitive_labels[k][voxel] = True
    return sensitive_labels


def _first_largest(values: list[float]) -> int:
    return values.index(max(values))


def _log_odds(p: float) -> float:
    if p == 0:
        return -math.inf
    if p == 1:
        return math.inf
    return math.log(p / (1 - p))
