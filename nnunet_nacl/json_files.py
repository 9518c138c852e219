"""Reads JSON files, and turns what they hold into typed values and back; errors name the file and the place in it.

Types describe what a document looks like: a dataclass, a TypedDict, or lists and dictionaries of such. A
dataclass may have :class:`Derived` values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from nnunet_nacl.errors import UserError, describe, printable
from nnunet_nacl.files import regular_only

_T = TypeVar("_T")
_FIX = "give nnU-Net's own file"
_DEEPEST = 100
_NOT_SCHEMA = ("cls", "default", "metadata", "serialization", "strict")
_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "list": "a list"}
_WORDS |= dict.fromkeys(("dict", "dataclass"), "an object")


class Derived(cached_property[_T]):
    """A value of a dataclass that follows from its fields: documents show it before them, and it is not read back.

    ``value`` gives it, of the type ``kind``, for an instance, and is called once; the schema has its ``meaning``.
    """

    def __init__(self, kind: type[_T], value: Callable[[Any], _T], meaning: str) -> None:
        super().__init__(value)
        self.kind, self.meaning = kind, meaning


@cache
def derived_of(kind: type) -> tuple[str, ...]:
    """Names of the :class:`Derived` values of a class."""
    return tuple(name for name, value in vars(kind).items() if isinstance(value, Derived))


@dataclass(frozen=True)
class Array:
    """How lists of numbers become an array: ``Annotated[np.ndarray, Array(np.int64, 2)]`` as the type of a field.

    Attributes:
        dtype: An integer type takes whole numbers only.
        ndim: Number of axes; an empty list is an array of shape (0, ..., 0).
    """

    dtype: Any
    ndim: int = 1

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """What pydantic asks for."""
        from pydantic_core import core_schema

        whole = np.issubdtype(self.dtype, np.integer)
        schema: Any = core_schema.int_schema(strict=True) if whole else core_schema.float_schema(strict=True)
        for _ in range(self.ndim):
            schema = core_schema.list_schema(schema)
        return core_schema.no_info_after_validator_function(self._made, schema)

    def _made(self, value: list) -> np.ndarray:
        if not value:
            return np.zeros((0,) * self.ndim, self.dtype)
        try:
            return np.array(value, self.dtype)
        except (ValueError, OverflowError):  # lists of different lengths, a number beyond the type
            raise ValueError(f"no table of numbers with {self.ndim} axes") from None


def read_json(path: Path, *, fix: str = "restore it") -> Any:
    """The content of a JSON file.

    Args:
        path: The file.
        fix: What the message about damaged content ends with.

    Raises:
        UserError: It is missing, unreadable or not JSON.
    """
    try:
        with open(path, encoding="utf-8", opener=regular_only) as file:
            return parse_json(file.read())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except OSError as error:
        raise UserError(describe(error, path)) from None
    except ValueError as error:  # covers bad JSON and bad UTF-8
        raise UserError(f"{path}: not a JSON file ({first_line(error)}); {fix}.") from None


def parse_json(text: str) -> Any:
    """The value that a JSON text stands for.

    Raises:
        ValueError: It is not JSON, is nested too deeply for whoever writes it again, or holds text that no file and no
            terminal takes.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(_DEEPEST):
        outer = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = list(chain.from_iterable(outer))
    if level:
        raise ValueError("nested too deeply")
    if re.search(r"\\u[dD][89a-fA-F]", text):  # half of a pair of characters; names that are not UTF-8 have such, too
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    return value


def read_dict(path: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object; UserError where ``read_json`` raises it or it is none."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(content).__name__}; {_FIX}.")
    return content


def decode(kind: type[_T], value: Any, source: str | Path, *, fix: str = _FIX) -> _T:
    """A JSON value as the type that it should be of.

    Nothing is converted but a whole number to a floating-point one, null to NaN where a ``float`` is expected, a list
    to a tuple or an :class:`Array`, and an object to a dataclass. Keys that the type does not have are passed over.

    Args:
        kind: A dataclass, a TypedDict, or lists, tuples and dictionaries of such and of plain values.
        value: As it was read.
        source: What the message begins with: the file, and what it is not if this fails.
        fix: What the message ends with.

    Raises:
        UserError: It is of another type, or a dataclass does not accept it (ValueError in ``__post_init__``); one line
            that names the place and what was found there.
    """
    from pydantic_core import ValidationError

    try:
        return _validator(cast(Any, kind)).validate_python(value)
    except ValidationError as error:
        problem = _described(error.errors(include_url=False)[0], value)
    except OverflowError as error:  # numbers beyond any float
        problem = first_line(error)
    raise UserError(one_line(f"{source}: {problem}; {fix}."))


def fits(kind: Any, value: Any) -> bool:
    """Whether :func:`decode` would take a JSON value."""
    try:
        decode(kind, value, "")
    except UserError:
        return False
    return True


@cache
def _validator(kind: Any) -> Any:
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    return SchemaValidator(_strict(TypeAdapter(kind).core_schema))


def _strict(schema: Any) -> Any:
    """A schema of pydantic that converts no plain value into another, but null to NaN where that is not strict already.

    Its own strict mode takes no object for a dataclass and no list for a tuple.
    """
    from pydantic_core import core_schema

    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if isinstance(schema, tuple):
        return tuple(_strict(item) for item in schema)
    if not isinstance(schema, dict):
        return schema
    schema = {key: item if key in _NOT_SCHEMA else _strict(item) for key, item in schema.items()}
    if schema.get("type") in ("int", "str", "bool"):
        schema["strict"] = True
    if schema.get("type") == "float" and not schema.get("strict"):
        return core_schema.no_info_before_validator_function(_nan_for_null, schema | {"strict": True})
    return schema


def _nan_for_null(value: Any) -> Any:
    return float("nan") if value is None else value


def _described(error: Any, whole: Any) -> str:
    """What pydantic found first, in words: where, and what stands there."""
    kind, found = error["type"], error["input"]
    place = ""
    for part in error["loc"]:
        place += f".{part}" if isinstance(part, str) and part.isidentifier() else f"[{part!r}]"
    place = place.removeprefix(".")
    if kind == "missing":
        place, _, key = place.rpartition(".")
        return f"{place or 'it'} has no {key!r}"
    if kind == "value_error":
        return f"{place}: {first_line(error['ctx']['error'])}".removeprefix(": ").rstrip(".")
    text = repr(found) if isinstance(found, (int, float, str)) else ""
    found_there = f"{place or 'the whole'} is {type(found).__name__} {text[:60]}".rstrip()
    wanted = _WORDS.get(kind.partition("_")[0])
    return f"{found_there}, not {wanted}" if wanted else f"{found_there} ({error['msg']})"


def encode(value: Any) -> Any:
    """Plain JSON values of dataclasses, arrays, and dictionaries and lists of such; NaN stays NaN."""
    if is_dataclass(value) and not isinstance(value, type):
        names = (*derived_of(type(value)), *(field.name for field in fields(value)))
        return {name: encode(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def one_line(text: str) -> str:
    """The text with line breaks and whatever else cannot be printed escaped: file names may hold anything."""
    return printable(text, "")


def first_line(error: BaseException) -> str:
    """The first line of an error that says something; SimpleITK's begin with a place in its own source."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("Exception thrown in SimpleITK")]
    return lines[0].removeprefix("sitk::ERROR: ") if lines else type(error).__name__
