"""Means over cases that have a ground truth, and calibration.json, the report of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import nnunet_nacl
from nnunet_nacl.cases.case import MASKS, EvaluationSettings, Labels
from nnunet_nacl.cases.record import CaseRecord, table
from nnunet_nacl.cases.structure_values import COUNTS, METRICS
from nnunet_nacl.comparison.calibration_report import (
    SCHEMA_VERSION,
    CalibrationMeans,
    CalibrationReport,
    CaseQuality,
    MetricMeans,
    PredictedQuality,
    ReportedCase,
    ReportedStructure,
    StructureMetrics,
    UndefinedCases,
)
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import (
    brier_per_row,
    class_errors,
    ece_per_row,
    mask_metrics,
    nanmean,
    nll_per_row,
)
from nnunet_nacl.utilities.csv_text import CsvColumn, to_csv_text
from nnunet_nacl.utilities.files import check_ours, to_json_text, write_atomically
from nnunet_nacl.utilities.json_files import encode


class Evaluation:
    """Records of cases with a truth, at least one, and the means over them.

    Attributes:
        records: Of the cases, by name.
        labels: Their structures.
        settings: What was measured.
        problems: By name, why a case, or a whole fold, could not be evaluated.
        names: Name of each structure by nnU-Net's key.
    """

    def __init__(
        self,
        records: Sequence[CaseRecord],
        labels: Labels,
        settings: EvaluationSettings,
        problems: Mapping[str, str],
    ) -> None:
        self.records = sorted(records, key=lambda record: record.name)
        self.labels = labels
        self.settings = settings
        self.problems = dict(sorted(problems.items()))
        self.names = labels.structures

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each case and structure."""
        return table(self.records)

    @cached_property
    def cases(self) -> list[ReportedCase]:
        """What calibration.json says of each case."""
        return [_report_case(record) for record in self.records]

    @cached_property
    def mean(self) -> dict[str, StructureMetrics]:
        """By structure the mean of each metric over the cases where it is defined."""
        means = {}
        for key in self.names:
            metrics = [case["metrics"][key] for case in self.cases]
            means[key] = _means(metrics)
        return means

    @cached_property
    def foreground_mean(self) -> MetricMeans:
        """Mean of each metric over the structures, as nnU-Net's."""
        by_structure = pd.DataFrame.from_dict(self.mean, orient="index")
        means = {}
        for metric in sorted(by_structure.columns.drop("calibration")):
            # a structure without a value leaves the mean without one, as nnU-Net's
            means[metric] = float(np.mean(by_structure[metric].to_numpy(float)))
        return means

    @cached_property
    def bins(self) -> dict[str, BinStats]:
        """By mask, sums over all cases."""
        return {
            mask: BinStats.merge(record.bins[mask] for record in self.records) for mask in MASKS
        }

    @cached_property
    def calibration(self) -> CalibrationMeans:
        """By mask the scores: mean over cases, and pooled over voxels."""
        return CalibrationMeans(
            mean=_means([case["calibration"] for case in self.cases]),
            pooled={mask: mask_metrics(stats) for mask, stats in self.bins.items()},
        )

    @cached_property
    def undefined(self) -> UndefinedCases:
        """Which cases are left out of which mean: by metric, and structure or mask."""
        without_voxels = {}
        for mask in MASKS:
            cases = [record.name for record in self.records if not record.bins[mask].n_voxels]
            if cases:
                without_voxels[mask] = cases
        return UndefinedCases(
            Dice=self._cases_without("Dice"),
            HD95_mm=self._cases_without("HD95_mm"),
            calibration=without_voxels,
        )

    def _cases_without(self, metric: str) -> dict[str, list[str]]:
        """By structure, the cases where a metric is not defined."""
        missing = self.table[self.table[metric].isna()]
        return missing.groupby("key", sort=False).case.agg(list).to_dict()

    def report(
        self, map_sha256: str | None = None, predicted_quality: PredictedQuality | None = None
    ) -> CalibrationReport:
        """The content of calibration.json.

        Args:
            map_sha256: SHA-256 of the map that the predictions were calibrated by; None where there
                was none, or it is not known.
            predicted_quality: How well the Dice that a map predicts agrees with Dice; None without
                a map.
        """
        structures = {}
        for channel in self.labels.foreground:
            structures[self.labels.key(channel)] = ReportedStructure(
                name=self.labels.names[channel], channel=channel
            )
        report = CalibrationReport(
            schema_version=SCHEMA_VERSION,
            generated_by=f"nnunet_nacl {nnunet_nacl.__version__}",
            structures=structures,
            regions=self.labels.regions,
            settings=self.settings,
            problems=self.problems,
            n_cases=len(self.records),
            metric_per_case=self.cases,
            mean=self.mean,
            foreground_mean=self.foreground_mean,
            calibration=self.calibration,
            bins=self.bins,
            undefined=self.undefined,
        )
        if map_sha256 is not None:
            report["map_sha256"] = map_sha256
        if predicted_quality is not None:
            report["predicted_quality"] = predicted_quality
        return report

    def write(
        self,
        path: Path,
        map_sha256: str | None = None,
        predicted_quality: PredictedQuality | None = None,
    ) -> None:
        """Write calibration.json, see :meth:`report`.

        Raises:
            UserError: The file cannot be written, or what lies there is of others.
        """
        check_ours([path])
        report = self.report(map_sha256, predicted_quality)
        write_atomically(path, to_json_text(encode(report)))


def _report_case(record: CaseRecord) -> ReportedCase:
    """Of one case, in the words of nnU-Net's summary.json, and ours."""
    rows: dict[str, dict[str, float]] = record.structures.drop(columns="name").to_dict("index")
    metrics = {}
    structures = {}
    first_channel = -len(rows)  # from the end: regions have no background
    for channel, (key, row) in enumerate(rows.items(), first_channel):
        metrics[key] = _report_structure(row, record.bins, channel)
        structures[key] = {name: row[name] for name in row if name not in METRICS}
    paths = {name: file["path"] for name, file in record.key["files"].items() if file}
    probabilities = paths.get("probabilities", paths.get("segmentation", ""))
    return ReportedCase(
        case=record.name,
        reference_file=paths.get("reference", ""),
        prediction_file=paths.get("segmentation", probabilities),
        probabilities_file=probabilities,
        largest_label=int(record.scan["largest_label"]),
        n_changed_voxels=int(record.scan["n_changed_voxels"]),
        metrics=metrics,
        calibration={mask: mask_metrics(stats) for mask, stats in record.bins.items()},
        bins=record.bins,
        quality=CaseQuality(
            unit=record.scan["unit"],
            voxel_volume=record.scan["voxel_volume"],
            entropy=record.scan["entropy"],
            confidence=record.scan["confidence"],
            structures=structures,
        ),
    )


def _report_structure(
    row: Mapping[str, float], bins: Mapping[str, BinStats], channel: int
) -> StructureMetrics:
    metrics: StructureMetrics = {name: row[name] for name in row if name in METRICS}
    metrics |= {name: int(metrics[name]) for name in metrics.keys() & COUNTS}
    distances = {"HD95_voxels": metrics.pop("HD95_voxels")}
    return metrics | {
        "n_pred": metrics["TP"] + metrics["FP"],
        "n_ref": metrics["TP"] + metrics["FN"],
        "distances": distances,
        "calibration": {mask: _score_channel(stats, channel) for mask, stats in bins.items()},
    }


def _score_channel(stats: BinStats, channel: int) -> dict[str, float]:
    """Calibration of one class's or region's own probability on one mask."""
    scores = {"CE": float(class_errors(stats)[channel])}
    is_of_regions = len(stats.count) == stats.num_classes
    if is_of_regions:
        scores["ECE"] = float(ece_per_row(stats)[channel])
        scores["NLL"] = float(nll_per_row(stats)[channel])
        scores["Brier"] = float(brier_per_row(stats)[channel])
    return scores


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of what has the same keys in each case, nested dictionaries too.

    Args:
        rows: Of each case its values, or dictionaries of such, by mask and structure.

    Returns:
        By the same keys the mean over the cases where the value is defined. In place of
        ``n_voxels`` ``n_cases``, how many cases have a voxel; ``distances`` are left out.
    """
    means: dict[str, Any] = {}
    for name, first in rows[0].items():
        if name in ("distances", "n_voxels"):
            continue
        values = [row[name] for row in rows]
        if isinstance(first, dict):
            means[name] = _means(values)
        else:
            means[name] = nanmean(values)
    if "n_voxels" in rows[0]:
        means["n_cases"] = sum(row["n_voxels"] > 0 for row in rows)
    return means


VALUE_COLUMNS = (
    CsvColumn(
        "scope",
        "text",
        "`case`, `mean` over the cases where the metric is defined, or `pooled` over voxels.",
    ),
    CsvColumn("case", "name", "Empty for `mean` and `pooled`."),
    CsvColumn(
        "structure",
        "key",
        "nnU-Net's key of the structure; empty for scores of all classes or regions.",
    ),
    CsvColumn(
        "mask", "name", "Voxels that a calibration score was measured on; empty for other metrics."
    ),
    CsvColumn("metric", "name", "As in calibration.json."),
    CsvColumn("value", "of the metric", "Empty if it is undefined."),
)
_Row = tuple[str, str, str, str, str, float | None]


def values_csv(evaluation: Evaluation) -> str:
    """The content of calibration.csv; an undefined value is an empty cell."""
    return to_csv_text([column.name for column in VALUE_COLUMNS], _rows(evaluation))


def _rows(evaluation: Evaluation) -> Iterator[_Row]:
    for case in evaluation.cases:
        yield from _rows_of_structures("case", case["case"], case["metrics"])
        yield from _rows_of_masks("case", case["case"], "", case["calibration"])
    yield from _rows_of_structures("mean", "", evaluation.mean)
    yield from _rows_of_masks("mean", "", "", evaluation.calibration["mean"])
    yield from _rows_of_masks("pooled", "", "", evaluation.calibration["pooled"])


def _rows_of_structures(
    scope: str, case: str, structures: Mapping[str, Mapping[str, Any]]
) -> Iterator[_Row]:
    """Metrics by nnU-Net's key of the structure; of nested ones the calibration, by mask, alone."""
    for key, metrics in structures.items():
        for metric, value in metrics.items():
            if metric == "calibration":
                yield from _rows_of_masks(scope, case, key, value)
            elif not isinstance(value, dict):
                yield scope, case, key, "", metric, value


def _rows_of_masks(
    scope: str, case: str, key: str, masks: Mapping[str, Mapping[str, float]]
) -> Iterator[_Row]:
    for mask, scores in masks.items():
        for metric, score in scores.items():
            yield scope, case, key, mask, metric, score
