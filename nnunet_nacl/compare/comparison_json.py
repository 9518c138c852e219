"""A comparison as JSON values. What they mean stands in docs/reference/files.md."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import nnunet_nacl
from nnunet_nacl.compare.alignment import Dataset
from nnunet_nacl.compare.comparison import Comparison
from nnunet_nacl.compare.comparison_file import SCHEMA_VERSION
from nnunet_nacl.numbers.statistics import CONFIDENCE

_ENTRY = ("name", "label", "trainer", "ranked")


def comparison_to_json(
    comparison: Comparison,
    tables: Sequence[Mapping[str, Any]],
    figures: Sequence[Mapping[str, Any]],
    *,
    command: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of comparison.json.

    Args:
        comparison: What was computed.
        tables: One entry per table: ``id``, ``dataset``, ``title``, ``caption``, ``columns``, ``rows``, ``files``.
        figures: One entry per figure: ``id``, ``dataset``, ``title``, ``caption``, ``alt``, ``files``.
        command: What the user typed.
        settings: What the user chose beside the draws: ``allow_missing``, ``allow_training_cases``, ``groups``.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "settings": {
            "n_bootstrap": comparison.n_bootstrap,
            "seed": comparison.seed,
            "confidence": CONFIDENCE,
            **settings,
            "evaluation": vars(comparison.datasets[0].settings),
        },
        "notes": comparison.notes,
        "trainers": [{key: getattr(entry, key) for key in _ENTRY} for entry in comparison.entries],
        "columns": {column_id: asdict(column) for column_id, column in comparison.columns.items()},
        "tables": list(tables),
        "statistics": [_statistic(comparison, row) for row in comparison.statistics.to_dict("records")],
        "figures": list(figures),
        "datasets": [_dataset(comparison, dataset) for dataset in comparison.datasets],
    }


def _statistic(comparison: Comparison, row: dict[str, Any]) -> dict[str, Any]:
    """A row of ``statistics``: how many patients are better and worse stands in place of how many are lower."""
    lower, higher = row.pop("n_lower"), row.pop("n_higher")
    up = comparison.columns[row["column"]].better == "higher"
    n_better, n_worse = (higher, lower) if up else (lower, higher)
    return row | {"n_better": n_better, "n_worse": n_worse, "n_equal": row["n_patients"] - n_better - n_worse}


def _dataset(comparison: Comparison, dataset: Dataset) -> dict[str, Any]:
    values, columns, names = comparison.values[dataset.name], comparison.columns_of(dataset), comparison.names
    means = comparison.means
    keys = ("name", "configuration", "plans", "folds", "regions", "structures", "cases", "patients", "n_patients")
    return {
        **{key: getattr(dataset, key) for key in keys},
        "values": {column: {name: values[column][name].tolist() for name in names} for column in columns},
        "means": {column: {name: asdict(means[dataset.name, column, name]) for name in names} for column in columns},
    }
