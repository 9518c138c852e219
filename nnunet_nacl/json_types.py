"""Types of the numbers in JSON files, for dataclasses that pydantic reads and writes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, WithJsonSchema, WrapValidator
from pydantic_core import core_schema


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


def doc(text: str) -> Any:
    """What a key of a document means, for its schema and the documentation: ``Annotated[int, doc("Cases.")]``."""
    return Field(description=text)


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
