"""Sufficient sums of one epoch's validation batches: they merge by addition and keep no voxel."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, BinStats
from nnunet_nacl.metrics.calibration_error import ece

__all__ = ["GROUPS", "MASKS", "MAX_MATRIX_CLASSES", "EpochSums", "MaxLogitBins"]

MASKS = {"foreground": (1, 3), "predicted": (2, 3), "all": (0, 1, 2, 3)}
"""The groups of voxels that each mask consists of."""

GROUPS = 4
"""Number of groups: 1 for the true foreground plus 2 for the predicted one."""

MAX_MATRIX_CLASSES = 32
"""With more classes the record would grow to a hundred megabytes, and nobody could read the matrix."""

_FLOATS = ("confidence", "max_logit_sum", "logit_sum")


@dataclass(frozen=True)
class MaxLogitBins:
    """Bins of the maximum logit: ``number`` bins of equal ``width``, of which the first and last are open.

    Bin i holds [low + (i - 1) * width, low + i * width); bin 0 what lies below ``low``, the last one everything from
    its lower edge on.
    """

    low: float = -10.0
    width: float = 0.25
    number: int = 202

    def to_json(self) -> dict[str, Any]:
        """The three numbers."""
        return {"low": self.low, "width": self.width, "number": self.number}


@dataclass(frozen=True, eq=False)
class EpochSums:
    """Sums over the voxels of an epoch's validation batches; ``a + b`` holds those of both (batches, ranks).

    T rows: 1 for classes, one per region for regions. G = 4 groups of voxels, see :data:`MASKS`. K channels: classes
    with the background, or regions. C true classes: the K classes; for regions what lies in no region, then the
    regions. Voxels that are ignored or whose logits are not all finite are in none of the sums.

    Attributes:
        count: (T, G, bins) voxels by confidence of the winning class, int64.
        correct: (T, G, bins) how many of them are right, int64.
        confidence: (T, G, bins) sum of their confidences, float64.
        max_logit_count: (T, G, max-logit bins) voxels by maximum logit (regions: by |l|), int64.
        max_logit_sum: (T, G) sum of the maximum logits, float64.
        class_count: (C,) voxels of each true class, int64.
        logit_sum: (C, K) sum of their logit vectors, float64.
        not_finite: (1,) voxels that were not ignored but had a logit that is infinite or NaN, int64.
    """

    count: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray
    max_logit_count: np.ndarray
    max_logit_sum: np.ndarray
    class_count: np.ndarray
    logit_sum: np.ndarray
    not_finite: np.ndarray

    def __post_init__(self) -> None:
        for field in fields(self):
            dtype = np.float64 if field.name in _FLOATS else np.int64
            object.__setattr__(self, field.name, np.asarray(getattr(self, field.name), dtype=dtype))
        bins = {"n_bins": self.count.shape[-1], "max_logit_bins": self.max_logit_count.shape[-1]}
        for name, shape in self.shapes(self.regions, self.logit_sum.shape[1], **bins).items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"EpochSums.{name} must have shape {shape}, got {getattr(self, name).shape}.")

    @staticmethod
    def shapes(
        regions: bool,
        num_channels: int,
        *,
        groups: int = GROUPS,
        n_bins: int = DEFAULT_N_BINS,
        max_logit_bins: int = MaxLogitBins.number,
    ) -> dict[str, tuple[int, ...]]:
        """The shape of each field."""
        rows, classes = num_channels if regions else 1, num_channels + regions
        return dict.fromkeys(("count", "correct", "confidence"), (rows, groups, n_bins)) | {
            "max_logit_count": (rows, groups, max_logit_bins),
            "max_logit_sum": (rows, groups),
            "class_count": (classes,),
            "logit_sum": (classes, num_channels),
            "not_finite": (1,),
        }

    @property
    def regions(self) -> bool:
        """Whether the channels are sigmoid regions: only then the voxels outside of them are one class more."""
        return self.logit_sum.shape[0] == self.logit_sum.shape[1] + 1

    def __add__(self, other: EpochSums) -> EpochSums:
        if not isinstance(other, EpochSums):
            return NotImplemented
        return EpochSums(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def bins(self, mask: str) -> BinStats:
        """The sums of the winning class in one mask; those of each class by itself are not kept and 0."""
        groups = list(MASKS[mask])
        empty = BinStats.zeros(self.logit_sum.shape[1], n_bins=self.count.shape[-1], regions=self.regions)
        sums = {name: getattr(self, name)[:, groups].sum(1) for name in ("count", "correct", "confidence")}
        return replace(empty, **sums)

    def entry(self, epoch: int, epoch_start_timestamp: float | None = None) -> dict[str, Any]:
        """What the record keeps of the epoch, in plain numbers and lists; what is undefined is None.

        Args:
            epoch: Number of the epoch, from 0.
            epoch_start_timestamp: When it began, in seconds since 1970, exactly as nnU-Net logged it.
        """
        matrix = self.logit_sum / np.where(self.class_count > 0, self.class_count, np.nan)[:, None]
        own = np.arange(len(matrix)) - self.regions  # channel of each true class; outside of all regions there is none
        entry = {
            "epoch": int(epoch),
            "epoch_start_timestamp": epoch_start_timestamp,
            "calibration": {},
            "max_logit": {},
            "n_class_voxels": self.class_count.tolist(),
            "mean_logit_of_true_class": [_rounded(row[k]) if k >= 0 else None for k, row in zip(own, matrix)],
            "mean_logits": [[_rounded(value) for value in row] for row in matrix]
            if len(matrix) <= MAX_MATRIX_CLASSES
            else None,
            "n_not_finite": int(self.not_finite[0]),
            "bins": {},
        }
        for mask, groups in MASKS.items():
            stats = self.bins(mask)
            count = self.max_logit_count[:, list(groups)].sum((0, 1))
            total, number = self.max_logit_sum[:, list(groups)].sum(), int(count.sum())
            entry["calibration"][mask] = {
                "n_voxels": stats.n_voxels,
                "ECE": _rounded(ece(stats), 9),
                "accuracy": _rounded(stats.correct.sum() / number, 9) if number else None,
                "confidence": _rounded(stats.confidence.sum() / number, 9) if number else None,
            }
            used = np.flatnonzero(count)
            first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
            entry["max_logit"][mask] = {
                "mean": _rounded(total / number, 9) if number else None,
                "first_bin": first,
                "counts": count[first:last].tolist(),
            }
            entry["bins"][mask] = {name: getattr(stats, name).tolist() for name in ("count", "confidence", "correct")}
        return entry


def _rounded(value: float, digits: int = 6) -> float | None:
    """So many significant digits: more would only make the file larger. None for NaN."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None
