"""The form of calibration.json, the report of ``nnunet_nacl evaluate`` and of the trainers.

No command reads it. The page of files and the JSON schema are made from these types.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import NonNegativeInt
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.calibration.quality_report import QualityReport
from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.utilities.json_types import Number, Size, doc

FILE_NAME = "calibration.json"
SCHEMA_VERSION = 5  # keys may be added within a version

MaskScores = dict[str, Number]
"""Scores by name, as :data:`~nnunet_nacl.metrics.calibration_error.MASK_METRICS` has them, and a
count of what they are of: ``n_voxels``, or ``n_cases`` of a mean over cases."""


class ReportedStructure(TypedDict):
    """A structure of the data set."""

    name: Annotated[str, doc("Its name.")]
    channel: Annotated[NonNegativeInt, doc("Its channel of the probabilities.")]


StructureMetrics = dict[str, Any]
"""The metrics of :data:`~nnunet_nacl.cases.structure_values.STRUCTURE_VALUES`, ``n_pred`` and
``n_ref``, ``distances`` in voxels, and ``calibration``: by mask how well the structure's
probability by itself is calibrated (``CE``; of regions ``ECE``, ``NLL`` and ``Brier``, too)."""
MetricMeans = dict[str, Number]
"""Means of the metrics, where they are defined."""


class CaseQuality(TypedDict):
    """What the network says of a case."""

    unit: Annotated[str, doc("Unit of volumes: ml, mm2 or pixels.")]
    voxel_volume: Annotated[Size, doc("Volume of a voxel, in `unit`.")]
    entropy: Annotated[Number, doc("Mean normalised entropy over the predicted foreground.")]
    confidence: Annotated[Number, doc("Mean confidence there.")]
    structures: Annotated[
        dict[str, dict[str, Size]], doc("By nnU-Net's key, its values beside the metrics.")
    ]


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
    metrics: Annotated[
        dict[str, StructureMetrics],
        doc(
            "By nnU-Net's key of the structure: the metrics of [structures](#structures-of-a-case);"
            " `n_pred` and `n_ref`, voxels of segmentation and truth; `distances.HD95_voxels`; and"
            " in `calibration`, by mask, how well its probability by itself is calibrated: `CE`,"
            " its term of the class-wise error, of regions also `ECE`, `NLL` and `Brier`."
        ),
    ]
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
    mean: Annotated[
        dict[str, StructureMetrics],
        doc("By structure, means of `metric_per_case[].metrics` over cases."),
    ]
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
