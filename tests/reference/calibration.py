"""Slow, obvious calibration maps: one voxel at a time, in Python floats."""

from __future__ import annotations

import math

CLIP = 15.0
"""Log-odds beyond it count as it."""

CERTAIN = 1e-6
"""Where no structure is more probable, a map changes nothing."""


def softmax(logits) -> list[float]:
    largest = max(logits)
    odds = [math.exp(logit - largest) for logit in logits]
    total = math.fsum(odds)
    return [value / total for value in odds]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def label_of(logits) -> int:
    """Most probable class, the lowest of equal ones."""
    return list(logits).index(max(logits))


def log_odds(logits) -> list[float]:
    """u_1 .. u_m of the clipped l_k."""
    largest = max(logits)
    background, *structures = [max(logit - largest, -CLIP) for logit in logits]
    return [value - background for value in structures]


def calibrated(logits, slopes, offsets) -> list[float]:
    """Probabilities of the classes of one voxel under a map with a row for every label."""
    probs = softmax(logits)
    if all(p <= CERTAIN for p in probs[1:]):
        return probs
    label = label_of(logits)
    changed = [0.0]
    for slope, offset, odds in zip(slopes[label], offsets[label], log_odds(logits)):
        changed.append(slope * odds + offset)
    return softmax(changed)


def calibrated_regions(logits, slopes, offsets) -> list[float]:
    """Probabilities of the regions of one voxel; the rows of the map are out of and in a region."""
    probs = [sigmoid(logit) for logit in logits]
    if all(p <= CERTAIN for p in probs):
        return probs
    changed = []
    for region, logit in enumerate(logits):
        row = int(logit > 0)
        odds = min(max(logit, -CLIP), CLIP)
        changed.append(sigmoid(slopes[row][region] * odds + offsets[row][region]))
    return changed
