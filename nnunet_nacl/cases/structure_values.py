"""What a record holds of each structure of a case, value by value."""

from __future__ import annotations

from typing import Literal, NamedTuple


class StructureValue(NamedTuple):
    """A value of a structure, which is never negative, and NaN where it is not defined.

    Attributes:
        kind: ``count`` (a whole number), ``share`` (at most 1) or ``size``.
        meaning: What it is.
        needs_truth: Whether it needs a ground truth.
        is_metric: Whether it compares the segmentation with the truth.
    """

    kind: Literal["count", "share", "size"]
    meaning: str
    needs_truth: bool = False
    is_metric: bool = False


def _metric(kind: Literal["count", "share", "size"], meaning: str) -> StructureValue:
    return StructureValue(kind, meaning, needs_truth=True, is_metric=True)


STRUCTURE_VALUES = {
    "TP": _metric("count", "Voxels that are rightly segmented, as in nnU-Net's summary.json."),
    "FP": _metric("count", "Voxels that are wrongly segmented."),
    "FN": _metric("count", "Voxels that are missed."),
    "TN": _metric("count", "Voxels that are rightly left out."),
    "Dice": _metric("share", "Dice; NaN where truth and segmentation lack the structure."),
    "IoU": _metric("share", "Intersection over union; NaN likewise."),
    "HD95_mm": _metric(
        "size",
        "95th percentile of both directed surface distances, pooled; NaN where a side is empty.",
    ),
    "HD95_voxels": _metric("size", "The same in voxels."),
    "ASSD_mm": _metric("size", "Mean of the same distances, in mm."),
    "component_recall": _metric(
        "share",
        "Share of the truth's connected components that the segmentation touches; NaN where the"
        " truth has none.",
    ),
    "false_components": _metric(
        "count", "Connected components of the segmentation that the truth does not touch."
    ),
    "component_F1": _metric(
        "share",
        "2 touched / (2 touched + missed + false), in connected components; NaN where truth and"
        " segmentation lack the structure.",
    ),
    "true_volume": StructureValue("size", "Volume of the truth.", needs_truth=True),
    "true_pieces": StructureValue("count", "Connected components of the truth.", needs_truth=True),
    "pieces": StructureValue("count", "Connected components of the segmentation."),
    "largest_piece": StructureValue(
        "share", "Share of the segmentation that its largest component is."
    ),
    "volume": StructureValue("size", "Volume of the segmentation, in the case's `unit`."),
    "predicted_dice": StructureValue(
        "share", "Expected Dice of the segmentation, under the map where there is one."
    ),
    "predicted_volume": StructureValue(
        "size", "Sum of these probabilities times the volume of a voxel."
    ),
    "max_probability": StructureValue("share", "The largest of them."),
    "network_volume": StructureValue(
        "size", "As `predicted_volume`, by the network's probabilities without a map."
    ),
    "network_dice": StructureValue(
        "share", "Likewise, the largest expected Dice of any set of voxels."
    ),
    "members_dice": StructureValue(
        "share", "Dice between the segmentations of several folds; NaN with one network."
    ),
}
"""By column of :func:`nnunet_nacl.cases.record.table`. There is ``volume FOLD`` of each network,
too."""

MEMBER_VOLUME = "volume "
"""Begins the column with the volumes that one network of several segmented; its name follows."""

WITH_TRUTH = tuple(name for name, value in STRUCTURE_VALUES.items() if value.needs_truth)
"""Columns that need a ground truth."""
ALWAYS = frozenset(STRUCTURE_VALUES.keys() - set(WITH_TRUTH))
"""Columns that every record has, beside ``volume FOLD``."""
METRICS = frozenset(name for name, value in STRUCTURE_VALUES.items() if value.is_metric)
SHARES = tuple(name for name, value in STRUCTURE_VALUES.items() if value.kind == "share")
COUNTS = tuple(name for name, value in STRUCTURE_VALUES.items() if value.kind == "count")
