"""Sufficient sums of a calibration measurement: they merge by addition and keep no voxel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.json_files import Array

DEFAULT_N_BINS = 15
MAX_N_BINS = 10_000

Counts = Annotated[np.ndarray, Array(np.int64, 2)]
Sums = Annotated[np.ndarray, Array(np.float64, 2)]
_COUNTS = ("count", "correct", "class_count", "class_positive")


@dataclass(frozen=True, eq=False)
class BinStats:
    """Calibration sums of any number of voxels in equal confidence bins ``(lo, hi]``.

    Counts are int64 and sums float64, so nothing saturates at any volume (a float32 counter stops at 2**24). ``a + b``
    holds the sums of both sets of voxels: cases, folds, chunks and ranks merge in any order. Estimated from a sample,
    counts are float64 sums of weights; a bin of a difference ``a - b`` may then fall a little below 0.

    T is the number of top-label rows: 1 for classes (the confidence is the largest probability), R for regions (each
    region is a two-class problem with confidence ``max(p, 1 - p)``). K is the number of classes, background
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
            whole = field.name in _COUNTS and (values.dtype.kind != "f" or np.array_equal(values, np.rint(values)))
            object.__setattr__(self, field.name, values.astype(np.int64 if whole else np.float64, copy=False))
        if self.count.ndim != 2 or self.class_count.ndim != 2:
            raise ValueError(f"BinStats needs a table of counts, got shape {self.count.shape}.")
        rows, n_bins = self.count.shape
        for name, shape in _shapes(rows, self.num_classes, n_bins).items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"BinStats.{name} has shape {getattr(self, name).shape}, expected {shape}.")
        if rows not in (1, self.num_classes):
            raise ValueError(
                f"BinStats needs one top-label row, or one per region: got {rows} rows, {self.num_classes} classes."
            )

    @classmethod
    def zeros(cls, num_classes: int, *, n_bins: int = DEFAULT_N_BINS, regions: bool = False) -> BinStats:
        """Sums of no voxel at all.

        Args:
            num_classes: K classes with the background, or R regions.
            n_bins: Number of equal bins on [0, 1].
            regions: Whether the heads are sigmoid regions.

        Returns:
            The neutral element of addition.
        """
        check_n_bins(n_bins)
        shapes = _shapes(num_classes if regions else 1, num_classes, n_bins)
        return cls(**{name: np.zeros(shape) for name, shape in shapes.items()})

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
        """Number of voxels that were counted."""
        return int(self.count[0].sum())

    @property
    def edges(self) -> np.ndarray:
        """(n_bins + 1,) edges of the bins."""
        return np.arange(self.n_bins + 1) / self.n_bins

    def __add__(self, other: BinStats) -> BinStats:
        if not isinstance(other, BinStats):
            return NotImplemented
        if self.count.shape != other.count.shape or self.num_classes != other.num_classes:
            raise ValueError(
                "Only sums of the same bins and classes can be merged: got "
                f"{self.count.shape[0]} x {self.n_bins} bins, {self.num_classes} classes and "
                f"{other.count.shape[0]} x {other.n_bins} bins, {other.num_classes} classes."
            )
        return BinStats(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @staticmethod
    def merge(stats: Iterable[BinStats]) -> BinStats:
        """Sum of all of them; ValueError when there is none to take the shape from."""
        stats = list(stats)
        if not stats:
            raise ValueError("BinStats.merge needs at least one BinStats, got none.")
        return sum(stats[1:], start=stats[0])


def _shapes(rows: int, num_classes: int, n_bins: int) -> dict[str, tuple[int, ...]]:
    top = dict.fromkeys(("count", "confidence", "correct"), (rows, n_bins))
    per_class = dict.fromkeys(("class_count", "class_confidence", "class_positive"), (num_classes, n_bins))
    return {**top, **per_class, "nll": (rows,), "brier": (rows,)}


def check_n_bins(n_bins: int) -> None:
    """ValueError unless ``n_bins`` is an integer from 1 to 10,000."""
    if isinstance(n_bins, bool) or not isinstance(n_bins, (int, np.integer)) or not 1 <= n_bins <= MAX_N_BINS:
        raise ValueError(f"n_bins must be an integer from 1 to {MAX_N_BINS:,}, got {n_bins!r}.")


@lru_cache(maxsize=64)
def _inner_edges(n_bins: int, dtype: torch.dtype) -> Tensor:
    return (torch.arange(1, n_bins, dtype=torch.float64) / n_bins).to(dtype)


@lru_cache(maxsize=64)
def _multiplication_is_exact(n_bins: int, dtype: torch.dtype) -> bool:
    """Whether ceil(p * n_bins) finds the bin of every p: it is monotone, so only the edges' neighbours need a look."""
    edges = _inner_edges(n_bins, dtype)
    expected = torch.arange(1, n_bins, dtype=dtype)
    above = torch.nextafter(edges, torch.full_like(edges, 2))
    return bool(((edges * n_bins).ceil() == expected).all() and ((above * n_bins).ceil() == expected + 1).all())


def bin_index(probs: Tensor, n_bins: int) -> Tensor:
    """Bin of each probability: bin i is (i / n_bins, (i + 1) / n_bins], 0 lies in the first bin, 1 in the last.

    The edges are rounded to the dtype of ``probs``.

    Args:
        probs: Any shape, float32 or float64, in [0, 1].
        n_bins: Number of bins.

    Returns:
        int64 tensor of the same shape.
    """
    if _multiplication_is_exact(n_bins, probs.dtype):
        return (probs * n_bins).ceil_().sub_(1).clamp_(0, n_bins - 1).long()
    return torch.bucketize(probs, _inner_edges(n_bins, probs.dtype).to(probs.device), right=False)
