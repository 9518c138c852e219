"""Slow, obvious implementations of the metrics: loops over voxels and bins, everything in Python
floats."""

from __future__ import annotations

import math

import numpy as np

NAMES = ("ECE", "CECE_sum", "CECE_mean", "ACE", "marginal_ACE", "MCE", "NLL", "Brier", "root_Brier")


def bin_of(p: float, n_bins: int = 15) -> int:
    """Bin (lo, hi] of a probability; the first bin also takes 0."""
    for i in range(n_bins):
        if p <= (i + 1) / n_bins:
            return i
    return n_bins - 1


def mean(values) -> float:
    return math.fsum(values) / len(values)


def gap_table(confidences, outcomes, n_bins: int = 15):
    """Per bin: number of voxels, mean confidence, mean outcome."""
    table = []
    members = [[] for _ in range(n_bins)]
    for p, hit in zip(confidences, outcomes):
        members[bin_of(float(p), n_bins)].append((float(p), float(hit)))
    for voxels in members:
        n = len(voxels)
        mean = (
            (math.fsum(p for p, _ in voxels) / n, math.fsum(h for _, h in voxels) / n)
            if n
            else (0.0, 0.0)
        )
        table.append((n, *mean))
    return table


def weighted_gap(confidences, outcomes, n_bins: int = 15) -> float:
    """Sum of bin share times |outcome - confidence|."""
    if len(confidences) == 0:
        return float("nan")
    return math.fsum(
        n / len(confidences) * abs(a - c) for n, c, a in gap_table(confidences, outcomes, n_bins)
    )


def bin_gaps(confidences, outcomes, n_bins: int = 15) -> list[float]:
    """|outcome - confidence| of the non-empty bins."""
    return [abs(a - c) for n, c, a in gap_table(confidences, outcomes, n_bins) if n]


def class_metrics(
    probs: np.ndarray, truth: np.ndarray, mask: np.ndarray, n_bins: int = 15
) -> dict[str, float]:
    """All metrics of softmax classes on a mask. probs (K, *spatial)."""
    voxels = [probs[(slice(None), *index)].tolist() for index in np.argwhere(mask)]
    labels = [int(truth[tuple(index)]) for index in np.argwhere(mask)]
    if not voxels:
        return dict.fromkeys(NAMES, float("nan"))
    winners = [max(range(len(p)), key=lambda k, p=p: (p[k], -k)) for p in voxels]
    confidence = [p[w] for p, w in zip(voxels, winners)]
    right = [w == y for w, y in zip(winners, labels)]
    gaps = bin_gaps(confidence, right, n_bins)
    classes = [([p[k] for p in voxels], [y == k for y in labels]) for k in range(probs.shape[0])]
    per_class = [weighted_gap(*of_class, n_bins) for of_class in classes]
    brier = mean(
        [
            math.fsum((p - (k == y)) ** 2 for k, p in enumerate(voxel))
            for voxel, y in zip(voxels, labels)
        ]
    )
    return {
        "ECE": weighted_gap(confidence, right, n_bins),
        "CECE_sum": math.fsum(per_class),
        "CECE_mean": mean(per_class),
        "ACE": mean(gaps),
        "marginal_ACE": mean([mean(bin_gaps(*of_class, n_bins)) for of_class in classes]),
        "MCE": max(gaps),
        "NLL": mean([-math.log(max(float(p[y]), 2.0**-126)) for p, y in zip(voxels, labels)]),
        "Brier": brier,
        "root_Brier": math.sqrt(brier),
    }


def region_metrics(
    probs: np.ndarray, inside: np.ndarray, mask: np.ndarray, n_bins: int = 15
) -> dict[str, float]:
    """All metrics of sigmoid regions on a mask: the mean over regions of two-class problems. probs
    (R, *spatial)."""
    rows = []
    for p, y in zip(probs, inside):
        p, y = [float(v) for v in p[mask]], [bool(v) for v in y[mask]]
        if not p:
            return dict.fromkeys(NAMES, float("nan"))
        confidence = [v if v > 0.5 else 1 - v for v in p]
        right = [(v > 0.5) == t for v, t in zip(p, y)]
        gaps = bin_gaps(confidence, right, n_bins)
        own = [v if t else 1 - v for v, t in zip(p, y)]
        rows.append(
            (
                weighted_gap(confidence, right, n_bins),
                weighted_gap(p, y, n_bins),
                mean(gaps),
                mean(bin_gaps(p, y, n_bins)),
                max(gaps),
                mean([-math.log(max(v, 2.0**-126)) for v in own]),
                mean([2 * (1 - v) ** 2 for v in own]),
                math.sqrt(mean([2 * (1 - v) ** 2 for v in own])),
            )
        )
    ece, ce, *others = (mean(column) for column in zip(*rows))
    return dict(zip(NAMES, (ece, ce * len(rows), ce, *others)))


def distance_to_nearest(points: np.ndarray, others: np.ndarray, spacing_mm) -> np.ndarray:
    """Distance of each voxel to the nearest of others, all pairs."""
    offsets = (points[:, None, :] - others[None, :, :]) * np.asarray(spacing_mm)
    return np.sqrt((offsets**2).sum(-1)).min(1)


def dilated(labels: np.ndarray, radius_mm: float, spacing_mm) -> np.ndarray:
    """Voxels within the radius of the foreground, all pairs."""
    foreground, everywhere = np.argwhere(labels != 0), np.argwhere(np.ones_like(labels))
    if not len(foreground):
        return np.zeros(labels.shape, dtype=bool)
    return (distance_to_nearest(everywhere, foreground, spacing_mm) <= radius_mm + 1e-6).reshape(
        labels.shape
    )


def boundary(labels: np.ndarray, width_mm: float, spacing_mm) -> np.ndarray:
    """Voxels with another label within the width, all pairs."""
    everywhere = np.argwhere(np.ones_like(labels))
    result = np.zeros(labels.shape, dtype=bool)
    for index in map(tuple, everywhere):
        other = np.argwhere(labels != labels[index])
        if len(other):
            result[index] = (
                distance_to_nearest(np.array([index]), other, spacing_mm)[0] <= width_mm + 1e-6
            )
    return result
