"""Checks probabilities, splits them into blocks, and sums them into bins of confidence; such sums
can be added."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.json_types import Array
from nnunet_nacl.label_space import LabelSpace, signed

DEFAULT_N_BINS = 15
MAX_N_BINS = 10_000
# of the sum over classes: half-precision probabilities pass, logits and single channels do not
SUM_TOLERANCE = 1e-2

AnyArray = Tensor | np.ndarray
Counts = Annotated[np.ndarray, Array(np.int64, 2)]
Sums = Annotated[np.ndarray, Array(np.float64, 2)]
_COUNTS = ("count", "correct", "class_count", "class_positive")


@dataclass(frozen=True, eq=False)
class BinStats:
    """Calibration sums of voxels in equal confidence bins ``(lo, hi]``; ``a + b`` holds those of
    both sets.

    Counts are int64 and sums float64, so nothing saturates at any volume. Estimated from a sample,
    counts are float64 sums of weights; a bin of a difference ``a - b`` may then fall a little below
    0.

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
            whole = field.name in _COUNTS and (
                values.dtype.kind != "f" or np.array_equal(values, np.rint(values))
            )
            object.__setattr__(
                self, field.name, values.astype(np.int64 if whole else np.float64, copy=False)
            )
        top, by_class = self.count.shape, self.class_count.shape
        for field, shape in zip(fields(self), [top] * 3 + [by_class] * 3 + [top[:1]] * 2):
            if getattr(self, field.name).shape != shape:
                raise ValueError(
                    f"BinStats.{field.name} has shape {getattr(self, field.name).shape}, expected"
                    f" {shape}."
                )
        if top[1:] != by_class[1:] or top[0] not in (1, by_class[0]):
            raise ValueError(
                f"BinStats needs one top-label row, or one per region: got {top} beside {by_class}."
            )

    @classmethod
    def zeros(
        cls, num_classes: int, *, n_bins: int = DEFAULT_N_BINS, regions: bool = False
    ) -> BinStats:
        """Sums of no voxel, of K classes with the background or of R regions."""
        check_n_bins(n_bins)
        top, by_class = (
            np.zeros((num_classes if regions else 1, n_bins)),
            np.zeros((num_classes, n_bins)),
        )
        return cls(top, top, top, by_class, by_class, by_class, top[:, 0], top[:, 0])

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
        mine, others = ((stats.count.shape, stats.num_classes) for stats in (self, other))
        if mine != others:
            raise ValueError(
                f"Only sums of the same bins and classes can be merged: got {mine} and {others}."
            )
        return BinStats(
            *(getattr(self, field.name) + getattr(other, field.name) for field in fields(self))
        )

    @staticmethod
    def merge(stats: Iterable[BinStats]) -> BinStats:
        """Sum of all of them, of which there must be one at least."""
        return reduce(add, stats)


def check_n_bins(n_bins: int) -> None:
    """ValueError unless ``n_bins`` is an integer from 1 to 10,000."""
    if not isinstance(n_bins, (int, np.integer)) or not 1 <= n_bins <= MAX_N_BINS:
        raise ValueError(f"n_bins must be an integer from 1 to {MAX_N_BINS:,}, got {n_bins!r}.")


def bin_index(probs: Tensor, n_bins: int) -> Tensor:
    """int64 bin of float32 or float64 probabilities, (i / n, (i + 1) / n] with edges in their type;
    the first has 0."""
    edges = torch.arange(1, n_bins, dtype=torch.float64, device=probs.device) / n_bins
    return torch.bucketize(probs, edges.to(probs.dtype), right=False)


def read_tensor(array: AnyArray, name: str) -> Tensor:
    """A tensor without gradient; ValueError with the name of what is no array of numbers."""
    try:
        return signed(torch.as_tensor(array).detach())
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} must be a tensor or a numeric array, got {type(array).__name__}: {error}"
        ) from None


def read_probs(probs: AnyArray, regions: bool) -> Tensor:
    """Probabilities as a tensor; ValueError unless they have the type and the channels of class or
    region ones."""
    tensor = read_tensor(probs, "probs")
    if not tensor.ndim or not tensor.is_floating_point():
        raise ValueError(
            f"probs must be floating point of shape (channels, *spatial), got {tensor.dtype}"
            f" {tuple(tensor.shape)}."
        )
    if len(tensor) < (1 if regions else 2):
        raise ValueError(
            f"classes need at least two channels, background included, got {len(tensor)}; for"
            " sigmoid channels give regions=True, or their labels."
        )
    return tensor


def read_labels(
    labels: AnyArray,
    probs: Tensor,
    space: LabelSpace,
    valid: Tensor | None = None,
    *,
    name: str = "segmentation",
) -> tuple[Tensor, Tensor | None]:
    """(N,) class indices or (R, N) booleans, checked, and (N,) booleans of what is valid, None
    where everything is.

    ``name`` is that of the argument, for errors.
    """
    spatial = tuple(probs.shape[1:])
    labels = read_tensor(labels, name).to(probs.device)
    shapes = [tuple(probs.shape)] if space.regions else [spatial, (1, *spatial)]
    if tuple(labels.shape) not in shapes:
        raise ValueError(
            f"{name} must have the shape of probs, {shapes[0]}, got {tuple(labels.shape)}."
        )
    labels = labels.reshape(*[len(probs)] * space.regions, -1)
    if valid is not None:
        labels = torch.where(valid, labels, 0)  # where it is not it may hold anything
    target = space.read(probs.reshape(1, len(probs), -1), labels[None], names=("probs", name))
    if target.valid is not None:
        valid = target.valid[0] if valid is None else valid & target.valid[0]
    return target.labels[0].bool() if space.regions else target.labels[0], valid


def read_mask(mask: AnyArray | None, name: str, probs: Tensor) -> Tensor | None:
    """(N,) booleans, checked; None of None."""
    if mask is None:
        return None
    mask, spatial = read_tensor(mask, name).to(probs.device), tuple(probs.shape[1:])
    if tuple(mask.shape) not in (spatial, (1, *spatial)):
        raise ValueError(
            f"{name} must have the spatial shape of probs, {spatial}, got {tuple(mask.shape)}."
        )
    return (mask != 0).reshape(-1)


def check_chunk(chunk: Tensor, regions: bool) -> None:
    """ValueError unless these (K, n) values are probabilities, and sum to 1 if they are
    classes'."""
    # amin reads a chunk where it lies, min would copy it first
    smallest, largest = float(chunk.amin()), float(chunk.amax()) if regions else 1.0
    if not (smallest >= 0 and largest <= 1):  # not (...): NaN fails every comparison
        if np.isnan(smallest) or np.isnan(largest):
            raise ValueError("the probabilities contain NaN")
        value = smallest if smallest < 0 else largest
        raise ValueError(
            f"the probabilities are not all in [0, 1], for example {value:.6g}; are these logits?"
        )
    if not regions:
        total = chunk.sum(0)
        low, high = float(total.amin()), float(total.amax())
        if not (low >= 1 - SUM_TOLERANCE and high <= 1 + SUM_TOLERANCE):
            worst = low if 1 - low > high - 1 else high
            raise ValueError(f"the probabilities of a voxel sum to {worst:.6g} instead of 1")


def parts(length: int, size: int) -> Iterator[slice]:
    """Slices that cut so many elements into blocks."""
    return (slice(start, start + size) for start in range(0, length, size))


def where_true(flags: Tensor) -> Tensor:
    """int64 indices of what is true in ``flags``, taken as one row; on the CPU by NumPy, in a tenth
    of the time."""
    if flags.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(flags.numpy()))
    return flags.flatten().nonzero().squeeze(1)


def most_probable(probs: Tensor, regions: bool) -> Tensor:
    """(n,) most probable class, the lower one of equals; or (R, n) whether the region is
    predicted."""
    return probs > 0.5 if regions else torch.max(probs, 0)[1]
