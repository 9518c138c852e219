"""What the trainers record about calibration while they train: the sums of an epoch, and the file that keeps them.

Sums merge by addition and keep no voxel. The file, calibration_progress.json, has one line per epoch and is rewritten
as a whole each time. Nothing here needs nnU-Net, so that a record can be read and drawn anywhere.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

import nnunet_nacl
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import write_atomically
from nnunet_nacl.json_files import decode, read_dict
from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, BinStats
from nnunet_nacl.metrics.calibration_error import ece

MASKS = {"foreground": (1, 3), "predicted": (2, 3), "all": (0, 1, 2, 3)}
"""The groups of voxels that each mask consists of."""

GROUPS = 4
"""Number of groups: 1 for the true foreground plus 2 for the predicted one."""

MAX_MATRIX_CLASSES = 32
"""With more classes the record would grow to a hundred megabytes, and nobody could read the matrix."""

FLOATS = ("confidence", "max_logit_sum", "logit_sum")
"""The sums of an epoch that are no counts."""


@dataclass(frozen=True)
class MaxLogitBins:
    """Bins of the maximum logit: ``number`` bins of equal ``width``, of which the first and last are open.

    Bin i holds [low + (i - 1) * width, low + i * width); bin 0 what lies below ``low``, the last one everything from
    its lower edge on.
    """

    low: float = -10.0
    width: float = 0.25
    number: int = 202


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
            dtype = np.float64 if field.name in FLOATS else np.int64
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
            "mean_logits": [list(map(_rounded, row)) for row in matrix] if len(matrix) <= MAX_MATRIX_CLASSES else None,
            "n_not_finite": int(self.not_finite[0]),
            "bins": {},
        }
        for mask, groups in MASKS.items():
            stats = self.bins(mask)
            count = self.max_logit_count[:, list(groups)].sum((0, 1))
            number = int(count.sum())
            sums = (stats.correct.sum(), stats.confidence.sum(), self.max_logit_sum[:, list(groups)].sum())
            accuracy, confidence, mean = (_rounded(total / number, 9) if number else None for total in sums)
            means = {"ECE": _rounded(ece(stats), 9), "accuracy": accuracy, "confidence": confidence}
            entry["calibration"][mask] = {"n_voxels": stats.n_voxels, **means}
            used = np.flatnonzero(count)
            first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
            entry["max_logit"][mask] = {"mean": mean, "first_bin": first, "counts": count[first:last].tolist()}
            entry["bins"][mask] = {name: getattr(stats, name).tolist() for name in ("count", "confidence", "correct")}
        return entry


def _rounded(value: float, digits: int = 6) -> float | None:
    """So many significant digits: more would only make the file larger. None for NaN."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


FILE_NAME = "calibration_progress.json"
SCHEMA_VERSION = 1


class _Epoch(TypedDict):
    epoch: int
    calibration: dict[str, Any]
    max_logit: dict[str, Any]
    mean_logits: list[Any] | None
    n_class_voxels: list[Any]


class _Record(TypedDict):
    regions: bool
    channels: list[Any]
    true_classes: list[Any]
    n_bins: int
    max_logit_bins: dict[str, Any]
    epochs: list[_Epoch]


class TrainingRecord:
    """The epochs of a training, in memory and in a file.

    Args:
        header: What holds for all epochs: ``regions``, ``channels``, ``true_classes``, ``n_bins``, ``max_logit_bins``
            and whatever names the training.

    Attributes:
        epochs: Entries of :meth:`EpochSums.entry`, ascending.
    """

    def __init__(self, header: dict[str, Any]) -> None:
        version = f"nnunet_nacl {nnunet_nacl.__version__}"
        self.header = {"schema_version": SCHEMA_VERSION, "generated_by": version, **header}
        self.epochs: list[dict[str, Any]] = []
        # Each epoch is turned into text once: with a thousand of them that would else take longer than the epoch may.
        self._lines: list[str] = []

    def append(self, entry: dict[str, Any]) -> None:
        """Add an epoch; one of the same number or a later one, of a training that was continued, is dropped."""
        line = json.dumps(entry, allow_nan=False)
        kept = sum(old["epoch"] < entry["epoch"] for old in self.epochs)  # they are ascending
        self.epochs[kept:] = [entry]
        self._lines[kept:] = [line]

    def same_kind(self, header: dict[str, Any]) -> bool:
        """Whether epochs under another header can stand beside these: the same classes and bins."""
        keys = ("regions", "channels", "true_classes", "n_bins", "max_logit_bins")
        return all(self.header.get(key) == header.get(key) for key in keys)

    def to_dict(self) -> dict[str, Any]:
        """What :func:`read_training_record` gives back."""
        return {**self.header, "epochs": self.epochs}

    def write(self, path: str | os.PathLike) -> None:
        """Write the file atomically: whoever reads it finds the old one or the new one.

        Raises:
            UserError: It cannot be written.
        """
        head = json.dumps(self.header, indent=1, allow_nan=False)[:-2]  # without the closing brace
        lines = ",\n  ".join(self._lines)
        text = f'{head},\n "epochs": [\n  {lines}\n ]\n}}\n'
        write_atomically(Path(path), text, fix="free some space, or change the folder's permissions")


def read_training_record(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a calibration_progress.json.

    Args:
        path: The file, or the fold folder that holds it.

    Returns:
        A dictionary; the epochs are under ``epochs``, ascending.

    Raises:
        UserError: It cannot be read, or is none of these files or of another version.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    record = read_dict(path)
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: expected schema_version {SCHEMA_VERSION}, got {version!r}; "
            "read it with the version of nnunet_nacl that wrote it."
        )
    decode(_Record, record, f"{path}: not the record of a training", fix=f"give the {FILE_NAME} of a fold folder")
    return record


def describe_epoch(entry: dict[str, Any]) -> str:
    """A line for the training log."""
    parts = [f"{mask} {_number(entry['calibration'][mask]['ECE'])}" for mask in MASKS]
    logits = _number(entry["max_logit"]["foreground"]["mean"], 2)
    line = f"Calibration on validation batches: ECE {', '.join(parts)}; mean maximum logit in the foreground {logits}"
    if entry["n_not_finite"]:
        line += f"; {entry['n_not_finite']} voxels left out whose logits are not finite"
    return line


def tracked_values(entry: dict[str, Any]) -> dict[str, float]:
    """Values by key, such as ``calibration/ECE_foreground``; what is undefined is left out."""
    values = {f"calibration/ECE_{mask}": entry["calibration"][mask]["ECE"] for mask in MASKS}
    values |= {f"calibration/mean_max_logit_{mask}": entry["max_logit"][mask]["mean"] for mask in MASKS}
    foreground = entry["calibration"]["foreground"]
    values |= {f"calibration/{name}_foreground": foreground[name] for name in ("accuracy", "confidence")}
    return {key: value for key, value in values.items() if value is not None}


def _number(value: float | None, decimals: int = 4) -> str:
    return "undefined" if value is None else f"{value:.{decimals}f}"
