"""The site's page about files, made from the columns, documents and records as the code has
them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from nnunet_nacl.calibration import log_odds_map
from nnunet_nacl.cases.findings import FINDING_COLUMNS
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.evaluation.evaluation import Evaluation
from nnunet_nacl.evaluation.page import comparison_to_json
from nnunet_nacl.evaluation.values import VALUE_COLUMNS
from nnunet_nacl.files import CsvColumn
from nnunet_nacl.metrics.calibration_error import MASK_METRICS
from nnunet_nacl.worklist.list_files import REVIEW_COLUMNS, SCAN_COLUMNS, STRUCTURE_COLUMNS
from tools.document_schemas import PUBLISHED, as_markdown, explained, schema_of

_FLAT = (
    "Of 2D images columns say `area_mm2` in place of `volume_ml`, without a spacing `area_pixels`."
)
CSV_FILES: dict[str, tuple[str, Iterable[CsvColumn]]] = {
    "review.csv": (
        "The list of `predict` and `review`: a row for each scan.",
        REVIEW_COLUMNS.values(),
    ),
    "structures.csv": (
        f"Beside it: a row for each scan and structure. {_FLAT}",
        STRUCTURE_COLUMNS.values(),
    ),
    "scans.csv": ("Beside it: a row for each scan, with all else.", SCAN_COLUMNS.values()),
    "findings.csv": (
        f"With `-findings`: a row for each connected part of a structure. {_FLAT}",
        FINDING_COLUMNS,
    ),
    "calibration.csv": (
        "With `evaluate --csv`: a row for each value of calibration.json.",
        VALUE_COLUMNS,
    ),
}
REPORTS: dict[str, Any] = {
    "calibration.json": Evaluation.write,
    "comparison.json": comparison_to_json,
}

_INTRO = """# Files

JSON is strict UTF-8: an undefined number is `null`, never `NaN`; in CSV files its cell is empty. A killed run leaves
the old file or the new one. Within a schema version keys may be added; a reader should refuse other versions. Commands
read records, maps, marks and, of prediction.json, what `review -back` needs; all else is a report, which no command
reads. A folder that `review -map` wrote names the map in calibration_applied.json. In the tables `*` stands for any
name and `[]` for each entry of a list.

## Records

All that is kept of a case is one file, `records/CASE.npz`, beside its prediction; everything else is computed from it.
A second run measures only cases whose `key` has changed, or whose record is damaged or of another version.
`nnunet_nacl.cases.record.read_record` reads a file as a `CaseRecord`:

"""
_SCORES = """Of the N voxels of a mask n_b lie in the bin b, (lo, hi]. Confidence is the probability of the label.
Scores of regions are means over regions, each a problem of two classes."""
_TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "null": "null"}


def files_page() -> str:
    """Markdown of the page."""
    kept = [
        (f"`{name}`", text) for name, text in explained(inspect.getdoc(CaseRecord) or "").items()
    ]
    parts = [_INTRO + _table(("attribute", "holds"), kept)]
    for name, (text, columns) in CSV_FILES.items():
        parts.append(
            f"## {name}\n\n{text}\n\n{_table(('column', 'unit', 'meaning'), map(_column, columns))}"
        )
    scores = [
        (f"`{name}`", f"{_about(metric.function)} {metric.meaning}")
        for name, metric in MASK_METRICS.items()
    ]
    parts.append(f"## Scores\n\n{_SCORES}\n\n{_table(('score', 'meaning'), scores)}")
    for name, write in REPORTS.items():
        keys = [
            (f"`{key}`", text)
            for key, text in explained(inspect.getdoc(write) or "", "Keys").items()
        ]
        parts.append(
            f"## {name}\n\n{name}{_about(write).partition(name)[2]}\n\n{_table(('key', 'meaning'), keys)}"
        )
    for name in PUBLISHED:
        schema = schema_of(name)
        version, keys = (
            schema["properties"]["schema_version"]["const"],
            _keys(schema, schema["$defs"]),
        )
        about = (
            f"{schema['description']} Schema version {version} ([JSON"
            f" schema](schemas/{name}.schema.json))."
        )
        parts.append(f"## {name}.json\n\n{about}\n\n{_table(('key', 'type', 'meaning'), keys)}")
        if name == "calibration_map":
            parts[-1] += (
                "\n" + "\n\n".join((inspect.getdoc(log_odds_map) or "").split("\n\n")[1:4]) + "\n"
            )
    return "\n".join(parts)


def _column(column: CsvColumn) -> tuple[str, str, str]:
    """A row about a column, as it is of three-dimensional scans."""
    known = {"size": "volume", "unit": "ml", "length": "mm", "fold": "FOLD"}
    return f"`{column.name.format(**known)}`", column.unit.format(**known), column.meaning


def _about(function: Any) -> str:
    """The first paragraph of its docstring."""
    return as_markdown((inspect.getdoc(getattr(function, "func", function)) or "").split("\n\n")[0])


def _keys(
    schema: dict, defs: dict, at: str = "", seen: dict | None = None
) -> Iterator[tuple[str, str, str]]:
    """Rows about the keys of an object and, below each, of what it holds; a kind of object is shown
    once."""
    seen = {} if seen is None else seen
    for name, value in schema["properties"].items():
        kind, suffix, inner = _kind(value)
        key, meaning, below = f"{at}{name}", value.get("description", ""), defs.get(inner, {})
        if inner in seen:
            below, meaning = {}, f"{meaning} Keys as of `{seen[inner]}`."
        elif below:
            seen[inner] = f"{key}{suffix}"
        if below and any("description" not in each for each in below["properties"].values()):
            names = ", ".join(f"`{each}`" for each in below["properties"])
            below, meaning = {}, f"{meaning} {below['description']} Keys: {names}."
        yield f"`{key}`", kind, meaning
        if below:
            yield from _keys(below, defs, f"{key}{suffix}.", seen)


def _kind(value: dict[str, Any]) -> tuple[str, str, str]:
    """Type in words, what leads from the key to the objects in it, and the name of their kind;
    empty for none."""
    if "$ref" in value:
        return "object", "", value["$ref"].rpartition("/")[2]
    if "anyOf" in value:
        kind, suffix, inner = _kind(value["anyOf"][0])
        return f"{kind} or null", suffix, inner
    if value.get("type") == "array":
        kind, suffix, inner = _kind(value.get("items") or value["prefixItems"][0])
        return (
            "list of " + re.sub(r"^(list|object|text|whole number|number)\b", r"\1s", kind),
            f"[]{suffix}",
            inner,
        )
    if isinstance(value.get("additionalProperties"), dict):
        kind, suffix, inner = _kind(value["additionalProperties"])
        return (
            f"by name{' and ' + kind[3:] if kind.startswith('by name') else ': ' + kind}",
            f".*{suffix}",
            inner,
        )
    types = value.get("type", "any value")
    return (
        " or ".join(_TYPES.get(one, one) for one in ([types] if isinstance(types, str) else types)),
        "",
        "",
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [
        head,
        (":--",) * len(head),
        *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
