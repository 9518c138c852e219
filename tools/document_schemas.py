"""JSON schemas of the documents, made from the types that they are written by; the site has them as files."""

from __future__ import annotations

import re
from typing import Any

from nnunet_nacl.calibrate import calibration_map
from nnunet_nacl.review import list_files, outcome

PUBLISHED: dict[str, tuple[Any, int]] = {
    "calibration_map": (calibration_map.CalibrationMap, calibration_map.SCHEMA_VERSION),
    "outcome": (outcome.Outcome, outcome.SCHEMA_VERSION),
    "prediction": (list_files.PredictionRecord, list_files.SCHEMA_VERSION),
}
"""Type and schema version of each document, by its name."""


def schema_of(name: str) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a document as it is written; null stands for a number that is not defined."""
    from pydantic import TypeAdapter

    kind, version = PUBLISHED[name]
    made = _described(TypeAdapter(kind).json_schema(mode="serialization"))
    made["properties"]["schema_version"]["const"] = version
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:nnunet_nacl:{name}:{version}"}
    return head | made


def _described(schema: Any) -> Any:
    """A schema whose properties are described as the docstring of their class has them, without pydantic's titles."""
    if isinstance(schema, list):
        return [_described(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in ("title", "default", "readOnly")}
    if "properties" not in kept:
        return {key: _described(value) for key, value in kept.items()}
    text, _, listed = kept.get("description", "").replace("``", "`").partition("\n\n")
    attributes = listed.partition("Attributes:\n")[2].partition("\n\n")[0]
    texts = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", attributes, re.MULTILINE))
    fields = {}
    for name, value in kept["properties"].items():
        fields[name] = _described(value)
        if name in texts:
            fields[name]["description"] = " ".join(texts[name].split())
    rest = {key: _described(value) for key, value in kept.items() if key not in ("properties", "description")}
    return {"description": " ".join(text.split()), **rest, "properties": fields}
