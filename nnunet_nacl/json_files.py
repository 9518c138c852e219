"""Reads and writes JSON files as typed values, by pydantic; an error names the file, the place in it and the fix."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from nnunet_nacl.errors import UserError, describe, first_line, one_line
from nnunet_nacl.files import regular_only

_T = TypeVar("_T")
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def read_json(path: Path, *, fix: str = "restore it") -> Any:
    """The content of a JSON file; UserError, which ends with ``fix``, where it is missing, unreadable or not JSON."""
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


def decode(kind: type[_T], value: Any, source: str | Path, *, fix: str = "give nnU-Net's own file") -> _T:
    """A JSON value as a dataclass, a TypedDict, or lists, tuples and dictionaries of such; other keys are passed over.

    UserError, which begins with ``source`` and ends with ``fix``, where it is of another type, or a dataclass does not
    accept it (ValueError in ``__post_init__``).
    """
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place, found = ".".join(map(str, first["loc"])), first["input"]
        problem = first["msg"].removeprefix("Value error, ").rstrip(".")
        if isinstance(found, (bool, int, float, str)) and first["type"] != "value_error":
            problem += f", not {found!r:.60}"
    except OverflowError as error:  # numbers beyond any float
        place, problem = "", first_line(error)
    raise UserError(one_line(f"{source}: {place and f'{place}: '}{problem}; {fix}.")) from None


def encode(value: Any) -> Any:
    """Plain JSON values of a dataclass, or of dictionaries and lists of such and of arrays; NaN stays NaN."""
    made = _adapter(type(value))
    return made.dump_python(value, mode="json", warnings=False, fallback=lambda array: array.tolist())
