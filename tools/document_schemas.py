"""JSON schemas of the documents, made from the types that they are written by; the site has them as files."""

from __future__ import annotations

import re
from typing import Any

from nnunet_nacl.documents import calibration_map, document, outcome_json, prediction_json
from nnunet_nacl.json_files import derived_of

PUBLISHED: dict[str, tuple[Any, int]] = {
    "calibration": (document.Evaluation, document.SCHEMA_VERSION),
    "calibration_map": (calibration_map.CalibrationMap, calibration_map.SCHEMA_VERSION),
    "outcome": (outcome_json.Outcome, outcome_json.SCHEMA_VERSION),
    "prediction": (prediction_json.PredictionRecord, prediction_json.SCHEMA_VERSION),
}
"""Type and schema version of each document, by its name."""


def schema_of(name: str) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a document as it is written; null stands for a number that is not defined.

    A key is required unless its default is None: reading may take less (:mod:`nnunet_nacl.documents.calibration_map`).
    """
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class AsWritten(GenerateJsonSchema):
        def float_schema(self, schema: Any) -> dict[str, Any]:
            return {"type": "number" if schema.get("strict") else ["number", "null"]}

        def field_is_required(self, field: Any, total: bool) -> bool:
            if field["type"] == "typed-dict-field":
                return super().field_is_required(field, total)
            return field["schema"].get("default", ...) is not None

        def dataclass_schema(self, schema: Any) -> dict[str, Any]:
            made, kind = super().dataclass_schema(schema), schema["cls"]
            derived = {key: getattr(kind, key) for key in derived_of(kind)}
            made["properties"].pop("blocks", None)
            made["required"] = [*derived, *(key for key in made.get("required", ()) if key != "blocks")]
            values = {
                key: self.generate_inner(TypeAdapter(value.kind).core_schema) | {"description": value.meaning}
                for key, value in derived.items()
            }
            return made | {"properties": values | made["properties"]}

    kind, version = PUBLISHED[name]
    made = _described(TypeAdapter(kind).json_schema(schema_generator=AsWritten))
    made["properties"]["schema_version"]["const"] = version
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:nnunet_nacl:{name}:{version}"}
    return head | made


def _described(schema: Any) -> Any:
    """A schema whose properties are described as the docstring of their class has them, without pydantic's titles."""
    if isinstance(schema, list):
        return [_described(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in ("title", "default")}
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
