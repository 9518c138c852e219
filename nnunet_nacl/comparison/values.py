"""calibration.csv: every value of an evaluation, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nnunet_nacl.comparison.evaluation import Evaluation
from nnunet_nacl.utilities.csv_text import CsvColumn, to_csv_text

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
