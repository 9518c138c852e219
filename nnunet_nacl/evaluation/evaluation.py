"""Means over cases that have a ground truth, and calibration.json, the report of them, which no
command reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import nnunet_nacl
from nnunet_nacl.cases.case import MASKS, EvaluationSettings, Labels
from nnunet_nacl.cases.record import WITH_TRUTH, CaseRecord, table
from nnunet_nacl.files import check_ours, to_json_text, write_atomically
from nnunet_nacl.json_files import encode
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import (
    brier_per_row,
    class_errors,
    ece_per_row,
    mask_metrics,
    nanmean,
    nll_per_row,
)

FILE_NAME = "calibration.json"
SCHEMA_VERSION = 5  # keys may be added within a version

_METRICS = [name for name in WITH_TRUTH if not name.startswith("true_")]


class Evaluation:
    """Records of cases with a truth, at least one, the means over them, and why other cases could
    not be evaluated.

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
        self.records = sorted(records, key=lambda record: record.case)
        self.labels = labels
        self.settings = settings
        self.problems = dict(sorted(problems.items()))
        self.names = labels.structures

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each case and structure."""
        return table(self.records)

    @cached_property
    def cases(self) -> list[dict[str, Any]]:
        """What calibration.json says of each case."""
        return [_of_case(record) for record in self.records]

    @cached_property
    def mean(self) -> dict[str, dict[str, Any]]:
        """By structure the mean of each metric over the cases where it is defined."""
        means = {}
        for key in self.names:
            means[key] = _means([case["metrics"][key] for case in self.cases])
        return means

    @cached_property
    def foreground_mean(self) -> dict[str, float]:
        """Mean of each metric over the structures, as nnU-Net's."""
        of_structures = pd.DataFrame.from_dict(self.mean, orient="index").drop(
            columns="calibration"
        )
        # a structure without a value leaves the mean without one, as nnU-Net's
        means = {
            metric: float(np.mean(values.to_numpy(float)))
            for metric, values in of_structures.items()
        }
        return dict(sorted(means.items()))

    @cached_property
    def bins(self) -> dict[str, BinStats]:
        """By mask, sums over all cases."""
        return {
            mask: BinStats.merge(record.bins[mask] for record in self.records) for mask in MASKS
        }

    @cached_property
    def calibration(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By mask the scores: mean over cases, and pooled over voxels."""
        pooled = {mask: mask_metrics(stats) for mask, stats in self.bins.items()}
        return {"mean": _means([case["calibration"] for case in self.cases]), "pooled": pooled}

    @cached_property
    def undefined(self) -> dict[str, dict[str, list[str]]]:
        """Which cases are left out of which mean: by metric, and structure or mask."""
        undefined = {}
        for metric in ("Dice", "HD95_mm"):
            missing = self.table[self.table[metric].isna()]
            undefined[metric] = missing.groupby("key", sort=False).case.agg(list).to_dict()
        undefined["calibration"] = {}
        for mask in MASKS:
            empty = [record.case for record in self.records if not record.bins[mask].n_voxels]
            if empty:
                undefined["calibration"][mask] = empty
        return undefined

    def write(self, path: Path, **further: Any) -> None:
        """Write calibration.json, the report of ``nnunet_nacl evaluate`` and of the trainers.

        Args:
            path: The file.
            **further: ``map_sha256`` and ``predicted_quality``, as far as they are known.

        Keys:
            schema_version: Version of this format.
            generated_by: Package and version.
            structures: By nnU-Net's key ``name``, and ``channel`` of the probabilities.
            regions: Whether structures are sigmoid regions.
            settings: ``n_bins``, ``dilation_mm``, ``boundary_mm``.
            problems: By case why it could not be evaluated.
            n_cases: Cases that were measured.
            metric_per_case: A list of ``case``, ``reference_file``, ``prediction_file``,
                ``probabilities_file``; ``largest_label`` of the truth; ``n_changed_voxels``, whose
                label is not the most probable one; ``metrics``, ``calibration``, ``bins`` and
                ``quality``.
            metric_per_case[].metrics: By structure ``Dice``, ``IoU``, ``TP``, ``FP``, ``FN``,
                ``TN``, ``n_pred`` and ``n_ref`` as in summary.json; ``HD95_mm``, the 95th
                percentile of both directed surface distances, pooled, and ``ASSD_mm``, their mean
                (null if a side is empty); ``distances`` (``HD95_voxels``); ``calibration`` by mask
                (``CE``; of regions also ``ECE``, ``NLL``, ``Brier``).
            metric_per_case[].calibration: By mask the scores, and ``n_voxels``.
            metric_per_case[].quality: Means of ``entropy`` and ``confidence`` over the predicted
                foreground; ``voxel_volume`` in ``unit``; in ``structures`` by key ``volume``,
                ``true_volume`` and ``predicted_volume``; ``pieces`` and ``true_pieces`` (connected
                parts), share of the ``largest_piece``; ``predicted_dice``, ``max_probability``,
                ``members_dice`` (between folds); of the network without a map ``network_volume``,
                and ``network_dice``, the largest expected Dice of any set of voxels.
            mean: By structure, means over the cases where a metric is defined.
            foreground_mean: Mean of each metric over the structures.
            calibration: ``mean`` over cases and ``pooled`` over voxels, by mask: scores.
            bins: By mask, sums in each bin: ``count``, ``confidence`` and ``correct`` of the label,
                ``class_count``, ``class_confidence`` and ``class_positive`` of each class; ``nll``,
                ``brier``.
            undefined: By metric, and structure or mask: cases that are in no mean.
            map_sha256: SHA-256 of the map that was applied, if it is known.
            predicted_quality: With -map, how well predicted Dice agrees with Dice: ``MAE
                predicted``, ``coverage`` and ``width`` of the intervals, ``rho``, ``workload``,
                ``threshold``, ``n_cases``, ``n_bad``, ``map_sha256``, ``notes``.

        Raises:
            UserError: The file cannot be written, or what lies there is of others.
        """
        check_ours([path])
        structures = {}
        for channel in self.labels.foreground:
            structures[self.labels.key(channel)] = {
                "name": self.labels.names[channel],
                "channel": channel,
            }
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
            "structures": structures,
            "regions": self.labels.regions,
            "settings": self.settings,
            "problems": self.problems,
            "n_cases": len(self.records),
            "metric_per_case": self.cases,
            "mean": self.mean,
            "foreground_mean": self.foreground_mean,
            "calibration": self.calibration,
            "bins": self.bins,
            "undefined": self.undefined,
            **further,
        }
        write_atomically(path, to_json_text(encode(document)))


def _of_case(record: CaseRecord) -> dict[str, Any]:
    """Of one case, in the words of nnU-Net's summary.json, and ours."""
    measured: dict[str, dict[str, Any]] = record.structures.drop(columns="name").to_dict("index")
    metrics = {}
    volumes = {}
    first_channel = -len(measured)  # from the end: regions have no background
    for channel, (key, values) in enumerate(measured.items(), first_channel):
        metrics[key] = _metrics_of_structure(values, record.bins, channel)
        volumes[key] = {name: value for name, value in values.items() if name not in _METRICS}
    paths = {name: file["path"] for name, file in record.key["files"].items() if file}
    probabilities = paths.get("probabilities", paths.get("segmentation", ""))
    quality = {
        name: record.scan[name] for name in ("unit", "voxel_volume", "entropy", "confidence")
    }
    return {
        "case": record.case,
        "reference_file": paths.get("reference", ""),
        "prediction_file": paths.get("segmentation", probabilities),
        "probabilities_file": probabilities,
        "largest_label": int(record.scan["largest_label"]),
        "n_changed_voxels": int(record.scan["n_changed_voxels"]),
        "metrics": metrics,
        "calibration": {mask: mask_metrics(stats) for mask, stats in record.bins.items()},
        "bins": record.bins,
        "quality": {**quality, "structures": volumes},
    }


def _metrics_of_structure(
    values: Mapping[str, Any], bins: Mapping[str, BinStats], channel: int
) -> dict[str, Any]:
    """Overlap, distances and calibration of one structure, whose probabilities are one channel of
    the bins."""
    metrics = {name: values[name] for name in _METRICS if name != "HD95_voxels"}
    for name in ("TP", "FP", "FN", "TN"):
        metrics[name] = int(values[name])
    metrics["n_pred"] = metrics["TP"] + metrics["FP"]
    metrics["n_ref"] = metrics["TP"] + metrics["FN"]
    metrics["distances"] = {"HD95_voxels": values["HD95_voxels"]}
    metrics["calibration"] = {
        mask: _calibration_of_channel(stats, channel) for mask, stats in bins.items()
    }
    return metrics


def _calibration_of_channel(stats: BinStats, channel: int) -> dict[str, float]:
    """Calibration of one class's or region's own probability on one mask."""
    scores = {"CE": float(class_errors(stats)[channel])}
    is_of_regions = len(stats.count) == stats.num_classes
    if is_of_regions:
        scores["ECE"] = float(ece_per_row(stats)[channel])
        scores["NLL"] = float(nll_per_row(stats)[channel])
        scores["Brier"] = float(brier_per_row(stats)[channel])
    return scores


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over the cases where a value is defined, by mask and structure too, and how many cases
    have a voxel."""
    means: dict[str, Any] = {}
    for name, first in rows[0].items():
        if name in ("distances", "n_voxels"):
            continue
        values = [row[name] for row in rows]
        means[name] = _means(values) if isinstance(first, dict) else nanmean(values)
    if "n_voxels" in rows[0]:
        means["n_cases"] = sum(row["n_voxels"] > 0 for row in rows)
    return means
