"""Slow, obvious implementations of the calibration map and its likelihood: one voxel at a time, in
Python floats."""

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
