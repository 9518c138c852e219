"""Types of the numbers in JSON files, for dataclasses that pydantic reads and writes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, WithJsonSchema, WrapValidator
from pydantic_core import core_schema


def _read_null_as_nan(value: object, read_number: Callable[[object], float]) -> float:
    if value is None or value != value:  # null, or NaN
        return math.nan
    return read_number(value)


_NAN_IS_NULL = WrapValidator(_read_null_as_nan)
_SCHEMA = WithJsonSchema({"type": ["number", "null"]})

Number = Annotated[float, Field(allow_inf_nan=False), _NAN_IS_NULL, _SCHEMA]
"""A finite number; null, which is read as NaN, where it is not defined. Infinite ones are written
as null, too."""
Size = Annotated[float, Field(ge=0, allow_inf_nan=False), _NAN_IS_NULL, _SCHEMA]
"""As :data:`Number`, not below 0."""
Share = Annotated[float, Field(ge=0, le=1 + 1e-6), _NAN_IS_NULL, _SCHEMA]
"""As :data:`Number`, from 0 to 1, but for rounding."""
LARGEST_COEFFICIENT = 1e6
"""The largest absolute value of a :data:`Coefficient`."""
Coefficient = Annotated[float, Field(ge=-LARGEST_COEFFICIENT, le=LARGEST_COEFFICIENT)]
"""A number of a model, which none that was fitted exceeds."""


def doc(text: str) -> Any:
    """What a key of a document means, for its schema and the documentation: ``Annotated[int,
    doc("Cases.")]``."""
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
        schema: core_schema.CoreSchema
        if np.issubdtype(self.dtype, np.integer):
            schema = core_schema.int_schema()
        elif self.largest is None:
            schema = core_schema.float_schema(allow_inf_nan=False)
        else:
            schema = core_schema.float_schema(
                allow_inf_nan=False, ge=-self.largest, le=self.largest
            )
        for _ in range(self.ndim):
            schema = core_schema.list_schema(schema)
        to_list = core_schema.plain_serializer_function_ser_schema(np.ndarray.tolist)
        return core_schema.no_info_after_validator_function(
            self._make_array, schema, serialization=to_list
        )

    def _make_array(self, value: list) -> np.ndarray:
        if not value:
            return np.zeros((0,) * self.ndim, self.dtype)
        try:
            return np.array(value, self.dtype)
        except (ValueError, OverflowError):  # lists of different lengths, a number beyond the type
            raise ValueError(f"no table of numbers with {self.ndim} axes") from None


def _check_numbers_of_patients(patients: np.ndarray) -> np.ndarray:
    numbers = np.unique(patients)
    # What counts by patient takes memory up to the largest number.
    if (numbers != np.arange(len(numbers))).any():
        largest = len(numbers) - 1
        raise ValueError(
            f"patients must have the numbers 0 to {largest}, the largest is {numbers[-1]}"
        )
    return patients


Patients = Annotated[np.ndarray, Array(np.int64), AfterValidator(_check_numbers_of_patients)]
"""(n,) to whom each scan belongs, numbers from 0 of which none is left out."""
