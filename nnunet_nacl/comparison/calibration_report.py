"""The form of calibration.json, the report of ``nnunet_nacl evaluate`` and of the trainers.

No command reads it. The page of files and the JSON schema are made from these types.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import NonNegativeInt
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.calibration.quality_report import QualityReport
from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.utilities.json_types import Number, Share, Size, doc

FILE_NAME = "calibration.json"
SCHEMA_VERSION = 5  # keys may be added within a version

MaskScores = dict[str, Number]
"""Scores by name, as :data:`~nnunet_nacl.metrics.calibration_error.MASK_METRICS` has them, and a
count of what they are of: ``n_voxels``, or ``n_cases`` of a mean over cases."""


class ReportedStructure(TypedDict):
    """A structure of the data set."""

    name: Annotated[str, doc("Its name.")]
    channel: Annotated[NonNegativeInt, doc("Its channel of the probabilities.")]


class ClassScores(TypedDict):
    """How well the probability of one class, or region, by itself is calibrated."""

    CE: Annotated[Number, doc("Its term of the class-wise calibration error.")]
    ECE: NotRequired[Annotated[Number, doc("Of regions: expected calibration error.")]]
    NLL: NotRequired[Annotated[Number, doc("Of regions: negative log likelihood.")]]
    Brier: NotRequired[Annotated[Number, doc("Of regions: Brier score.")]]


class VoxelDistances(TypedDict):
    """Surface distances in voxels."""

    HD95_voxels: Annotated[Size, doc("As `HD95_mm`, in voxels.")]


class StructureMetrics(TypedDict):
    """How well one structure of one case is segmented, and how well calibrated its probability is;
    the first eight as in nnU-Net's summary.json."""

    TP: Annotated[NonNegativeInt, doc("Voxels that are rightly segmented, as in summary.json.")]
    FP: Annotated[NonNegativeInt, doc("Voxels that are wrongly segmented.")]
    FN: Annotated[NonNegativeInt, doc("Voxels that are missed.")]
    TN: Annotated[NonNegativeInt, doc("Voxels that are rightly left out.")]
    Dice: Annotated[Share, doc("Dice; null where truth and segmentation lack the structure.")]
    IoU: Annotated[Share, doc("Intersection over union; null likewise.")]
    HD95_mm: Annotated[
        Size,
        doc(
            "95th percentile of both directed surface distances, pooled; null where a side is"
            " empty."
        ),
    ]
    ASSD_mm: Annotated[Size, doc("Mean of the same distances.")]
    component_recall: Annotated[
        Share,
        doc(
            "Share of the truth's connected parts that the segmentation touches; null where the"
            " truth has none."
        ),
    ]
    false_components: Annotated[
        NonNegativeInt, doc("Connected parts of the segmentation that the truth does not touch.")
    ]
    component_F1: Annotated[
        Share,
        doc(
            "2 touched / (2 touched + missed + false), in connected parts; null where truth and"
            " segmentation lack the structure."
        ),
    ]
    n_pred: Annotated[NonNegativeInt, doc("Voxels of the segmentation.")]
    n_ref: Annotated[NonNegativeInt, doc("Voxels of the truth.")]
    distances: Annotated[VoxelDistances, doc("Distances in another unit.")]
    calibration: Annotated[dict[str, ClassScores], doc("By mask.")]


class MetricMeans(TypedDict):
    """Means of the metrics of structures over the cases, or structures, where they are defined."""

    TP: Annotated[Number, doc("Mean of `TP`.")]
    FP: Annotated[Number, doc("Mean of `FP`.")]
    FN: Annotated[Number, doc("Mean of `FN`.")]
    TN: Annotated[Number, doc("Mean of `TN`.")]
    Dice: Annotated[Number, doc("Mean Dice.")]
    IoU: Annotated[Number, doc("Mean intersection over union.")]
    HD95_mm: Annotated[Number, doc("Mean of `HD95_mm`.")]
    ASSD_mm: Annotated[Number, doc("Mean of `ASSD_mm`.")]
    component_recall: Annotated[Number, doc("Mean of `component_recall`.")]
    false_components: Annotated[Number, doc("Mean of `false_components`.")]
    component_F1: Annotated[Number, doc("Mean of `component_F1`.")]
    n_pred: Annotated[Number, doc("Mean number of segmented voxels.")]
    n_ref: Annotated[Number, doc("Mean number of true voxels.")]


class StructureMeans(MetricMeans):
    """Means of the metrics of one structure over the cases where they are defined."""

    calibration: Annotated[dict[str, ClassScores], doc("By mask.")]


class StructureQuality(TypedDict):
    """What the network says of one structure of a case without looking at the truth, and the true
    values beside it."""

    volume: Annotated[Size, doc("Volume of the segmentation, in `unit`.")]
    true_volume: Annotated[Size, doc("That of the truth.")]
    predicted_volume: Annotated[Size, doc("Sum of the probabilities times the voxel's volume.")]
    pieces: Annotated[Size, doc("Connected parts of the segmentation.")]
    true_pieces: Annotated[Size, doc("Those of the truth.")]
    largest_piece: Annotated[Share, doc("Share of the segmentation that its largest part is.")]
    predicted_dice: Annotated[Share, doc("Expected Dice of the segmentation.")]
    max_probability: Annotated[Share, doc("Largest probability of a voxel.")]
    members_dice: Annotated[
        Share, doc("Dice between the segmentations of several folds; null with one network.")
    ]
    network_volume: Annotated[
        Size, doc("As `predicted_volume`, by the network's probabilities without a map.")
    ]
    network_dice: Annotated[Share, doc("Likewise, the largest expected Dice of any set of voxels.")]


class CaseQuality(TypedDict):
    """What the network says of a case."""

    unit: Annotated[str, doc("Unit of volumes: ml, mm2 or pixels.")]
    voxel_volume: Annotated[Size, doc("Volume of a voxel, in `unit`.")]
    entropy: Annotated[Number, doc("Mean normalised entropy over the predicted foreground.")]
    confidence: Annotated[Number, doc("Mean confidence there.")]
    structures: Annotated[dict[str, StructureQuality], doc("By nnU-Net's key.")]


class ReportedCase(TypedDict):
    """One case that was measured."""

    case: Annotated[str, doc("Its name.")]
    reference_file: Annotated[str, doc("File of the truth.")]
    prediction_file: Annotated[str, doc("File of the segmentation.")]
    probabilities_file: Annotated[str, doc("File of the probabilities.")]
    largest_label: Annotated[int, doc("Largest label of the truth.")]
    n_changed_voxels: Annotated[
        NonNegativeInt, doc("Voxels whose label is not the most probable one.")
    ]
    metrics: Annotated[dict[str, StructureMetrics], doc("By nnU-Net's key of the structure.")]
    calibration: Annotated[dict[str, MaskScores], doc("By mask the scores, and `n_voxels`.")]
    bins: Annotated[dict[str, BinStats], doc("By mask the sums that the scores are made of.")]
    quality: Annotated[CaseQuality, doc("What the network says of the case.")]


class CalibrationMeans(TypedDict):
    """Calibration of all cases together."""

    mean: Annotated[
        dict[str, MaskScores],
        doc("By mask, means over cases, and `n_cases`, those with a voxel in the mask."),
    ]
    pooled: Annotated[
        dict[str, MaskScores], doc("By mask, of the voxels of all cases, and `n_voxels`.")
    ]


class UndefinedCases(TypedDict):
    """Which cases are in no mean."""

    Dice: Annotated[dict[str, list[str]], doc("By structure, cases without a Dice.")]
    HD95_mm: Annotated[dict[str, list[str]], doc("By structure, cases without distances.")]
    calibration: Annotated[dict[str, list[str]], doc("By mask, cases without a voxel in it.")]


class PredictedQuality(QualityReport):
    """How well predicted Dice agrees with Dice."""

    map_sha256: Annotated[str, doc("SHA-256 of the map that predicted Dice.")]
    notes: Annotated[list[str], doc("Caveats.")]


class CalibrationReport(TypedDict):
    """calibration.json: how well cases are segmented and calibrated, the report of `nnunet_nacl
    evaluate` and of the trainers."""

    schema_version: Annotated[int, doc("Version of this format.")]
    generated_by: Annotated[str, doc("Package and version.")]
    structures: Annotated[dict[str, ReportedStructure], doc("By nnU-Net's key.")]
    regions: Annotated[bool, doc("Whether structures are sigmoid regions.")]
    settings: Annotated[EvaluationSettings, doc("What was measured.")]
    problems: Annotated[dict[str, str], doc("By case, or fold, why it could not be evaluated.")]
    n_cases: Annotated[NonNegativeInt, doc("Cases that were measured.")]
    metric_per_case: Annotated[list[ReportedCase], doc("Each case, by name.")]
    mean: Annotated[dict[str, StructureMeans], doc("By structure, means over cases.")]
    foreground_mean: Annotated[MetricMeans, doc("Means over structures, as nnU-Net's.")]
    calibration: Annotated[CalibrationMeans, doc("Scores of all cases.")]
    bins: Annotated[dict[str, BinStats], doc("By mask, sums over all cases.")]
    undefined: Annotated[UndefinedCases, doc("By metric, cases that are in no mean.")]
    map_sha256: NotRequired[
        Annotated[str, doc("SHA-256 of the map that predictions were calibrated by.")]
    ]
    predicted_quality: NotRequired[
        Annotated[
            PredictedQuality,
            doc("With a calibration map, how well predicted Dice agrees with Dice."),
        ]
    ]
