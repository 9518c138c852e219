"""What a campaign file may say, as a JSON schema, and what is wrong with one, a line each."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from nnunet_nacl.comparison.entries import TREATMENTS

__all__ = ["DEFAULTS", "SCHEMA", "schema_problems"]

TREATED = [*TREATMENTS, "+".join(TREATMENTS)]

_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 1}
_NAME = {"type": "string", "pattern": r"^[A-Za-z0-9._-]+$"}  # of files
_FOLDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True}
_NAMES = {"type": "array", "items": _TEXT, "minItems": 1, "uniqueItems": True}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["datasets", "configurations", "trainers"],
    "properties": {
        "datasets": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "dataset": {"type": ["integer", "string"], "description": "name or number in nnUNet_raw"},
                    "challenge": {**_TEXT, "description": "of `nnunet_nacl prepare`"},
                    "folder": {**_TEXT, "description": "the challenge's folder"},
                    "native": {"type": "boolean", "description": "of `nnunet_nacl prepare`"},
                    "split_seed": {"type": "integer", "minimum": 0, "description": "of `nnunet_nacl prepare`"},
                    "number": {**_COUNT, "description": "of `nnunet_nacl prepare`"},
                    "decathlon": {**_TEXT, "description": "a task's folder, TaskNN_Name"},
                    "folds": {**_FOLDS, "description": "of this data set, instead of the campaign's"},
                },
            },
        },
        "configurations": {**_NAMES, "items": _NAME},
        "plans": {**_NAME, "default": "nnUNetPlans"},
        "after_planning": {
            **_TEXT,
            "description": "command run between planning and preprocessing; {plans_folder} is where the plans lie, "
            "{here} the folder of the campaign file",
        },
        "folds": {**_FOLDS, "default": [0, 1, 2, 3, 4]},
        "trainers": _NAMES,
        "seeds": {"type": "array", "items": _COUNT, "uniqueItems": True, "default": []},
        "treatments": {"type": "array", "items": {"enum": TREATED}, "uniqueItems": True, "default": []},
        "cases": {"enum": ["validation", "test"], "default": "validation"},
        "comparisons": {"type": "object", "propertyNames": _NAME, "additionalProperties": {**_NAMES, "minItems": 2}},
        "device": {"enum": ["cuda", "cpu", "mps"], "default": "cuda"},
        "threads": {**_COUNT, "description": "CPU cores of a training", "default": 1},
        "processes": {**_COUNT, "description": "cases measured or preprocessed at the same time", "default": 1},
    },
}

DEFAULTS = {key: entry["default"] for key, entry in SCHEMA["properties"].items() if "default" in entry}


def schema_problems(content: Any) -> list[str]:
    """What of a campaign file does not follow the schema: where, which value, and what would be right."""
    import jsonschema

    found = jsonschema.Draft202012Validator(SCHEMA).iter_errors(content)
    return [line for error in sorted(found, key=lambda one: list(map(str, one.absolute_path))) for line in _told(error)]


def _told(error: Any) -> Iterator[str]:
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.absolute_path).lstrip(".")
    at, known = f"{place}: " if place else "", error.schema.get("properties", {})
    if error.validator == "additionalProperties":
        for key in sorted(set(map(str, error.instance)) - set(known)):
            yield f"{at}unknown key {key!r}; {_nearest(key, known)}"
    elif error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance and repr(key) in error.message)
        yield f"{at}the key {missing!r} is missing"
    elif error.validator == "enum":
        yield f"{at}{error.instance!r} is not allowed; {_nearest(str(error.instance), error.validator_value)}"
    elif error.validator == "type":
        wanted = error.validator_value
        names = " or ".join(wanted if isinstance(wanted, list) else [wanted])
        names = names.replace("object", "mapping").replace("array", "list")
        yield f"{at}expected {names}, got {error.instance!r}"
    else:  # jsonschema's own words name the value and the rule
        yield f"{at}{error.message}"


def _nearest(given: str, known: Any) -> str:
    close = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
