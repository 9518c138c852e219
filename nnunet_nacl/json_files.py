"""JSON files as typed values, by pydantic: what is wrong with one is a line with the file, the place and the remedy.

The types are dataclasses and TypedDicts; ``computed_field`` marks what a document shows and nobody reads back. Keys
that a type does not have are passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, WithJsonSchema, WrapValidator
from pydantic_core import core_schema, from_json

from nnunet_nacl.errors import UserError, describe, first_line, one_line
from nnunet_nacl.files import regular_only

_T = TypeVar("_T")
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def _or_null(value: Any, handler: Callable[[Any], float]) -> float:
    return math.nan if value is None or value != value else handler(value)


_NAN_IS_NULL, _SCHEMA = WrapValidator(_or_null), WithJsonSchema({"type": ["number", "null"]})

Number = Annotated[float, Field(allow_inf_nan=False), _NAN_IS_NULL, _SCHEMA]
"""A finite number; null, which is read as NaN, where it is not defined. Infinite ones are written as null, too."""
Size = Annotated[float, Field(ge=0, allow_inf_nan=False), _NAN_IS_NULL, _SCHEMA]
"""As :data:`Number`, not below 0."""
Share = Annotated[float, Field(ge=0, le=1 + 1e-6), _NAN_IS_NULL, _SCHEMA]
"""As :data:`Number`, from 0 to 1, but for rounding."""
LARGEST_COEFFICIENT = 1e6
Coefficient = Annotated[float, Field(ge=-LARGEST_COEFFICIENT, le=LARGEST_COEFFICIENT)]
"""A number of a model, which none that was fitted exceeds."""


@dataclass(frozen=True)
class Array:
    """How lists of finite numbers become an array: ``Annotated[np.ndarray, Array(np.int64, 2)]``.

    Attributes:
        dtype: An integer type takes whole numbers only.
        ndim: Number of axes; an empty list is an array of shape (0, ..., 0).
        largest: The largest absolute value of floats; None: any finite one.
    """

    dtype: Any
    ndim: int = 1
    largest: float | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """What pydantic asks for."""
        whole = np.issubdtype(self.dtype, np.integer)
        ends: dict[str, Any] = {} if self.largest is None else {"ge": -self.largest, "le": self.largest}
        schema: Any = core_schema.int_schema() if whole else core_schema.float_schema(allow_inf_nan=False, **ends)
        for _ in range(self.ndim):
            schema = core_schema.list_schema(schema)
        to_list = core_schema.plain_serializer_function_ser_schema(np.ndarray.tolist)
        return core_schema.no_info_after_validator_function(self._made, schema, serialization=to_list)

    def _made(self, value: list) -> np.ndarray:
        try:
            return np.array(value, self.dtype) if value else np.zeros((0,) * self.ndim, self.dtype)
        except (ValueError, OverflowError):  # lists of different lengths, a number beyond the type
            raise ValueError(f"no table of numbers with {self.ndim} axes") from None


def _numbered(patient: np.ndarray) -> np.ndarray:
    found = np.unique(patient)
    if (found != np.arange(len(found))).any():  # what counts by patient takes memory up to the largest number
        raise ValueError(f"patients must have the numbers 0 to {len(found) - 1}, the largest is {found[-1]}")
    return patient


Patients = Annotated[np.ndarray, Array(np.int64), AfterValidator(_numbered)]
"""(n,) to whom each scan belongs, numbers from 0 of which none is left out."""


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
    """A JSON value as the type that it should be of.

    Args:
        kind: A dataclass, a TypedDict, or lists, tuples and dictionaries of such and of plain values.
        value: As it was read.
        source: What the message begins with: the file, and what it is not if this fails.
        fix: What the message ends with.

    Raises:
        UserError: It is of another type, or a dataclass does not accept it (ValueError in ``__post_init__``).
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
