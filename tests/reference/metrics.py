"""Slow, obvious implementations of the metrics: loops over voxels and bins, everything in Python floats."""

from __future__ import annotations

import math

import numpy as np


def bin_of(p: float, n_bins: int = 15) -> int:
    """Bin (lo, hi] of a probability; the first bin also takes 0."""
    for i in range(n_bins):
        if p <= (i + 1) / n_bins:
            return i
    return n_bins - 1


def gap_table(confidences, outcomes, n_bins: int = 15):
    """Per bin: number of voxels, mean confidence, mean outcome."""
    table = []
    members = [[] for _ in range(n_bins)]
    for p, hit in zip(confidences, outcomes):
        members[bin_of(float(p), n_bins)].append((float(p), float(hit)))
    for voxels in members:
        n = len(voxels)
        mean = (math.fsum(p for p, _ in voxels) / n, math.fsum(h for _, h in voxels) / n) if n else (0.0, 0.0)
        table.append((n, *mean))
    return table


def weighted_gap(confidences, outcomes, n_bins: int = 15) -> float:
    """Sum of bin share times |outcome - confidence|."""
    if len(confidences) == 0:
        return float("nan")
    return math.fsum(n / len(confidences) * abs(a - c) for n, c, a in gap_table(confidences, outcomes, n_bins))


def bin_gaps(confidences, outcomes, n_bins: int = 15) -> list[float]:
    """|outcome - confidence| of the non-empty bins."""
    return [abs(a - c) for n, c, a in gap_table(confidences, outcomes, n_bins) if n]


def class_metrics(probs: np.ndarray, truth: np.ndarray, mask: np.ndarray, n_bins: int = 15) -> dict[str, float]:
    """All metrics of softmax classes on a mask. probs (K, *spatial)."""
    voxels = [probs[(slice(None), *index)].tolist() for index in np.argwhere(mask)]
    labels = [int(truth[tuple(index)]) for index in np.argwhere(mask)]
    if not voxels:
        return dict.fromkeys(("ECE", "CECE_sum", "CECE_mean", "ACE", "MCE", "NLL", "Brier"), float("nan"))
    winners = [max(range(len(p)), key=lambda k, p=p: (p[k], -k)) for p in voxels]
    confidence = [p[w] for p, w in zip(voxels, winners)]
    right = [w == y for w, y in zip(winners, labels)]
    gaps = bin_gaps(confidence, right, n_bins)
    per_class = [weighted_gap([p[k] for p in voxels], [y == k for y in labels], n_bins) for k in range(probs.shape[0])]
    return {
        "ECE": weighted_gap(confidence, right, n_bins),
        "CECE_sum": math.fsum(per_class),
        "CECE_mean": math.fsum(per_class) / len(per_class),
        "ACE": math.fsum(gaps) / len(gaps),
        "MCE": max(gaps),
        "NLL": math.fsum(-math.log(max(float(p[y]), 2.0**-126)) for p, y in zip(voxels, labels)) / len(labels),
        "Brier": math.fsum(
            math.fsum((float(p[k]) - (k == y)) ** 2 for k in range(len(p))) for p, y in zip(voxels, labels)
        )
        / len(labels),
    }


def region_metrics(probs: np.ndarray, inside: np.ndarray, mask: np.ndarray, n_bins: int = 15) -> dict[str, float]:
    """All metrics of sigmoid regions on a mask: the mean over regions of two-class problems. probs (R, *spatial)."""
    rows = []
    for p, y in zip(probs, inside):
        p, y = [float(v) for v in p[mask]], [bool(v) for v in y[mask]]
        if not p:
            return dict.fromkeys(("ECE", "CECE_sum", "CECE_mean", "ACE", "MCE", "NLL", "Brier"), float("nan"))
        confidence = [v if v > 0.5 else 1 - v for v in p]
        right = [(v > 0.5) == t for v, t in zip(p, y)]
        gaps = bin_gaps(confidence, right, n_bins)
        own = [v if t else 1 - v for v, t in zip(p, y)]
        rows.append(
            (
                weighted_gap(confidence, right, n_bins),
                weighted_gap(p, y, n_bins),
                math.fsum(gaps) / len(gaps),
                max(gaps),
                math.fsum(-math.log(max(v, 2.0**-126)) for v in own) / len(p),
                math.fsum(2 * (1 - v) ** 2 for v in own) / len(p),
            )
        )
    ece, ce, ace, mce, nll, brier = (math.fsum(column) / len(rows) for column in zip(*rows))
    return {"ECE": ece, "CECE_sum": ce * len(rows), "CECE_mean": ce, "ACE": ace, "MCE": mce, "NLL": nll, "Brier": brier}


def distance_to_nearest(points: np.ndarray, others: np.ndarray, spacing_mm) -> np.ndarray:
    """Distance of each voxel to the nearest of others, all pairs."""
    offsets = (points[:, None, :] - others[None, :, :]) * np.asarray(spacing_mm)
    return np.sqrt((offsets**2).sum(-1)).min(1)


def dilated(labels: np.ndarray, radius_mm: float, spacing_mm) -> np.ndarray:
    """Voxels within the radius of the foreground, all pairs."""
    foreground, everywhere = np.argwhere(labels != 0), np.argwhere(np.ones_like(labels))
    if not len(foreground):
        return np.zeros(labels.shape, dtype=bool)
    return (distance_to_nearest(everywhere, foreground, spacing_mm) <= radius_mm + 1e-6).reshape(labels.shape)


def boundary(labels: np.ndarray, width_mm: float, spacing_mm) -> np.ndarray:
    """Voxels with another label within the width, all pairs."""
    everywhere = np.argwhere(np.ones_like(labels))
    result = np.zeros(labels.shape, dtype=bool)
    for index in map(tuple, everywhere):
        other = np.argwhere(labels != labels[index])
        if len(other):
            result[index] = distance_to_nearest(np.array([index]), other, spacing_mm)[0] <= width_mm + 1e-6
    return result
