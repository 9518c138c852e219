"""Calibration of the chosen label: how often a voxel's label is right, against the probability of that very label.

The other errors ask about the most probable label, which is what nnU-Net delivers. A decided or postprocessed
segmentation delivers others, of which the network may be less sure than of the alternative, and this is their question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, Counts, Sums, bin_index, check_n_bins
from nnunet_nacl.metrics.checks import read_inputs

__all__ = ["ChosenStats", "chosen_ece", "count_chosen"]

_BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class ChosenStats:
    """Sums of any number of voxels in equal bins ``(lo, hi]`` of the probability of the chosen label.

    ``a + b`` holds the sums of both sets of voxels. T is 1 for classes; for regions R: a region chooses in or out.

    Attributes:
        count: (T, n_bins) int64 voxels.
        confidence: (T, n_bins) float64 sum of the probabilities of their chosen labels.
        correct: (T, n_bins) int64 how many of these labels are right.
    """

    count: Counts
    confidence: Sums
    correct: Counts

    def __post_init__(self) -> None:
        if not self.count.shape == self.confidence.shape == self.correct.shape:
            shapes = f"{self.count.shape}, {self.confidence.shape} and {self.correct.shape}"
            raise ValueError(f"ChosenStats needs tables of one shape, got {shapes}.")

    @property
    def n_voxels(self) -> int:
        """Number of voxels that were counted."""
        return int(self.count[0].sum())

    def __add__(self, other: ChosenStats) -> ChosenStats:
        return ChosenStats(self.count + other.count, self.confidence + other.confidence, self.correct + other.correct)


def chosen_ece(stats: ChosenStats) -> float:
    """Expected calibration error of the chosen label: sum_b n_b / N * |accuracy_b - mean confidence_b|, in [0, 1].

    Where the chosen label is the most probable one it equals :func:`nnunet_nacl.metrics.ece`. For regions the mean over
    regions. NaN where no voxel was counted.
    """
    total = stats.count.sum(axis=1)
    gaps = np.abs(stats.correct - stats.confidence).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return float(np.mean(gaps / np.where(total > 0, total, np.nan)))


def count_chosen(
    probs: Tensor | np.ndarray,
    segmentation: Tensor | np.ndarray,
    truth: Tensor | np.ndarray,
    *,
    mask: Tensor | np.ndarray | None = None,
    regions: Sequence[int | tuple[int, ...]] | None = None,
    n_bins: int = DEFAULT_N_BINS,
) -> ChosenStats:
    """Sums of one case, in blocks.

    Args:
        probs: (K, *spatial) class probabilities, background first, or (R, *spatial) region probabilities.
        segmentation: (*spatial) integer label map that was chosen.
        truth: (*spatial) integer label map.
        mask: (*spatial) boolean, the voxels that count; leave ignored ones out here. Usual: all, or where the
            segmentation is not background.
        regions: The label value or values of each region; None for classes.
        n_bins: Number of equal bins.

    Raises:
        ValueError: Shapes do not fit, or a label is none of the classes.
    """
    check_n_bins(n_bins)
    maps = [torch.as_tensor(labels) for labels in (segmentation, truth)]
    if regions is not None:
        maps = [
            torch.stack([torch.isin(labels, torch.as_tensor(values, device=labels.device)) for values in regions])
            for labels in maps
        ]
    case, other = (read_inputs(probs, labels, {}, mask, None, regions is not None) for labels in maps)
    rows = 1 if regions is None else len(regions)
    count, correct = torch.zeros(2, rows * n_bins, dtype=torch.int64)
    confidence = torch.zeros(rows * n_bins, dtype=torch.float64)
    for start in range(0, case.probs.shape[1], _BLOCK):
        part = slice(start, start + _BLOCK)
        chunk, chosen, right = case.probs[:, part], case.truth[..., part], other.truth[..., part]
        if case.valid is not None:
            keep = case.valid[part]
            chunk, chosen, right = chunk[:, keep], chosen[..., keep], right[..., keep]
        chunk = chunk if chunk.dtype == torch.float64 else chunk.float()
        own = chunk.gather(0, chosen[None].long()) if regions is None else torch.where(chosen, chunk, 1 - chunk)
        key = (bin_index(own, n_bins) + n_bins * torch.arange(rows, device=own.device)[:, None]).view(-1)
        is_right = (chosen == right).reshape(-1)
        count += torch.bincount(key, minlength=len(count)).cpu()
        confidence += torch.bincount(key, weights=own.reshape(-1).double(), minlength=len(count)).cpu()
        correct += torch.bincount(key[is_right], minlength=len(count)).cpu()
    return ChosenStats(*(sums.view(rows, n_bins).numpy() for sums in (count, confidence, correct)))
