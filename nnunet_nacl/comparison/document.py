"""comparison.json: a comparison as a file. What its entries mean stands in docs/how-to/compare-trainers.md."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import nnunet_nacl
from nnunet_nacl.comparison.cells import Cell, Table
from nnunet_nacl.comparison.compare import Comparison, difference_to_json
from nnunet_nacl.comparison.gather import Dataset
from nnunet_nacl.comparison.models import relative_to_results
from nnunet_nacl.comparison.statistics import CONFIDENCE

__all__ = ["FIGURES", "FILE_NAME", "SCHEMA_VERSION", "TABLES", "to_document"]

FILE_NAME = "comparison.json"
SCHEMA_VERSION = 1
TABLES, FIGURES = "tables", "figures"  # folders beside it


def to_document(
    comparison: Comparison,
    tables: Sequence[Table],
    figures: Sequence[Mapping[str, Any]],
    *,
    command: str,
    allow_missing: bool = False,
) -> dict[str, Any]:
    """The comparison as JSON values.

    Args:
        comparison: What was computed.
        tables: As they were written.
        figures: One entry per figure: ``id``, ``dataset``, ``title``, ``caption``, ``alt``, ``files``.
        command: What the user typed.
        allow_missing: Whether missing folds and cases were accepted.
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
            "allow_missing": allow_missing,
            "evaluation": comparison.datasets[0].settings.to_json(),
        },
        "notes": list(comparison.notes),
        "trainers": [trainer.to_json() for trainer in comparison.trainers],
        "columns": {column_id: column.to_json() for column_id, column in comparison.columns.items()},
        "tables": [_table(table) for table in tables],
        "statistics": [difference_to_json(row, comparison.columns[row.column].better) for row in comparison.statistics],
        "ranks": _ranks(comparison),
        "figures": [dict(figure) for figure in figures],
        "datasets": [_dataset(comparison, dataset) for dataset in comparison.datasets],
    }


def _dataset(comparison: Comparison, dataset: Dataset) -> dict[str, Any]:
    values, means = comparison.values[dataset.name], comparison.means[dataset.name]
    undefined = {
        column: {
            name: [case for case, value in zip(dataset.cases, found) if np.isnan(value)]
            for name, found in by_trainer.items()
            if np.isnan(found).any()
        }
        for column, by_trainer in values.items()
    }
    return {
        "name": dataset.name,
        "configuration": dataset.configuration,
        "plans": dataset.plans,
        "folds": list(dataset.folds),
        "regions": dataset.regions,
        "structures": dataset.structures,
        "cases": list(dataset.cases),
        "case_fold": dataset.case_fold,
        "left_out": dataset.left_out,
        "model_folders": {name: relative_to_results(folder) for name, folder in dataset.model_folders.items()},
        "values": {
            column: {name: found.tolist() for name, found in by_trainer.items()}
            for column, by_trainer in values.items()
        },
        "means": {
            column: {name: interval.to_json() for name, interval in by_trainer.items()}
            for column, by_trainer in means.items()
        },
        "undefined": {column: found for column, found in undefined.items() if found},
    }


def _ranks(comparison: Comparison) -> dict[str, Any]:
    ranks = comparison.ranks
    return {
        "metrics": ranks["metrics"],
        "sum": ranks["sum"],
        "mean": {
            name: {metric: interval.to_json() for metric, interval in found.items()}
            for name, found in ranks["mean"].items()
        },
        "n_trainers": len(comparison.trainers),
        "n_datasets": len(comparison.datasets),
        "n_cases": sum(len(dataset.cases) for dataset in comparison.datasets),
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "id": table.id,
        "dataset": table.dataset,
        "title": table.title,
        "caption": table.caption,
        "columns": table.columns,
        "rows": [[cell.to_json() if isinstance(cell, Cell) else cell for cell in row] for row in table.rows],
        "files": [f"{TABLES}/{table.id}.{ending}" for ending in ("csv", "md", "tex")],
    }
