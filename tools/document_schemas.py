"""JSON schemas of the documents, made from the types that they are written by; the site has them
as files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from nnunet_nacl.calibration import calibration_map
from nnunet_nacl.comparison import calibration_report, comparison_report
from nnunet_nacl.nnunet import tuned
from nnunet_nacl.worklist import prediction_document
from nnunet_nacl.worklist.outcome import document as outcome_document
from tools.docstrings import as_markdown, described_attributes, text_before_sections

JsonObject = dict[str, Any]
"""A JSON schema, or a part of one: anything that JSON can hold."""


class Document(NamedTuple):
    """A JSON file that commands write: the type of its content, and the version of its form."""

    type: type
    schema_version: int


PUBLISHED = {
    "calibration": Document(
        calibration_report.CalibrationReport, calibration_report.SCHEMA_VERSION
    ),
    "comparison": Document(comparison_report.ComparisonReport, comparison_report.SCHEMA_VERSION),
    "calibration_map": Document(calibration_map.CalibrationMap, calibration_map.SCHEMA_VERSION),
    "outcome": Document(outcome_document.Outcome, outcome_document.SCHEMA_VERSION),
    "tuned": Document(tuned.TunedNetwork, tuned.SCHEMA_VERSION),
    "prediction": Document(
        prediction_document.PredictionRecord, prediction_document.SCHEMA_VERSION
    ),
}
"""By name of the file, without .json."""

_LEFT_OUT = ("title", "default", "readOnly")
"""Of what pydantic says of a value: repetitions of its name, and what matters to Python alone."""


def schema_of(name: str) -> JsonObject:
    """JSON schema (draft 2020-12) of a document as it is written; null stands for a number that is
    not defined."""
    document = PUBLISHED[name]
    content = _describe(TypeAdapter(document.type).json_schema(mode="serialization"))
    content["properties"]["schema_version"]["const"] = document.schema_version
    identity = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:nnunet_nacl:{name}:{document.schema_version}",
    }
    return identity | content


def _describe(schema: Any) -> Any:
    """A schema of pydantic's, or a part of one, whose objects and properties say what they mean.

    Pydantic takes the docstring of a class for the description of an object. Of a property without
    a text of its own the docstring's section Attributes says what it means.
    """
    if isinstance(schema, list):
        return [_describe(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in _LEFT_OUT}
    if "properties" not in kept:
        return {key: _describe(value) for key, value in kept.items()}
    docstring = kept.pop("description", "")
    properties = _describe_properties(kept.pop("properties"), docstring)
    others = {key: _describe(value) for key, value in kept.items()}
    return {"description": text_before_sections(docstring), **others, "properties": properties}


def _describe_properties(properties: Mapping[str, JsonObject], docstring: str) -> JsonObject:
    """The properties of an object by their name, with what their class's docstring says of them."""
    by_docstring = described_attributes(docstring)
    described = {}
    for name, schema in properties.items():
        described[name] = _describe(schema)
        text = by_docstring.get(name, described[name].get("description"))
        if text is not None:
            described[name]["description"] = as_markdown(text)
    return described
