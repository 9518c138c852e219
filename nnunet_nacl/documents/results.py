"""What an evaluation knows: sums of each case, and the metrics that follow from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, BinStats, check_n_bins
from nnunet_nacl.metrics.calibration_error import ece, nanmean
from nnunet_nacl.metrics.detection import Detected
from nnunet_nacl.metrics.overlap import Overlap

LARGEST_LOGIT = "largest_logit"
"""Key of a case that was measured when it was predicted: largest absolute value of its logits."""

MASK_NOTES = {
    "foreground": "truth is not background: the paper's",
    "union": "truth or prediction is not background",
    "dilated": "foreground grown by {dilation_mm:g} mm",
    "boundary": "within {boundary_mm:g} mm of a surface of the truth",
    "predicted": "prediction is not background: known in use",
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
        dilation_mm: Radius by which the mask ``dilated`` grows the foreground, at most 100 mm.
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


@dataclass(frozen=True)
class Structure:
    """Segmentation metrics of one class or region in one case; distances are NaN where it is missing in either.

    Attributes:
        overlap: Voxel counts.
        hd95_mm: HD95.
        assd_mm: Average symmetric surface distance.
        hd95_voxels: HD95 at unit spacing.
    """

    overlap: Overlap
    hd95_mm: float
    assd_mm: float
    hd95_voxels: float = math.nan

    def to_json(self) -> dict[str, Any]:
        """In the words of nnU-Net's summary.json, and ours."""
        o = self.overlap
        result = {"Dice": o.dice, "IoU": o.iou, "TP": o.tp, "FP": o.fp, "FN": o.fn, "TN": o.tn}
        result |= {"n_pred": o.tp + o.fp, "n_ref": o.tp + o.fn, "HD95_mm": self.hd95_mm, "ASSD_mm": self.assd_mm}
        return result | {"distances": {"HD95_pooled_mm": self.hd95_mm, "HD95_voxels": self.hd95_voxels}}


@dataclass(frozen=True)
class CaseResult:
    """One case: its files, sums and segmentation metrics.

    Attributes:
        case: Name.
        probabilities_file: Path of the npz file.
        reference_file: Path of the ground truth.
        prediction_file: Path of the segmentation; the npz file's if there was none.
        structures: By nnU-Net's key, background excluded.
        stats: By mask; the confidence of a voxel is the probability of its label in the segmentation.
        largest_label: Largest ground-truth label (the authors' code counts classes up to it).
        n_changed_voxels: Voxels where the saved segmentation is not what the probabilities say (postprocessing).
        signature: Identifies the files and settings that this was computed from.
        blocks: What else stands in the case's entry, by name: other packages may add to it. It is kept as it is.
    """

    case: str
    probabilities_file: str
    reference_file: str
    prediction_file: str
    structures: dict[str, Structure]
    stats: dict[str, BinStats]
    largest_label: int
    n_changed_voxels: int
    signature: dict[str, Any] = field(default_factory=dict)
    blocks: dict[str, Any] = field(default_factory=dict)

    @property
    def dice(self) -> dict[str, float]:
        """Dice by structure."""
        return {key: structure.overlap.dice for key, structure in self.structures.items()}

    def ece(self, mask: str = "foreground") -> float:
        """Expected calibration error on a mask."""
        return ece(self.stats[mask])


def detected_in(cases: Sequence[CaseResult]) -> dict[str, Detected]:
    """By structure, what the segmentations of some cases find of it; at least one case."""
    found = {}
    for key in cases[0].structures:
        overlaps = [case.structures[key].overlap for case in cases]
        there, labelled = [one.tp + one.fn > 0 for one in overlaps], [one.tp + one.fp > 0 for one in overlaps]
        found[key] = Detected.of([one.dice for one in overlaps], there, labelled)
    return found


@dataclass(frozen=True)
class Evaluation:
    """All cases of one or more folders.

    Attributes:
        names: Name of each structure by nnU-Net's key, background excluded.
        channels: Channel of each structure by the same key.
        regions: Whether structures are sigmoid regions.
        settings: What was measured.
        cases: Results, in order.
        problems: What was wrong with the cases that could not be evaluated, by name.
    """

    names: dict[str, str]
    channels: dict[str, int]
    regions: bool
    settings: EvaluationSettings
    cases: list[CaseResult]
    problems: dict[str, str] = field(default_factory=dict)

    @cached_property
    def pooled(self) -> dict[str, BinStats]:
        """Sums over all cases, by mask."""
        return {mask: BinStats.merge(case.stats[mask] for case in self.cases) for mask in MASKS}

    def mean_dice(self, key: str | None = None) -> float:
        """Mean Dice over the cases where it is defined; without a key the mean of the structures' means, as nnU-Net."""
        if key is not None:
            return nanmean(case.structures[key].overlap.dice for case in self.cases)
        return float(np.mean([self.mean_dice(key) for key in self.names]))

    def mean_ece(self, mask: str = "foreground") -> float:
        """Mean over the cases of the ECE on a mask; cases where the mask is empty are left out."""
        return nanmean(case.ece(mask) for case in self.cases)
