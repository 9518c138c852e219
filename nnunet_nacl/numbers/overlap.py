"""Overlap of two segmentations, in nnU-Net's definition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of one structure; they add up over cases."""

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN), NaN where the structure is in neither segmentation."""
        return dice(self.tp, self.fp, self.fn)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), NaN where the structure is in neither segmentation."""
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else float("nan")


def dice(tp: int, fp: int, fn: int) -> float:
    """Dice similarity coefficient 2 TP / (2 TP + FP + FN), as nnU-Net: NaN where there is nothing to count."""
    total = 2 * tp + fp + fn
    return 2 * tp / total if total else float("nan")


def count_overlap(truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray | None = None) -> Overlap:
    """Count the agreement of two masks.

    Args:
        truth: Boolean mask of any shape.
        predicted: Boolean mask of the same shape.
        valid: False where a voxel is ignored.

    Returns:
        TP, FP, FN and TN over the voxels that are not ignored.

    Raises:
        ValueError: The shapes differ.
    """
    if truth.shape != predicted.shape or (valid is not None and valid.shape != truth.shape):
        shapes = (truth.shape, predicted.shape, None if valid is None else valid.shape)
        raise ValueError(f"truth, predicted and valid must have one shape, got {shapes[0]}, {shapes[1]}, {shapes[2]}.")
    if valid is not None:
        truth, predicted = truth & valid, predicted & valid
    total = truth.size if valid is None else np.count_nonzero(valid)
    tp = np.count_nonzero(truth & predicted)
    fp = np.count_nonzero(predicted) - tp
    fn = np.count_nonzero(truth) - tp
    return Overlap(int(tp), int(fp), int(fn), int(total - tp - fp - fn))
