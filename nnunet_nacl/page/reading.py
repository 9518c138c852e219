"""Reads comparison.json and makes sure that it holds what the page is made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import NUMBER, Optional, mismatch, read_json

__all__ = ["FILE_NAME", "SCHEMA_VERSION", "read_comparison"]

FILE_NAME = "comparison.json"
SCHEMA_VERSION = 1

_AGAIN = "run `nnunet_nacl compare` again"

# A list holds the pattern of its items, a dict that of its values where the key is "*".
_PATTERN: dict[str, Any] = {
    "generated_by": str,
    "created": str,
    "command": str,
    "settings": dict,
    "notes": [str],
    "trainers": [{"name": str, "label": str}],
    "datasets": [
        {
            "name": str,
            "configuration": str,
            "plans": str,
            "folds": [str],
            "structures": {"*": str},
            "cases": [str],
            "case_fold": {"*": str},
            "model_folders": {"*": str},
            "values": {"*": {"*": [NUMBER]}},
        }
    ],
    "columns": {"*": {"title": str, "better": str}},
    "tables": [{"id": str, "title": str, "caption": str, "columns": [str], "rows": [[(str, dict)]]}],
    "figures": [{"id": str, "title": str, "caption": str, "alt": str, "files": [str]}],
    "statistics": Optional(
        [
            {
                "dataset": str,
                "column": str,
                "trainer": str,
                "difference": NUMBER,
                "low": NUMBER,
                "high": NUMBER,
                "n": int,
                "verdict": str,
            }
        ]
    ),
}


def read_comparison(folder: Path) -> dict[str, Any]:
    """The content of comparison.json.

    Args:
        folder: Output folder of `nnunet_nacl compare`.

    Raises:
        UserError: There is none, or it is broken, of a newer schema, or not what `compare` writes.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `nnunet_nacl compare ... -o {folder}` first, or give its -o.")
    try:
        data = read_json(path)
    except UserError as error:
        raise UserError(f"{str(error).removesuffix('restore it.').rstrip('; ')}; {_AGAIN}.") from None
    if not isinstance(data, dict) or "schema_version" not in data:
        raise UserError(f"{path}: not a comparison.json of this package (it has no schema_version); {_AGAIN}.")
    version = data["schema_version"]
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        mend = "update nnunet_nacl" if newer else _AGAIN
        raise UserError(f"{path}: schema version {version!r}, this version reads {SCHEMA_VERSION}; {mend}.")
    problem = mismatch(data, _PATTERN) or _inconsistency(data)
    if problem:
        raise UserError(f"{path}: not a comparison.json of this package ({problem}); {_AGAIN}.")
    return data


def _inconsistency(data: dict[str, Any]) -> str:
    names = [trainer["name"] for trainer in data["trainers"]]
    if not names or not data["datasets"]:
        return "it compares nothing"
    for dataset in data["datasets"]:
        for column, values in dataset["values"].items():
            if column not in data["columns"]:
                return f"the column {column!r} is not described"
            for name in names:
                if len(values.get(name, ())) != len(dataset["cases"]):
                    return f"{column} of {name} on {dataset['name']} has not one value per case"
    for table in data["tables"]:
        if any(len(row) != len(table["columns"]) for row in table["rows"]):
            return f"rows of the table {table['id']!r} have another length than its header"
    return ""
