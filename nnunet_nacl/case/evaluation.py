"""Means over cases that have a ground truth, and calibration.json, the report of them, which no command reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import nnunet_nacl
from nnunet_nacl.case.case import MASKS, EvaluationSettings, Labels
from nnunet_nacl.case.record import CaseRecord, scores, table
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import encode
from nnunet_nacl.numbers.binning import BinStats
from nnunet_nacl.numbers.calibration_error import (
    brier_per_row,
    class_errors,
    ece_per_row,
    mask_metrics,
    nanmean,
    nll_per_row,
)

FILE_NAME = "calibration.json"
SCHEMA_VERSION = 4  # keys may be added within a version

_COUNTED = ("TP", "FP", "FN", "TN", "n_pred", "n_ref")
_MEASURED = ("ASSD_mm", "Dice", "IoU", "HD95_mm")
_QUALITY = {
    "expected_dice": "predicted_dice",
    "expected_volume": "predicted_volume",
    "volume": "volume",
    "true_volume": "true_volume",
    "max_probability": "max_probability",
    "largest_dice": "network_dice",
    "members_dice": "members_dice",
}


class Evaluation:
    """Cases, and the means over them that nnU-Net's summary.json and the tables have.

    Args:
        records: Of cases with a truth, at least one.
        labels: Their structures.
        settings: What was measured.
        problems: By name, why other cases could not be evaluated.
    """

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
    def scores(self):
        """A row for each case, with its calibration."""
        return scores(self.records)

    @cached_property
    def cases(self) -> list[dict[str, Any]]:
        """What calibration.json says of each case."""
        return [self._case(record) for record in self.records]

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
        found: dict[str, dict[str, list[str]]] = {"Dice": {}, "HD95_mm": {}, "calibration": {}}
        for metric in ("Dice", "HD95_mm"):
            for row in self.table[self.table[metric].isna()].itertuples():
                found[metric].setdefault(row.key, []).append(row.case)
        for mask in MASKS:
            if cases := list(self.scores.index[self.scores[f"ECE:{mask}"].isna()]):
                found["calibration"][mask] = cases
        return found

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
                pooled, and ``ASSD_mm``, their mean (null if a side is empty); ``distances`` (``HD95_pooled_mm``,
                ``HD95_voxels``); ``calibration`` by mask (``CE``; of regions also ``ECE``, ``NLL``, ``Brier``).
            metric_per_case[].calibration: By mask the scores, and ``n_voxels``.
            metric_per_case[].quality: Means of ``entropy`` and ``confidence`` over the predicted foreground; ``voxel``,
                its volume in ``unit``; in ``structures`` by key ``expected_dice``, ``expected_volume``, ``volume``,
                ``true_volume``, ``max_probability``, ``largest_dice`` (expected, of any set of voxels),
                ``members_dice`` (between folds), ``true_pieces`` (connected parts of the truth).
            mean: By structure, means over the cases where a metric is defined.
            foreground_mean: Mean of each metric over the structures.
            calibration: ``mean`` over cases and ``pooled`` over voxels, by mask: scores.
            bins: By mask, sums in each bin: ``count``, ``confidence`` and ``correct`` of the label, ``class_count``,
                ``class_confidence`` and ``class_positive`` of each class; ``nll``, ``brier``.
            undefined: By metric, and structure or mask: cases that are in no mean.
            map_sha256: SHA-256 of the map that was applied, if it is known.
            predicted_quality: With -map, how well predicted Dice agrees with Dice: ``MAE predicted``, ``coverage`` and
                ``width`` of the intervals, ``orders``, ``workload``, ``threshold``, ``n_cases``, ``n_bad``,
                ``map_sha256``, ``notes``.

        Raises:
            UserError: The file cannot be written.
        """
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

    def _case(self, record: CaseRecord) -> dict[str, Any]:
        rows: dict[str, dict[str, float]] = record.structures.to_dict("index")
        quality = {name: record.scan[name] for name in ("unit", "entropy", "confidence")}
        structures = {key: {shown: row[name] for shown, name in _QUALITY.items()} for key, row in rows.items()}
        for key, row in rows.items():
            structures[key]["true_pieces"] = int(row["true_pieces"])
        places = {name: file["path"] for name, file in record.key["files"].items() if file}
        probabilities = places.get("probabilities", places.get("segmentation", ""))
        return {
            "case": record.case,
            "reference_file": places.get("reference", ""),
            "prediction_file": places.get("segmentation", probabilities),
            "probabilities_file": probabilities,
            "largest_label": int(record.scan["largest_label"]),
            "n_changed_voxels": int(record.scan["n_changed_voxels"]),
            "metrics": {key: _metrics(row, record.bins, i) for i, (key, row) in enumerate(rows.items(), -len(rows))},
            "calibration": {mask: mask_metrics(stats) for mask, stats in record.bins.items()},
            "bins": record.bins,
            "quality": quality | {"voxel": record.scan["voxel_volume"], "structures": structures},
        }


def _metrics(row: Mapping[str, float], bins: Mapping[str, BinStats], channel: int) -> dict[str, Any]:
    """Of one structure in one case, in the words of nnU-Net's summary.json, and ours."""
    counts = {"n_pred": row["TP"] + row["FP"], "n_ref": row["TP"] + row["FN"]}
    distances = {"HD95_pooled_mm": row["HD95_mm"], "HD95_voxels": row["HD95_voxels"]}
    return {
        **{name: int({**row, **counts}[name]) for name in _COUNTED},
        **{name: row[name] for name in _MEASURED},
        "distances": distances,
        "calibration": {mask: _of_channel(bins[mask], channel) for mask in MASKS},
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
