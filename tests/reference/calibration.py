"""Slow, obvious implementations of the calibration map and its likelihood: one voxel at a time, in Python floats."""

from __future__ import annotations

import math

CLIP, CERTAIN = 15.0, 1e-6


def softmax(logits) -> list[float]:
    largest = max(logits)
    parts = [math.exp(z - largest) for z in logits]
    return [part / math.fsum(parts) for part in parts]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def label_of(logits) -> int:
    """Most probable class, the lowest of equal ones."""
    return list(logits).index(max(logits))


def log_odds(logits) -> list[float]:
    """u_1 .. u_m of the clipped l_k."""
    clipped = [max(z - max(logits), -CLIP) for z in logits]
    return [one - clipped[0] for one in clipped[1:]]


def calibrated(logits, slopes, offsets) -> list[float]:
    """Probabilities of the classes of one voxel under a map with a row for every label."""
    probs = softmax(logits)
    if all(p <= CERTAIN for p in probs[1:]):
        return probs
    c = label_of(logits)
    return softmax([0.0, *(a * u + b for a, b, u in zip(slopes[c], offsets[c], log_odds(logits)))])


def calibrated_regions(logits, slopes, offsets) -> list[float]:
    """Probabilities of the regions of one voxel; the rows of the map are out of and in a region."""
    probs = [sigmoid(z) for z in logits]
    if all(p <= CERTAIN for p in probs):
        return probs
    inside = [int(z > 0) for z in logits]
    odds = [min(max(z, -CLIP), CLIP) for z in logits]
    return [sigmoid(slopes[c][r] * u + offsets[c][r]) for r, (c, u) in enumerate(zip(inside, odds))]


def mean_loss(logits, target, weights, slopes, offsets, regions: bool) -> float:
    """Weighted mean of the voxels' negative log likelihood in nats; that of regions is the mean over them.

    Args:
        logits: One list a voxel, of its classes or regions.
        target: True class, or a list of 0 and 1, of each voxel.
        weights: Of each voxel.
        slopes: A list of slopes for each label.
        offsets: Alike.
        regions: Whether the structures are regions.
    """
    losses = []
    for z, y in zip(logits, target):
        if regions:
            probs = calibrated_regions(z, slopes, offsets)
            own = [p if inside else 1 - p for p, inside in zip(probs, y)]
            losses.append(math.fsum(-math.log(p) for p in own) / len(own))
        else:
            losses.append(-math.log(calibrated(z, slopes, offsets)[int(y)]))
    return math.fsum(w * loss for w, loss in zip(weights, losses)) / math.fsum(weights)
