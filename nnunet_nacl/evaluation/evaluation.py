"""Means over cases that have a ground truth, and calibration.json, the report of them, which no command reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

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
    """Records of cases with a truth, at least one, the means over them, and why other cases could not be evaluated."""

    def __init__(
        self, records: Sequence[CaseRecord], labels: Labels, settings: EvaluationSettings, problems: Mapping[str, str]
    ) -> None:
        self.records = sorted(records, key=lambda record: record.case)
        self.labels, self.settings, self.problems = labels, settings, dict(sorted(problems.items()))
        self.names = labels.structures

    @cached_property
    def table(self):
        """A row for each case and structure."""
        return table(self.records)

    @cached_property
    def cases(self) -> list[dict[str, Any]]:
        """What calibration.json says of each case."""
        return list(map(_of_case, self.records))

    @cached_property
    def mean(self) -> dict[str, dict[str, Any]]:
        """By structure the mean of each metric over the cases where it is defined."""
        return {key: _means([case["metrics"][key] for case in self.cases]) for key in self.names}

    @cached_property
    def foreground_mean(self) -> dict[str, float]:
        """Mean of each metric over the structures, as nnU-Net's."""
        names = next(iter(self.mean.values())).keys() - {"calibration"}
        return {name: float(np.mean([row[name] for row in self.mean.values()])) for name in sorted(names)}

    @cached_property
    def bins(self) -> dict[str, BinStats]:
        """By mask, sums over all cases."""
        return {mask: BinStats.merge(record.bins[mask] for record in self.records) for mask in MASKS}

    @cached_property
    def calibration(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By mask the scores: mean over cases, and pooled over voxels."""
        pooled = {mask: mask_metrics(stats) for mask, stats in self.bins.items()}
        return {"mean": _means([case["calibration"] for case in self.cases]), "pooled": pooled}

    @cached_property
    def undefined(self) -> dict[str, dict[str, list[str]]]:
        """Which cases are left out of which mean: by metric, and structure or mask."""
        missing = {metric: self.table[self.table[metric].isna()] for metric in ("Dice", "HD95_mm")}
        found = {metric: rows.groupby("key", sort=False).case.agg(list).to_dict() for metric, rows in missing.items()}
        empty = {mask: [record.case for record in self.records if not record.bins[mask].n_voxels] for mask in MASKS}
        return found | {"calibration": {mask: cases for mask, cases in empty.items() if cases}}

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
            metric_per_case: A list of ``case``, ``reference_file``, ``prediction_file``, ``probabilities_file``;
                ``largest_label`` of the truth; ``n_changed_voxels``, whose label is not the most probable one;
                ``metrics``, ``calibration``, ``bins`` and ``quality``.
            metric_per_case[].metrics: By structure ``Dice``, ``IoU``, ``TP``, ``FP``, ``FN``, ``TN``, ``n_pred`` and
                ``n_ref`` as in summary.json; ``HD95_mm``, the 95th percentile of both directed surface distances,
                pooled, and ``ASSD_mm``, their mean (null if a side is empty); ``distances`` (``HD95_voxels``);
                ``calibration`` by mask (``CE``; of regions also ``ECE``, ``NLL``, ``Brier``).
            metric_per_case[].calibration: By mask the scores, and ``n_voxels``.
            metric_per_case[].quality: Means of ``entropy`` and ``confidence`` over the predicted foreground;
                ``voxel_volume`` in ``unit``; in ``structures`` by key ``volume``, ``true_volume`` and
                ``predicted_volume``; ``pieces`` and ``true_pieces`` (connected parts), share of the ``largest_piece``;
                ``predicted_dice``, ``max_probability``, ``members_dice`` (between folds); of the network without a map
                ``network_volume``, and ``network_dice``, the largest expected Dice of any set of voxels.
            mean: By structure, means over the cases where a metric is defined.
            foreground_mean: Mean of each metric over the structures.
            calibration: ``mean`` over cases and ``pooled`` over voxels, by mask: scores.
            bins: By mask, sums in each bin: ``count``, ``confidence`` and ``correct`` of the label, ``class_count``,
                ``class_confidence`` and ``class_positive`` of each class; ``nll``, ``brier``.
            undefined: By metric, and structure or mask: cases that are in no mean.
            map_sha256: SHA-256 of the map that was applied, if it is known.
            predicted_quality: With -map, how well predicted Dice agrees with Dice: ``MAE predicted``, ``coverage`` and
                ``width`` of the intervals, ``rho``, ``workload``, ``threshold``, ``n_cases``, ``n_bad``,
                ``map_sha256``, ``notes``.

        Raises:
            UserError: The file cannot be written, or what lies there is of others.
        """
        check_ours([path])
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
            "structures": {
                self.labels.key(i): {"name": self.labels.names[i], "channel": i} for i in self.labels.foreground
            },
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
    rows: dict[str, dict[str, Any]] = record.structures.drop(columns="name").to_dict("index")
    scan, metrics = record.scan, {}
    for channel, (key, row) in enumerate(rows.items(), -len(rows)):
        values = {name: row.pop(name) for name in _METRICS}
        counts = {name: int(values[name]) for name in ("TP", "FP", "FN", "TN")}
        counts |= {"n_pred": counts["TP"] + counts["FP"], "n_ref": counts["TP"] + counts["FN"]}
        distances = {"HD95_voxels": values.pop("HD95_voxels")}
        calibration = {mask: _of_channel(stats, channel) for mask, stats in record.bins.items()}
        metrics[key] = values | counts | {"distances": distances, "calibration": calibration}
    places = {name: file["path"] for name, file in record.key["files"].items() if file}
    probabilities = places.get("probabilities", places.get("segmentation", ""))
    return {
        "case": record.case,
        "reference_file": places.get("reference", ""),
        "prediction_file": places.get("segmentation", probabilities),
        "probabilities_file": probabilities,
        "largest_label": int(scan["largest_label"]),
        "n_changed_voxels": int(scan["n_changed_voxels"]),
        "metrics": metrics,
        "calibration": {mask: mask_metrics(stats) for mask, stats in record.bins.items()},
        "bins": record.bins,
        "quality": {name: scan[name] for name in ("unit", "voxel_volume", "entropy", "confidence")}
        | {"structures": rows},
    }


def _of_channel(stats: BinStats, channel: int) -> dict[str, float]:
    """Calibration of one class's or region's own probability on one mask."""
    result = {"CE": float(class_errors(stats)[channel])}
    if len(stats.count) == stats.num_classes:  # regions
        of_regions = {"ECE": ece_per_row, "NLL": nll_per_row, "Brier": brier_per_row}
        result |= {name: float(score(stats)[channel]) for name, score in of_regions.items()}
    return result


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over the cases where a value is defined, by mask and structure too, and how many cases have a voxel."""
    result: dict[str, Any] = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        if isinstance(first, dict) and name != "distances":
            result[name] = _means(values)
        elif name not in ("n_voxels", "distances"):
            result[name] = nanmean(values)
    if "n_voxels" in rows[0]:
        result["n_cases"] = sum(row["n_voxels"] > 0 for row in rows)
    return result
