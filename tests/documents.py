"""Whether a document that a command wrote is as its type, and so the site's page of files, says."""

from __future__ import annotations

from typing import Any

import jsonschema

from tools.document_schemas import schema_of


def check_document(name: str, content: dict[str, Any]) -> None:
    """Fails where the content is not of the document's schema, or has a key that it lacks.

    Args:
        name: As in :data:`tools.document_schemas.PUBLISHED`.
        content: Of the file.
    """
    jsonschema.Draft202012Validator(_without_other_keys(schema_of(name))).validate(content)


def _without_other_keys(schema: Any) -> Any:
    """The schema, in which no object may have a key that is not in it: to readers keys may be
    added."""
    if isinstance(schema, list):
        return [_without_other_keys(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _without_other_keys(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict):
        strict.setdefault("additionalProperties", False)
    return strict
