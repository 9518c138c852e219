"""The site's page about files, made from the columns, documents and records as the code has
them."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from nnunet_nacl.cases.findings import FINDING_COLUMNS
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.cases.structure_values import STRUCTURE_VALUES
from nnunet_nacl.comparison.evaluation import VALUE_COLUMNS
from nnunet_nacl.estimators import log_odds_map
from nnunet_nacl.metrics.calibration_error import MASK_METRICS, MaskMetric
from nnunet_nacl.utilities.csv_text import CsvColumn
from nnunet_nacl.worklist.list_files import REVIEW_COLUMNS, SCAN_COLUMNS, STRUCTURE_COLUMNS
from tools.docstrings import as_markdown, described_attributes, first_paragraph
from tools.document_schemas import PUBLISHED, JsonObject, schema_of


class CsvFile(NamedTuple):
    """A table that commands write."""

    about: str
    columns: Iterable[CsvColumn]


_FLAT = (
    "Of 2D images columns say `area_mm2` in place of `volume_ml`, without a spacing `area_pixels`."
)
CSV_FILES = {
    "review.csv": CsvFile(
        "The list of `predict` and `review`: a row for each scan.", REVIEW_COLUMNS.values()
    ),
    "structures.csv": CsvFile(
        f"Beside it: a row for each scan and structure. {_FLAT}", STRUCTURE_COLUMNS.values()
    ),
    "scans.csv": CsvFile("Beside it: a row for each scan, with all else.", SCAN_COLUMNS.values()),
    "findings.csv": CsvFile(
        f"With `-findings`: a row for each connected part of a structure. {_FLAT}", FINDING_COLUMNS
    ),
    "calibration.csv": CsvFile(
        "With `evaluate --csv`: a row for each value of calibration.json.", VALUE_COLUMNS
    ),
}

_INTRO = """# Files

JSON is strict UTF-8: an undefined number is `null`, never `NaN`; in CSV files its cell is empty.
A killed run leaves the old file or the new one. Within a schema version keys may be added; a
reader should refuse other versions. Commands read records, maps, marks and, of prediction.json,
what `review -back` needs; all else is a report, which no command reads. A folder that
`review -map` wrote names the map in calibration_applied.json. In the tables `*` stands for any
name and `[]` for each entry of a list.

## Records

All that is kept of a case is one file, `records/CASE.npz`, beside its prediction; everything else
is computed from it. A second run measures only cases whose `key` has changed, or whose record is
damaged or of another version. `nnunet_nacl.cases.record.read_record` reads a file as a
`CaseRecord`:

"""
_SCORES = """\
Of the N voxels of a mask n_b lie in the bin b, (lo, hi]. Confidence is the probability of the
label. Scores of regions are means over regions, each a problem of two classes."""
_TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "null": "null"}


def files_page() -> str:
    """Markdown of the page."""
    attributes = described_attributes(_docstring(CaseRecord))
    rows = [(f"`{name}`", text) for name, text in attributes.items()]
    sections = [_INTRO + _table(("attribute", "holds"), rows), _structures_section()]
    sections += [_csv_section(name, file) for name, file in CSV_FILES.items()]
    sections.append(_scores_section())
    sections += [_document_section(name) for name in PUBLISHED]
    return "\n".join(sections)


def _structures_section() -> str:
    rows = [(f"`{name}`", as_markdown(value.meaning)) for name, value in STRUCTURE_VALUES.items()]
    table = _table(("value", "meaning"), rows)
    return f"## Structures of a case\n\nValues of each structure in a record.\n\n{table}"


def _csv_section(name: str, file: CsvFile) -> str:
    table = _table(("column", "unit", "meaning"), map(_column_row, file.columns))
    return f"## {name}\n\n{file.about}\n\n{table}"


def _column_row(column: CsvColumn) -> tuple[str, str, str]:
    """A row about a column, as it is of three-dimensional scans."""
    known = {"size": "volume", "unit": "ml", "length": "mm", "fold": "FOLD"}
    return f"`{column.name.format(**known)}`", column.unit.format(**known), column.meaning


def _scores_section() -> str:
    rows = [(f"`{name}`", _about_score(metric)) for name, metric in MASK_METRICS.items()]
    return f"## Scores\n\n{_SCORES}\n\n{_table(('score', 'meaning'), rows)}"


def _about_score(metric: MaskMetric) -> str:
    """What the function of a score says first, and what the score means."""
    function: Callable[..., float] = metric.function
    if isinstance(function, functools.partial):
        function = function.func
    return f"{first_paragraph(_docstring(function))} {metric.meaning}"


def _document_section(name: str) -> str:
    """What a JSON document is, and a row about each of its keys."""
    schema = schema_of(name)
    version = schema["properties"]["schema_version"]["const"]
    about = (
        f"{schema['description']} Schema version {version} ([JSON"
        f" schema](schemas/{name}.schema.json))."
    )
    rows = _KeyRows(schema.get("$defs", {})).of_object(schema, "")
    section = f"## {name}.json\n\n{about}\n\n{_table(('key', 'type', 'meaning'), rows)}"
    if name == "calibration_map":
        section += f"\n{_formula_of_maps()}\n"
    return section


def _formula_of_maps() -> str:
    """What a map computes: the second to fourth paragraph of its module's docstring."""
    return "\n\n".join(_docstring(log_odds_map).split("\n\n")[1:4])


def _docstring(documented: object) -> str:
    return inspect.getdoc(documented) or ""


class _KeyRows:
    """Rows about the keys of a document: key, type and meaning.

    Args:
        definitions: Schema of each kind of object in the document, by name.
    """

    def __init__(self, definitions: Mapping[str, JsonObject]) -> None:
        self._definitions = definitions
        self._first_place: dict[str, str] = {}
        """Where a kind of object was shown first, by name: its keys are shown once."""

    def of_object(self, schema: JsonObject, prefix: str) -> Iterator[tuple[str, str, str]]:
        """Rows about the keys of an object and, below each, of what it holds.

        Args:
            schema: Of the object.
            prefix: What leads to it from the document's root, with a dot at the end.
        """
        for name, value in schema["properties"].items():
            key = f"{prefix}{name}"
            kind = _read_kind(value)
            meaning = value.get("description", "")
            inner = self._definitions.get(kind.definition)
            if inner is None:
                yield f"`{key}`", kind.words, meaning
            elif kind.definition in self._first_place:
                place = self._first_place[kind.definition]
                yield f"`{key}`", kind.words, f"{meaning} Keys as of `{place}`."
            else:
                self._first_place[kind.definition] = f"{key}{kind.suffix}"
                if _has_texts(inner):
                    yield f"`{key}`", kind.words, meaning
                    yield from self.of_object(inner, f"{key}{kind.suffix}.")
                else:
                    names = ", ".join(f"`{inner_name}`" for inner_name in inner["properties"])
                    about = f"{meaning} {inner['description']} Keys: {names}."
                    yield f"`{key}`", kind.words, about


def _has_texts(schema: JsonObject) -> bool:
    """Whether every property of an object says what it means."""
    return all("description" in value for value in schema["properties"].values())


class _Kind(NamedTuple):
    """What a value of a document is.

    Attributes:
        words: Its type, for people.
        suffix: What leads from its key to the objects in it, such as ``[]``.
        definition: Name of the kind of these objects; empty for none.
    """

    words: str
    suffix: str = ""
    definition: str = ""


def _read_kind(value: JsonObject) -> _Kind:
    """What a value is, by its schema."""
    if "$ref" in value:
        return _Kind("object", definition=value["$ref"].rpartition("/")[2])
    if "anyOf" in value:
        kinds = [_read_kind(alternative) for alternative in value["anyOf"]]
        words = " or ".join(kind.words for kind in kinds)
        return kinds[0]._replace(words=words)
    if value.get("type") == "array":
        inner = _read_kind(value.get("items") or value["prefixItems"][0])
        plural = re.sub(r"^(list|object|text|whole number|number)\b", r"\1s", inner.words)
        return _Kind(f"list of {plural}", f"[]{inner.suffix}", inner.definition)
    if isinstance(value.get("additionalProperties"), dict):
        inner = _read_kind(value["additionalProperties"])
        words = f"by name: {inner.words}"
        if inner.words.startswith("by name"):
            words = f"by name and {inner.words.removeprefix('by ')}"
        return _Kind(words, f".*{inner.suffix}", inner.definition)
    return _Kind(_words_of_types(value.get("type", "any value")))


def _words_of_types(types: str | list[str]) -> str:
    if isinstance(types, str):
        types = [types]
    return " or ".join(_TYPES.get(name, name) for name in types)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [head, (":--",) * len(head)]
    for row in rows:
        lines.append(tuple(cell.replace("|", "\\|") for cell in row))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
