"""Slow, obvious metrics: loops over voxels and bins, everything in Python floats."""

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
    """Per bin: number of voxels, mean confidence, mean outcome; 0 for both in an empty bin."""
    confidences_of_bin = [[] for _ in range(n_bins)]
    outcomes_of_bin = [[] for _ in range(n_bins)]
    for p, outcome in zip(confidences, outcomes):
        number = bin_of(float(p), n_bins)
        confidences_of_bin[number].append(float(p))
        outcomes_of_bin[number].append(float(outcome))
    table = []
    for members, outcomes_of_members in zip(confidences_of_bin, outcomes_of_bin):
        if members:
            table.append((len(members), mean(members), mean(outcomes_of_members)))
        else:
            table.append((0, 0.0, 0.0))
    return table


def weighted_gap(confidences, outcomes, n_bins: int = 15) -> float:
    """Sum of bin share times |outcome - confidence|."""
    if len(confidences) == 0:
        return float("nan")
    weighted = []
    for n, confidence, outcome in gap_table(confidences, outcomes, n_bins):
        weighted.append(n / len(confidences) * abs(outcome - confidence))
    return math.fsum(weighted)


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
    confidence = [max(p) for p in voxels]
    winners = [p.index(max(p)) for p in voxels]  # of equal ones the lowest class
    right = [winner == label for winner, label in zip(winners, labels)]
    gaps = bin_gaps(confidence, right, n_bins)

    per_class = []
    average_gap_per_class = []
    for k in range(len(probs)):
        p_of_class = [p[k] for p in voxels]
        is_class = [label == k for label in labels]
        per_class.append(weighted_gap(p_of_class, is_class, n_bins))
        average_gap_per_class.append(mean(bin_gaps(p_of_class, is_class, n_bins)))

    p_of_truth = [float(p[label]) for p, label in zip(voxels, labels)]
    brier = mean([_squared_error(p, label) for p, label in zip(voxels, labels)])
    return {
        "ECE": weighted_gap(confidence, right, n_bins),
        "CECE_sum": math.fsum(per_class),
        "CECE_mean": mean(per_class),
        "ACE": mean(gaps),
        "marginal_ACE": mean(average_gap_per_class),
        "MCE": max(gaps),
        "NLL": mean([_negative_log(p) for p in p_of_truth]),
        "Brier": brier,
        "root_Brier": math.sqrt(brier),
    }


def _squared_error(probs: list[float], label: int) -> float:
    """Sum over the classes of (p - 1)^2 for the label's and p^2 for the others."""
    return math.fsum((p - (k == label)) ** 2 for k, p in enumerate(probs))


def _negative_log(p: float) -> float:
    """-log p, where p is no less than the smallest number of float32 with all its digits."""
    return -math.log(max(p, 2.0**-126))


def region_metrics(
    probs: np.ndarray, inside: np.ndarray, mask: np.ndarray, n_bins: int = 15
) -> dict[str, float]:
    """All metrics of sigmoid regions on a mask: means over regions of two-class problems.

    Args:
        probs, inside: (R, *spatial).
    """
    if not mask.any():
        return dict.fromkeys(NAMES, float("nan"))
    of_regions = [
        _metrics_of_region(p[mask].tolist(), y[mask].tolist(), n_bins)
        for p, y in zip(probs, inside)
    ]
    result = {}
    for name in NAMES:
        result[name] = mean([metrics[name] for metrics in of_regions])
    result["CECE_sum"] = math.fsum(metrics["CECE_sum"] for metrics in of_regions)
    return result


def _metrics_of_region(probs: list[float], inside: list[bool], n_bins: int) -> dict[str, float]:
    """All metrics of one region."""
    confidence = [max(p, 1 - p) for p in probs]
    right = [(p > 0.5) == y for p, y in zip(probs, inside)]
    gaps = bin_gaps(confidence, right, n_bins)
    calibration_error = weighted_gap(probs, inside, n_bins)
    p_of_truth = [p if y else 1 - p for p, y in zip(probs, inside)]
    brier = mean([2 * (1 - p) ** 2 for p in p_of_truth])
    return {
        "ECE": weighted_gap(confidence, right, n_bins),
        "CECE_sum": calibration_error,
        "CECE_mean": calibration_error,
        "ACE": mean(gaps),
        "marginal_ACE": mean(bin_gaps(probs, inside, n_bins)),
        "MCE": max(gaps),
        "NLL": mean([_negative_log(p) for p in p_of_truth]),
        "Brier": brier,
        "root_Brier": math.sqrt(brier),
    }


def distance_to_nearest(points: np.ndarray, others: np.ndarray, spacing_mm) -> np.ndarray:
    """Distance of each voxel to the nearest of others, all pairs."""
    offsets = (points[:, None, :] - others[None, :, :]) * np.asarray(spacing_mm)
    return np.sqrt((offsets**2).sum(-1)).min(1)


def dilated(labels: np.ndarray, radius_mm: float, spacing_mm) -> np.ndarray:
    """Voxels within the radius of the foreground, all pairs."""
    foreground = np.argwhere(labels != 0)
    everywhere = np.argwhere(np.ones_like(labels))
    if not len(foreground):
        return np.zeros(labels.shape, dtype=bool)
    distance_mm = distance_to_nearest(everywhere, foreground, spacing_mm)
    return (distance_mm <= radius_mm + 1e-6).reshape(labels.shape)


def boundary(labels: np.ndarray, width_mm: float, spacing_mm) -> np.ndarray:
    """Voxels with another label within the width, all pairs."""
    result = np.zeros(labels.shape, dtype=bool)
    for voxel in np.ndindex(labels.shape):
        others = np.argwhere(labels != labels[voxel])
        if len(others):
            (distance_mm,) = distance_to_nearest(np.array([voxel]), others, spacing_mm)
            result[voxel] = distance_mm <= width_mm + 1e-6
    return result
