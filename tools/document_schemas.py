"""JSON schemas of the documents, made from the types that they are written by; the site has them as
files."""

from __future__ import annotations

import re
from typing import Any

from nnunet_nacl.calibrator import calibration_map
from nnunet_nacl.worklist import list_files, outcome

PUBLISHED: dict[str, tuple[Any, int]] = {
    "calibration_map": (calibration_map.CalibrationMap, calibration_map.SCHEMA_VERSION),
    "outcome": (outcome.Outcome, outcome.SCHEMA_VERSION),
    "prediction": (list_files.PredictionRecord, list_files.SCHEMA_VERSION),
}
"""Type and schema version of each document, by its name."""
_SECTION = re.compile(r"\n\n(?:Attributes|Raises):\n")


def schema_of(name: str) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a document as it is written; null stands for a number that is
    not defined."""
    from pydantic import TypeAdapter

    kind, version = PUBLISHED[name]
    made = _described(TypeAdapter(kind).json_schema(mode="serialization"))
    made["properties"]["schema_version"]["const"] = version
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:nnunet_nacl:{name}:{version}",
    }
    return head | made


def _described(schema: Any) -> Any:
    """A schema whose properties are described as the docstring of their class has them, without
    pydantic's titles."""
    if isinstance(schema, list):
        return [_described(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: value for key, value in schema.items() if key not in ("title", "default", "readOnly")
    }
    if "properties" not in kept:
        return {key: _described(value) for key, value in kept.items()}
    text = kept.pop("description", "")
    texts = explained(text)
    fields = {}
    for name, value in kept.pop("properties").items():
        fields[name] = _described(value)
        if found := texts.get(name, fields[name].get("description")):
            fields[name]["description"] = as_markdown(found)
    rest = {key: _described(value) for key, value in kept.items()}
    return {"description": as_markdown(_SECTION.split(text)[0]), **rest, "properties": fields}


def explained(docstring: str, section: str = "Attributes") -> dict[str, str]:
    """What a section of a docstring, without its indentation, says of each name."""
    listed = docstring.partition(f"{section}:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^ {4}(\S[^:]*): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE)
    return {name: as_markdown(text) for names, text in found for name in names.split(", ")}


def as_markdown(text: str) -> str:
    """A docstring's text in one line; undefined numbers are null, as in files."""
    text = re.sub(r":\w+:`(?:~[\w.]*\.)?([\w.]+)`", r"`\1`", text.replace("``", "`"))
    return re.sub(r"\bNaN\b", "null", " ".join(text.split()))
