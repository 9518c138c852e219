"""How a block of probabilities becomes labels: the argmax and the rules of a decision, for classes and for regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.metrics.checks import SUM_TOLERANCE, where_true
from nnunet_nacl.metrics.expected_dice import ExpectedOverlap, region_table, sum_inside

Sizes = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class ClassRule:
    """A voxel takes the class with the largest slope_k p_k + offset_k; ties go to the lower class.

    Attributes:
        slope: (K,) of each class.
        offset: (K,); -inf for a class that nothing may take.
        sure: A voxel with a larger background probability is background for certain, and is not looked at.
        beta: Of the F-beta that the following rules make as large as they can.
    """

    slope: np.ndarray
    offset: np.ndarray
    sure: float
    beta: float = 1.0

    @classmethod
    def argmax(cls, num_classes: int, beta: float = 1.0) -> ClassRule:
        """The most probable class."""
        return cls(np.ones(num_classes), np.zeros(num_classes), 0.5 + SUM_TOLERANCE, beta)

    def next(self, own: ExpectedOverlap, painted: ExpectedOverlap) -> ClassRule:
        """The class that adds most to the sum of the E_k: ((1 + beta^2) p_k - E_k) / den_k; 0 for the background.

        With den_k = beta^2 sum p_k + |s = k| this is what E_k grows by, to first order, when a voxel joins structure k.

        Args:
            own: The sums that this rule led to.
            painted: The same.
        """
        present = own.chosen > 0
        # an absent class must be kept out: its E_k is 0, so that every voxel would gain by joining it
        square, score = self.beta * self.beta, own.fbeta(self.beta)
        size = np.where(present, square * own.expected + own.chosen, np.inf)
        offset = np.where(present, -score / size, -np.inf)
        sure = 1 + SUM_TOLERANCE - np.nanmin(score, initial=1) / (1 + square)  # above it no p_k reaches its threshold
        return ClassRule(np.append(0, (1 + square) / size), np.append(0, offset), float(sure), self.beta)

    def label(self, chunk: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Sizes]:
        """(n,) int64 labels of (K, n) probabilities, and size and sum of each class; (n,) weights are of voxels."""
        labels = torch.zeros(chunk.shape[1], dtype=torch.int64, device=chunk.device)
        where = where_true(~(chunk[0] > self.sure))
        scores = chunk.index_select(1, where)
        scores *= torch.as_tensor(self.slope, dtype=scores.dtype, device=scores.device)[:, None]
        scores += torch.as_tensor(self.offset, dtype=scores.dtype, device=scores.device)[:, None]
        if len(where):
            labels[where] = scores.max(0)[1]
        return labels, sum_inside(chunk, labels, None, weights)

    @property
    def table(self) -> Tensor:
        """(S, labels) booleans: whether a structure holds a label value."""
        return torch.eye(len(self.slope), dtype=torch.bool)[1:]


def above(chunk: Tensor, threshold: np.ndarray, weights: Tensor | None = None) -> tuple[Tensor, Sizes]:
    """Where each row of (S, n) probabilities is above its own of (S,) thresholds, and size and sum of that."""
    inside = chunk > torch.as_tensor(threshold, dtype=chunk.dtype, device=chunk.device)[:, None]
    counted = inside if weights is None else inside * weights
    sums = (chunk * counted).sum(1, dtype=torch.float64)
    return inside, (counted.sum(1).cpu().numpy(), sums.cpu().numpy())


@dataclass(frozen=True, eq=False)
class RegionRule:
    """A voxel lies in region r where p_r is above its threshold; then the regions are painted in nnU-Net's order.

    Attributes:
        labels: The label that each region paints with, in the order of the channels; a later region paints over an
            earlier one (nnU-Net's ``regions_class_order``).
        table: (R, labels) booleans: whether a region holds a label value.
        threshold: (R,); inf for a region that nothing may take.
        beta: Of the F-beta that the following rules make as large as they can.
    """

    labels: tuple[int, ...]
    table: Tensor
    threshold: np.ndarray
    beta: float = 1.0

    @classmethod
    def argmax(cls, values: Sequence[int | tuple[int, ...]], labels: Sequence[int], beta: float = 1.0) -> RegionRule:
        """In, where in is more probable than out.

        Args:
            values: Label value or values of each region.
            labels: The label that each paints with.
            beta: Of the F-beta.

        Raises:
            ValueError: There is not one label for each region.
        """
        if len(values) != len(labels):
            raise ValueError(f"every region paints with one label, got {len(values)} regions and the labels {labels}.")
        painted = tuple(int(label) for label in labels)
        return cls(painted, region_table(values, max(painted)), np.full(len(painted), 0.5), beta)

    def next(self, own: ExpectedOverlap, painted: ExpectedOverlap) -> RegionRule:
        """In, where the region gains by it: (1 + beta^2) p_r > E_r.

        Args:
            own: The sums that this rule led to before anything was painted over: E_r is taken from them.
            painted: Those of the painted map: a region that is not to be seen there stays out.
        """
        present = (own.chosen > 0) & (painted.chosen > 0)
        threshold = own.fbeta(self.beta) / (1 + self.beta * self.beta)
        return replace(self, threshold=np.where(present, threshold, np.inf))

    def label(self, chunk: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Sizes]:
        """(n,) int64 painted labels of (R, n) probabilities, and size and sum of each region before painting."""
        inside, sizes = above(chunk, self.threshold, weights)
        labels = torch.zeros(chunk.shape[1], dtype=torch.int64, device=chunk.device)
        for mask, label in zip(inside, self.labels):
            labels.masked_fill_(mask, label)
        return labels, sizes
