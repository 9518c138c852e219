"""Sums of confidence and accuracy in bins of confidence: those of several cases can be added."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.utilities.json_types import Array

DEFAULT_N_BINS = 15
MAX_N_BINS = 10_000

Counts = Annotated[np.ndarray, Array(np.int64, 2)]
Sums = Annotated[np.ndarray, Array(np.float64, 2)]
_COUNTS = ("count", "correct", "class_count", "class_positive")
_TOP_LABEL_SUMS = ("count", "confidence", "correct")
_CLASS_SUMS = ("class_count", "class_confidence", "class_positive")


@dataclass(frozen=True, eq=False)
class BinStats:
    """Calibration sums of voxels in equal confidence bins ``(lo, hi]``; ``a + b`` holds those of
    both sets.

    Counts are int64 and sums float64, so nothing saturates at any volume. Estimated from a sample,
    counts are float64 sums of weights.

    T is 1 for classes (the confidence is the largest probability), R for regions (each is a
    two-class problem with confidence ``max(p, 1 - p)``). K is the number of classes, background
    included, or of regions.

    Attributes:
        count: (T, n_bins) voxels whose confidence lies in the bin.
        confidence: (T, n_bins) sum of their confidences.
        correct: (T, n_bins) how many of them are right.
        class_count: (K, n_bins) voxels whose probability of class k lies in the bin.
        class_confidence: (K, n_bins) sum of those probabilities.
        class_positive: (K, n_bins) how many of them are of class k (inside region k).
        nll: (T,) sum of negative log likelihoods.
        brier: (T,) sum of Brier scores (over classes; of "in" and "out" for a region).
    """

    count: Counts
    confidence: Sums
    correct: Counts
    class_count: Counts
    class_confidence: Sums
    class_positive: Counts
    nll: Annotated[np.ndarray, Array(np.float64)]
    brier: Annotated[np.ndarray, Array(np.float64)]

    def __post_init__(self) -> None:
        for field in fields(self):
            values = np.asarray(getattr(self, field.name))
            dtype = np.int64 if _is_count(field.name, values) else np.float64
            object.__setattr__(self, field.name, values.astype(dtype, copy=False))
        top_label_shape = self.count.shape
        class_shape = self.class_count.shape
        expected_shapes = dict.fromkeys(_TOP_LABEL_SUMS, top_label_shape)
        expected_shapes |= dict.fromkeys(_CLASS_SUMS, class_shape)
        expected_shapes |= dict.fromkeys(("nll", "brier"), top_label_shape[:1])
        for name, expected in expected_shapes.items():
            shape = getattr(self, name).shape
            if shape != expected:
                raise ValueError(f"BinStats.{name} has shape {shape}, expected {expected}.")
        same_bins = top_label_shape[1:] == class_shape[1:]
        if not same_bins or top_label_shape[0] not in (1, class_shape[0]):
            raise ValueError(
                "BinStats needs one top-label row, or one per region: got"
                f" {top_label_shape} beside {class_shape}."
            )

    @classmethod
    def zeros(
        cls, num_classes: int, *, n_bins: int = DEFAULT_N_BINS, regions: bool = False
    ) -> BinStats:
        """Sums of no voxel, of K classes with the background or of R regions."""
        check_n_bins(n_bins)
        top_label = np.zeros((num_classes if regions else 1, n_bins))
        by_class = np.zeros((num_classes, n_bins))
        score = np.zeros(len(top_label))
        return cls(
            count=top_label,
            confidence=top_label,
            correct=top_label,
            class_count=by_class,
            class_confidence=by_class,
            class_positive=by_class,
            nll=score,
            brier=score,
        )

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return self.count.shape[1]

    @property
    def num_classes(self) -> int:
        """K, background included, or R."""
        return self.class_count.shape[0]

    @property
    def n_voxels(self) -> int:
        """Number of voxels that were counted; weights of a sample add up to it but for rounding."""
        return round(self.count[0].sum())

    @property
    def edges(self) -> np.ndarray:
        """(n_bins + 1,) edges of the bins."""
        return np.arange(self.n_bins + 1) / self.n_bins

    def __add__(self, other: BinStats) -> BinStats:
        own_shape = (self.count.shape, self.num_classes)
        other_shape = (other.count.shape, other.num_classes)
        if own_shape != other_shape:
            raise ValueError(
                "Only sums of the same bins and classes can be merged: got"
                f" {own_shape} and {other_shape}."
            )
        sums = {}
        for field in fields(self):
            sums[field.name] = getattr(self, field.name) + getattr(other, field.name)
        return BinStats(**sums)

    @staticmethod
    def merge(stats: Iterable[BinStats]) -> BinStats:
        """Sum of all of them, of which there must be one at least."""
        return reduce(add, stats)


def _is_count(name: str, values: np.ndarray) -> bool:
    """Whether these are counts of voxels, which stay integers; those of a sample are weights."""
    if name not in _COUNTS:
        return False
    return values.dtype.kind != "f" or np.array_equal(values, np.rint(values))


def check_n_bins(n_bins: int) -> None:
    """ValueError unless ``n_bins`` is an integer from 1 to 10,000."""
    if not isinstance(n_bins, (int, np.integer)) or not 1 <= n_bins <= MAX_N_BINS:
        raise ValueError(f"n_bins must be an integer from 1 to {MAX_N_BINS:,}, got {n_bins!r}.")


def bin_index(probs: Tensor, n_bins: int) -> Tensor:
    """int64 bin of float32 or float64 probabilities; bin i of n is (i / n, (i + 1) / n], and the
    first also has 0.

    Edges are rounded to the type of the probabilities.
    """
    edges = torch.arange(1, n_bins, dtype=torch.float64, device=probs.device) / n_bins
    return torch.bucketize(probs, edges.to(probs.dtype), right=False)
