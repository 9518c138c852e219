"""Reads and writes JSON files as typed values, by pydantic; an error names the file, the place in
it and the fix."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator, from_json

from nnunet_nacl.utilities.errors import UserError, describe, first_line, one_line
from nnunet_nacl.utilities.files import regular_only

_T = TypeVar("_T")

_CONTAINERS = {"list", "tuple", "set", "frozenset", "dict"}


def _make_validator(kind: object) -> SchemaValidator:
    """Pydantic's reader of a type, which goes on to the first wrong value of a list or dictionary.

    Every error takes a kilobyte, so all those of a small file that was made for it can take all
    memory.
    """
    return SchemaValidator(_stopping_early(_adapter(kind).core_schema))


# Pydantic's writer and reader of a type, which take long to make.
_adapter: Callable[[object], TypeAdapter] = cache(TypeAdapter)
_validator: Callable[[object], SchemaValidator] = cache(_make_validator)


def _stopping_early(schema: Any) -> Any:
    """A schema of pydantic, or a part of it, with ``fail_fast`` in every container."""
    if isinstance(schema, (list, tuple)):
        return type(schema)(_stopping_early(part) for part in schema)
    if not isinstance(schema, dict):
        return schema
    stopping = {key: _stopping_early(part) for key, part in schema.items()}
    if schema.get("type") in _CONTAINERS:
        stopping["fail_fast"] = True
    return stopping


def read_json(path: Path, *, fix: str = "restore it") -> Any:
    """The content of a JSON file.

    Raises:
        UserError: It is missing, unreadable or not JSON; the message ends with ``fix``.
    """
    try:
        with open(path, "rb", opener=regular_only) as file:
            return from_json(file.read())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except OSError as error:
        raise UserError(describe(error, path)) from None
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({first_line(error)}); {fix}.") from None


def read_dict(path: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object; UserError where it does not."""
    return decode(dict[str, Any], read_json(path), path)


def decode(
    kind: type[_T], value: object, source: str | Path, *, fix: str = "give nnU-Net's own file"
) -> _T:
    """A JSON value as a dataclass, a TypedDict, or lists, tuples and dictionaries of such; other
    keys are passed over.

    Raises:
        UserError: It is of another type, or a dataclass does not accept it (ValueError in
            ``__post_init__``); the message begins with ``source`` and ends with ``fix``.
    """
    try:
        return _validator(kind).validate_python(value)
    except ValidationError as error:
        problem = _describe_first_problem(error)
    except OverflowError as error:  # numbers beyond any float
        problem = first_line(error)
    raise UserError(one_line(f"{source}: {problem}; {fix}.")) from None


def _describe_first_problem(error: ValidationError) -> str:
    """Where in the document the first problem is, what it is, and the value that was found if it is
    a short one."""
    first = error.errors(include_url=False)[0]
    problem = first["msg"].removeprefix("Value error, ").rstrip(".")
    value = first["input"]
    if isinstance(value, (bool, int, float, str)) and first["type"] != "value_error":
        problem += f", not {value!r:.60}"
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {problem}" if place else problem


def encode(value: object) -> Any:
    """Plain JSON values of a dataclass, or of dictionaries and lists of such and of arrays; NaN
    stays NaN."""
    return _adapter(type(value)).dump_python(
        value, mode="json", warnings=False, fallback=lambda array: array.tolist()
    )
