"""What an evaluation knows of each case, and calibration.json holds: sums, and the metrics that follow from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd
from pydantic import NonNegativeInt, computed_field
from typing_extensions import TypedDict

from nnunet_nacl.json_files import Number, Share, Size
from nnunet_nacl.numbers.binning import DEFAULT_N_BINS, BinStats, check_n_bins
from nnunet_nacl.numbers.calibration_error import (
    brier_per_row,
    class_errors,
    ece_per_row,
    mask_metrics,
    nll_per_row,
)
from nnunet_nacl.numbers.overlap import Detected, Overlap

MASK_NOTES = {
    "foreground": "truth is not background: the paper's",
    "union": "truth or prediction is not background",
    "dilated": "foreground grown by {dilation_mm:g} mm",
    "boundary": "within {boundary_mm:g} mm of a surface of the truth",
    "predicted": "prediction is not background: known in use",
    "near": "within {dilation_mm:g} mm of the prediction: known in use",
    "all": "every voxel",
}
"""The masks in the order of the tables, and what is in them; the settings' radii are to be filled in."""

MASKS = tuple(MASK_NOTES)

LARGEST_RADIUS_MM = 100.0


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured.

    Attributes:
        n_bins: Number of confidence bins.
        dilation_mm: Radius by which the mask ``dilated`` grows the true foreground, and ``near`` the predicted one,
            at most 100 mm.
        boundary_mm: Reach of the mask ``boundary`` to either side of a surface, at most 100 mm.
    """

    n_bins: int = DEFAULT_N_BINS
    dilation_mm: float = 2.0
    boundary_mm: float = 2.0

    def __post_init__(self) -> None:
        check_n_bins(self.n_bins)
        for name in ("dilation_mm", "boundary_mm"):
            if not 0 <= getattr(self, name) <= LARGEST_RADIUS_MM:
                raise ValueError(
                    f"{name} must be a distance in mm, from 0 to {LARGEST_RADIUS_MM:g}, got {getattr(self, name)!r}."
                )

    def differing(self, other: EvaluationSettings) -> str:
        """What is measured in another way than under ``other``: ``n_bins 10, not 15``; empty where nothing is."""
        pairs = {key: (value, getattr(other, key)) for key, value in vars(self).items()}
        return ", ".join(f"{key} {own}, not {another}" for key, (own, another) in pairs.items() if own != another)


class Distances(TypedDict):
    """HD95 of both directions pooled, in mm and at unit spacing."""

    HD95_pooled_mm: Size
    HD95_voxels: Size


@dataclass(frozen=True)
class Structure:
    """Metrics of one class or region in one case, in the words of nnU-Net's summary.json, and ours.

    Attributes:
        TP: Voxels of it in truth and segmentation.
        FP: Voxels in the segmentation alone.
        FN: Voxels in the truth alone.
        TN: Voxels in neither.
        ASSD_mm: Average symmetric surface distance; distances are NaN where it is missing in either.
        distances: HD95.
        calibration: Of its own probability, by mask: CE; of a region also ECE, NLL and Brier.
    """

    TP: NonNegativeInt
    FP: NonNegativeInt
    FN: NonNegativeInt
    TN: NonNegativeInt
    ASSD_mm: Size
    distances: Distances
    calibration: dict[str, dict[str, Number]]

    @property
    def overlap(self) -> Overlap:
        """Voxel counts."""
        return Overlap(self.TP, self.FP, self.FN, self.TN)

    @computed_field
    @cached_property
    def Dice(self) -> Number:
        """NaN where it is in neither."""
        return self.overlap.dice

    @computed_field
    @cached_property
    def IoU(self) -> Number:
        """NaN where it is in neither."""
        return self.overlap.iou

    @computed_field
    @cached_property
    def n_pred(self) -> int:
        """Voxels in the segmentation."""
        return self.TP + self.FP

    @computed_field
    @cached_property
    def n_ref(self) -> int:
        """Voxels in the truth."""
        return self.TP + self.FN

    @computed_field
    @cached_property
    def HD95_mm(self) -> Number:
        """95th percentile of the distances, pooled."""
        return self.distances["HD95_pooled_mm"]


@dataclass(frozen=True)
class StructureQuality:
    """What the probabilities say of a structure in a case; ignored voxels count nowhere.

    Attributes:
        expected_dice: See :mod:`nnunet_nacl.numbers.expected_dice`; NaN where it was not segmented.
        expected_volume: Sum of its probability, times the volume of a voxel.
        volume: Of its segmentation.
        true_volume: Of the truth.
        max_probability: Its largest one, as the network gave it.
        largest_dice: The largest expected Dice that any set of voxels has, likewise.
        true_pieces: Connected components of the truth.
        members_dice: Mean Dice between the segmentations of two folds; null where one network predicted the case.
    """

    expected_dice: Share
    expected_volume: Size
    volume: Size
    true_volume: Size
    max_probability: Share
    largest_dice: Share
    true_pieces: NonNegativeInt
    members_dice: Share | None = None


@dataclass(frozen=True)
class CaseQuality:
    """What the probabilities say about the quality of a case's segmentation.

    Attributes:
        unit: Of the volumes: ml, mm2 or pixels.
        voxel: Volume of a voxel.
        entropy: Mean normalised entropy over the predicted foreground; NaN where there is none.
        confidence: Mean confidence over the same voxels.
        structures: By nnU-Net's key.
    """

    unit: str
    voxel: Size
    entropy: Share
    confidence: Share
    structures: dict[str, StructureQuality]


@dataclass(frozen=True)
class CaseResult:
    """One case: its files, sums and segmentation metrics.

    Attributes:
        case: Name.
        reference_file: Path of the ground truth.
        prediction_file: Path of the segmentation; the npz file's if there was none.
        probabilities_file: Path of the npz file.
        largest_label: Largest ground-truth label (the authors' code counts classes up to it).
        n_changed_voxels: Voxels where the saved segmentation is not what the probabilities say (postprocessing).
        metrics: By nnU-Net's key, background excluded.
        bins: By mask; the confidence of a voxel is the probability of its label in the segmentation.
        quality: What the probabilities say about the segmentation.
        signature: Identifies the files and settings that this was computed from.
    """

    case: str
    reference_file: str
    prediction_file: str
    probabilities_file: str
    largest_label: NonNegativeInt
    n_changed_voxels: NonNegativeInt
    metrics: dict[str, Structure]
    bins: dict[str, BinStats]
    quality: CaseQuality
    signature: dict[str, Any] = field(default_factory=dict)

    @computed_field
    @cached_property
    def calibration(self) -> dict[str, dict[str, Number]]:
        """By mask the scores, and n_voxels."""
        return {mask: mask_metrics(self.bins[mask]) for mask in MASKS}

    @property
    def dice(self) -> dict[str, float]:
        """Dice by structure."""
        return {key: structure.Dice for key, structure in self.metrics.items()}

    @property
    def structures(self) -> pd.DataFrame:
        """See :func:`nnunet_nacl.case.table.table`."""
        columns = ("TP", "FP", "FN", "TN", "Dice", "IoU", "HD95_mm", "ASSD_mm")
        measured = {key: {name: getattr(row, name) for name in columns} for key, row in self.metrics.items()}
        quality = {
            key: {
                "HD95_voxels": self.metrics[key].distances["HD95_voxels"],
                "true_volume": row.true_volume,
                "true_pieces": row.true_pieces,
                "volume": row.volume,
                "predicted_dice": row.expected_dice,
                "predicted_volume": row.expected_volume,
                "max_probability": row.max_probability,
                "network_volume": row.expected_volume,
                "network_dice": row.largest_dice,
                "members_dice": math.nan if row.members_dice is None else row.members_dice,
            }
            for key, row in self.quality.structures.items()
        }
        return pd.DataFrame.from_dict({key: measured[key] | quality[key] for key in measured}, orient="index")

    @property
    def scan(self) -> dict[str, Any]:
        """See :func:`nnunet_nacl.case.table.table`."""
        quality, names = self.quality, ("unit", "entropy", "confidence")
        changed = {"n_changed_voxels": self.n_changed_voxels, "voxel_volume": quality.voxel}
        return {name: getattr(quality, name) for name in names} | changed

    def ece(self, mask: str = "foreground") -> float:
        """Expected calibration error on a mask."""
        return self.calibration[mask]["ECE"]

    def with_bins(self, bins: dict[str, BinStats]) -> CaseResult:
        """The case with other sums, such as those under a map, and the calibration of each structure by them."""
        metrics = {
            key: replace(structure, calibration={mask: _own_calibration(bins[mask], i) for mask in MASKS})
            for i, (key, structure) in enumerate(self.metrics.items(), -len(self.metrics))
        }
        return replace(self, metrics=metrics, bins=bins)

    def check(self, structures: Iterable[str], regions: bool, settings: EvaluationSettings) -> None:
        """ValueError unless it is a case of these structures, measured with these settings."""
        keys = list(structures)
        num_classes = len(keys) if regions else len(keys) + 1
        expected = (num_classes if regions else 1, settings.n_bins), (num_classes, settings.n_bins)
        shapes = {mask: (stats.count.shape, stats.class_count.shape) for mask, stats in self.bins.items()}
        if other := [mask for mask in MASKS if shapes.get(mask) != expected]:
            raise ValueError(f"{self.case}: bins {other[0]} have the shapes {shapes.get(other[0])}, not {expected}")
        for found in (self.metrics, self.quality.structures):
            if found.keys() != set(keys):
                raise ValueError(f"{self.case}: it has the structures {', '.join(found)}, not {', '.join(keys)}")
        if not (regions or self.largest_label < num_classes):
            raise ValueError(f"{self.case}: it has the largest_label {self.largest_label}, of {num_classes} classes")


def _own_calibration(stats: BinStats, channel: int) -> dict[str, float]:
    """Calibration of one class's or region's own probability on one mask."""
    result = {"CE": float(class_errors(stats)[channel])}
    if len(stats.count) == stats.num_classes:  # regions
        scores = {"ECE": ece_per_row, "NLL": nll_per_row, "Brier": brier_per_row}
        result |= {name: float(score(stats)[channel]) for name, score in scores.items()}
    return result


def detected_in(cases: Sequence[CaseResult]) -> dict[str, Detected]:
    """By structure, what the segmentations of some cases find of it; at least one case."""
    found = {}
    for key in cases[0].metrics:
        rows = [case.metrics[key] for case in cases]
        found[key] = Detected.of(
            [row.Dice for row in rows], [row.n_ref > 0 for row in rows], [row.n_pred > 0 for row in rows]
        )
    return found
