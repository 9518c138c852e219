"""comparison.json: a comparison as a file. What its entries mean stands in docs/how-to/compare-trainers.md."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import nnunet_nacl
from nnunet_nacl.comparison.alignment import Dataset
from nnunet_nacl.comparison.comparison import Comparison, difference_to_json
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import NUMBER, Optional, mismatch, read_json
from nnunet_nacl.metrics.bootstrap import CONFIDENCE
from nnunet_nacl.show.table_formats import Cell, Table

__all__ = ["COMPARISON_FILE", "FIGURES", "TABLES", "comparison_to_json", "is_comparison", "read_comparison"]

COMPARISON_FILE = "comparison.json"
TABLES, FIGURES = "tables", "figures"  # folders beside it

_SCHEMA_VERSION = 2
_AGAIN = "run `nnunet_nacl compare` again"
_PLACES = ("references", "dataset_json", "plans", "treatment", "map_sha256")
_INTERVAL = {"mean": NUMBER, "low": NUMBER, "high": NUMBER, "n": int}
_LISTED = {"id": str, "dataset": (str, type(None)), "title": str, "caption": str, "files": [str]}
_CELL = {"text": str, "value": NUMBER, "best": bool, "second": bool}
_DATASET = {
    "name": str,
    "configuration": str,
    "plans": str,
    "folds": [str],
    "regions": bool,
    "structures": {"*": str},
    "cases": [str],
    "case_fold": {"*": str},
    "left_out": {"*": [str]},
    "predictions": {"*": {"*": {"folder": str, **{key: Optional(str) for key in _PLACES}}}},
    "values": {"*": {"*": [NUMBER]}},
    "means": {"*": {"*": _INTERVAL}},
}
_STATISTIC = {
    **{key: str for key in ("dataset", "column", "family", "trainer", "reference", "verdict")},
    **{key: NUMBER for key in ("mean_reference", "mean", "difference", "low", "high", "p", "p_holm")},
    "n": int,
}
_COLUMN = {"title": str, "better": str, "metric": str, "mask": (str, type(None))}
# A list holds the pattern of its items, a dict that of its values where the key is "*".
_SCHEMA: dict[str, Any] = {
    "generated_by": str,
    "created": str,
    "command": str,
    "settings": {
        "n_bootstrap": int,
        "seed": int,
        "confidence": (int, float),
        "evaluation": {"n_bins": int, "dilation_mm": (int, float), "boundary_mm": (int, float)},
    },
    "notes": [str],
    "trainers": [{"name": str, "label": str, "trainer": (str, type(None))}],
    "datasets": [_DATASET],
    "columns": {"*": _COLUMN},
    "tables": [{**_LISTED, "columns": [str], "rows": [[(str, dict)]]}],
    "figures": [{**_LISTED, "alt": str}],
    "statistics": [_STATISTIC],
}


def comparison_to_json(
    comparison: Comparison,
    tables: Sequence[Table],
    figures: Sequence[Mapping[str, Any]],
    *,
    command: str,
    allowed: Mapping[str, bool],
) -> dict[str, Any]:
    """The comparison as JSON values.

    Args:
        comparison: What was computed.
        tables: As they were written.
        figures: One entry per figure: ``id``, ``dataset``, ``title``, ``caption``, ``alt``, ``files``.
        command: What the user typed.
        allowed: What was accepted though it is a reservation: ``allow_missing``, ``allow_training_cases``.
    """
    return {
        "schema_version": _SCHEMA_VERSION,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "settings": {
            "n_bootstrap": comparison.n_bootstrap,
            "seed": comparison.seed,
            "confidence": CONFIDENCE,
            **allowed,
            "evaluation": vars(comparison.datasets[0].settings),
        },
        "notes": list(comparison.notes),
        "trainers": [entry.to_json() for entry in comparison.entries],
        "columns": {column_id: asdict(column) for column_id, column in comparison.columns.items()},
        "tables": [_table(table) for table in tables],
        "statistics": [difference_to_json(row, comparison.columns[row.column].better) for row in comparison.statistics],
        "ranks": _ranks(comparison),
        "figures": [dict(figure) for figure in figures],
        "datasets": [_dataset(comparison, dataset) for dataset in comparison.datasets],
    }


def _dataset(comparison: Comparison, dataset: Dataset) -> dict[str, Any]:
    values, means = comparison.values[dataset.name], comparison.means[dataset.name]
    undefined = {
        column: found
        for column, by_name in values.items()
        if (found := {name: cases for name, v in by_name.items() if (cases := _undefined(dataset, v))})
    }
    keys = ("name", "configuration", "plans", "regions", "structures", "case_fold", "left_out", "predictions")
    return {
        **{key: getattr(dataset, key) for key in keys},
        "folds": list(dataset.folds),
        "cases": list(dataset.cases),
        "values": {column: {name: v.tolist() for name, v in by_name.items()} for column, by_name in values.items()},
        "means": {column: {name: asdict(mean) for name, mean in by_name.items()} for column, by_name in means.items()},
        "undefined": undefined,
    }


def _undefined(dataset: Dataset, values: np.ndarray) -> list[str]:
    return [case for case, value in zip(dataset.cases, values) if np.isnan(value)]


def _ranks(comparison: Comparison) -> dict[str, Any]:
    ranks = comparison.ranks
    return {
        "metrics": ranks["metrics"],
        "sum": ranks["sum"],
        "mean": {
            name: {metric: asdict(interval) for metric, interval in found.items()}
            for name, found in ranks["mean"].items()
        },
        "n_trainers": len(comparison.entries),
        "n_datasets": len(comparison.datasets),
        "n_cases": sum(len(dataset.cases) for dataset in comparison.datasets),
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        **{key: getattr(table, key) for key in ("id", "dataset", "title", "caption", "columns")},
        "rows": [[asdict(cell) if isinstance(cell, Cell) else cell for cell in row] for row in table.rows],
        "files": [f"{TABLES}/{table.id}.{ending}" for ending in ("csv", "md", "tex")],
    }


def is_comparison(data: Any) -> bool:
    """Whether JSON values are those of a comparison of this package, of any version."""
    keys = {"schema_version", "trainers", "datasets", "tables", "figures"}
    return isinstance(data, dict) and keys <= set(data)


def read_comparison(folder: Path) -> dict[str, Any]:
    """The content of comparison.json.

    Args:
        folder: Output folder of `nnunet_nacl compare`.

    Raises:
        UserError: There is none, or it is broken, of another schema, or not what `compare` writes.
    """
    path = Path(folder) / COMPARISON_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `nnunet_nacl compare ... -o {folder}` first, or give its -o.")
    try:
        data = read_json(path)
    except UserError as error:
        raise UserError(f"{str(error).removesuffix('restore it.').rstrip('; ')}; {_AGAIN}.") from None
    if not isinstance(data, dict) or "schema_version" not in data:
        raise UserError(f"{path}: not a comparison.json of this package (it has no schema_version); {_AGAIN}.")
    version = data["schema_version"]
    if version != _SCHEMA_VERSION or isinstance(version, bool):
        newer = isinstance(version, int) and version > _SCHEMA_VERSION
        advice = "update nnunet_nacl" if newer else _AGAIN
        raise UserError(f"{path}: schema version {version!r}, this version reads {_SCHEMA_VERSION}; {advice}.")
    problem = mismatch(data, _SCHEMA) or _endless(data) or _inconsistency(data)
    if problem:
        raise UserError(f"{path}: not a comparison.json of this package ({problem}); {_AGAIN}.")
    return data


def _endless(value: Any) -> str:
    """A number that is none, in words: JSON as Python reads it may hold infinity, and integers of any size."""
    if isinstance(value, (int, float)):
        return "" if -1e300 < value < 1e300 else f"the number {str(value)[:20]} cannot be one of a comparison"
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(_endless, items)), "")


def _inconsistency(data: dict[str, Any]) -> str:
    names = [trainer["name"] for trainer in data["trainers"]]
    if not names or not data["datasets"]:
        return "it compares nothing"
    for dataset in data["datasets"]:
        for column, values in dataset["values"].items():
            if column not in data["columns"]:
                return f"the column {column!r} is not described"
            if any(len(values.get(name, ())) != len(dataset["cases"]) for name in names):
                return f"{column} on {dataset['name']} has not one value per case of every method"
        if missing := set(dataset["means"]) - set(data["columns"]):
            return f"the column {min(missing)!r} is not described"
    for row in data["statistics"]:
        if row["column"] not in data["columns"]:
            return f"the column {row['column']!r} is not described"
    for table in data["tables"]:
        if any(len(row) != len(table["columns"]) for row in table["rows"]):
            return f"rows of the table {table['id']!r} have another length than its header"
        cells = (cell for row in table["rows"] for cell in row if isinstance(cell, dict))
        if problem := next(filter(None, (mismatch(cell, _CELL) for cell in cells)), ""):
            return f"a cell of the table {table['id']!r}: {problem}"
    return ""
