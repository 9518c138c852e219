"""Pickles of numbers that NumPy reads but never writes.

With some of them it would follow an address that stands in the file.
"""

from __future__ import annotations

import copyreg

import numpy as np

SCALAR = np.float64(0).__reduce__()[0]
STATE = (3, "|", None, None, None, -1, -1, 0)
"""What NumPy writes of a dtype: version, order, subarray, names, fields, size, alignment, flags."""
BYTES = b"A" * 8


class Crafted:
    """Pickles as a call, perhaps with a state."""

    def __init__(self, *reduced: object) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple:
        return self.reduced


class WithoutCall(Crafted):
    """A dtype that is made without its constructor, to which pickle holds the class."""

    __class__ = np.dtype  # type: ignore[assignment]


def dtype(kind: str, *state: object) -> Crafted:
    return Crafted(np.dtype, (kind, False, True), state or STATE)


def number(dtype_of_number: object, data: bytes = BYTES) -> Crafted:
    return Crafted(SCALAR, (dtype_of_number, data))


FIELDS = {"a": (dtype("O"), 0)}
CRAFTED = {
    "address": number(dtype("O")),
    "address_without_call": number(
        WithoutCall(copyreg.__newobj__, (np.dtype, "O", False, True), STATE)
    ),
    "fields": number(dtype("f8", 3, "<", None, ("a",), FIELDS, -1, -1, 0)),
    "flags": number(dtype("f8", 3, "<", None, None, None, -1, -1, 4)),
    "no_dtype": number("f8"),
    "order": number(dtype("f8", 3, "O,", None, None, None, -1, -1, 0)),
    "record": number(dtype("V8", 3, "|", None, ("a",), FIELDS, 8, 1, 0)),
    "short": number(dtype("f8"), b"A"),
    "size": number(dtype("f8", 3, "<", None, None, None, 1 << 30, -1, 0)),
    "subarray": number(dtype("f8", 3, "<", (dtype("O"), (2,)), None, None, -1, -1, 0)),
}
