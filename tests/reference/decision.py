"""Slow, obvious expected Dice and decisions: what the fast ones are held against.

Arrays are numpy: class probabilities (K, *spatial) with the background first, or region probabilities (R, *spatial).
"""

from __future__ import annotations

import itertools

import numpy as np


def expected_dice(probs, segmentation, structures) -> list[float]:
    """E of each structure, given as {channel: label values}; NaN where it is absent from the segmentation."""
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
    """The largest sum of E over all label maps whose classes all occur in the argmax; (K, N) with small K and N."""
    present = sorted(set(probs.argmax(0)) | {0})
    totals = (
        np.nansum(expected_dice(probs, np.array(labels), classes(len(probs))))
        for labels in itertools.product(present, repeat=probs.shape[1])
    )
    return max(totals)


def rounds(probs, count: int) -> list[np.ndarray]:
    """The argmax and the label maps of ``count`` rounds of the iteration; (K, N), voxel by voxel."""
    num_classes, size = probs.shape
    states = [probs.argmax(0)]
    for _ in range(count):
        last = states[-1]
        scores = expected_dice(probs, last, classes(num_classes))
        labels = np.zeros(size, int)
        for voxel in range(size):
            best = 0.0
            for k in range(1, num_classes):
                chosen = np.count_nonzero(last == k)
                if chosen:
                    gain = (2 * probs[k, voxel] - scores[k - 1]) / (probs[k].sum() + chosen)
                    if gain > best:
                        best, labels[voxel] = gain, k
        states.append(labels)
    return states
