"""Slow, obvious expected Dice, decisions and labels that miss less: what the fast ones are held
against.

Arrays are numpy: class probabilities (K, *spatial) with the background first, or region
probabilities (R, *spatial).
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def expected_dice(probs, segmentation, structures) -> list[float]:
    """E of each structure, given as {channel: label values}; NaN where it is absent from the
    segmentation."""
    result = []
    for channel, values in structures.items():
        common = total = size = 0.0
        for voxel in np.ndindex(segmentation.shape):
            p = float(probs[(channel, *voxel)])
            total += p
            if segmentation[voxel] in values:
                common, size = common + p, size + 1
        result.append(2 * common / (total + size) if size else float("nan"))
    return result


def classes(num_classes: int) -> dict:
    """The structures of classes: each but the background."""
    return {k: (k,) for k in range(1, num_classes)}


def largest_total(probs) -> float:
    """The largest sum of E over all label maps whose classes all occur in the argmax; (K, N) with
    small K and N."""
    present = sorted(set(probs.argmax(0)) | {0})
    totals = (
        np.nansum(expected_dice(probs, np.array(labels), classes(len(probs))))
        for labels in itertools.product(present, repeat=probs.shape[1])
    )
    return max(totals)


def sensitive(probs, inside, limits, regions: bool) -> np.ndarray:
    """(structures, *spatial) whether a voxel is in each; ``inside`` says it of the delivered
    labels.

    ``limits`` are log-odds.
    """
    made = inside.copy()
    structures = probs if regions else probs[1:]
    for voxel in np.ndindex(probs.shape[1:]):
        p = [float(channel[voxel]) for channel in structures]
        for k, limit in enumerate(limits):
            free = not inside[k][voxel] if regions else not any(other[voxel] for other in inside)
            is_largest = regions or all(p[k] > q for q in p[:k]) and all(p[k] >= q for q in p[k:])
            odds = (
                math.inf if p[k] == 1 else -math.inf if p[k] == 0 else math.log(p[k] / (1 - p[k]))
            )
            made[k][voxel] |= free and is_largest and odds >= limit
    return made
