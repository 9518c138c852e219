"""Looks at the numbers and directions that a figure is to draw, and puts them into words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def as_values(values: Any, name: str, length: int | None = None) -> np.ndarray:
    """Float array of one dimension; None and NaN mean "no value".

    Raises:
        ValueError: A value is infinite or no number, or there are not ``length`` of them.
    """
    try:
        array = np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers (None or NaN where there is none), got {values!r}.") from None
    if length is not None and len(array) != length:
        raise ValueError(f"{name} must have {length} values, got {len(array)}.")
    if np.isinf(array).any():
        raise ValueError(f"{name} must be finite (None or NaN where there is no value), got {array.tolist()}.")
    return array


def as_interval(interval: Sequence[float | None] | None, name: str) -> tuple[float, float] | None:
    """(low, high), or None where there is none or one of its ends is NaN.

    Raises:
        ValueError: It is no pair, or low is above high.
    """
    if interval is None:
        return None
    low, high = as_values(interval, f"The interval of {name}", 2)
    if low > high:
        raise ValueError(f"The interval of {name} must run from low to high, got ({low}, {high}).")
    return None if np.isnan(low + high) else (float(low), float(high))


def check_better(better: str | None, name: str = "better") -> str:
    """ValueError unless it is ``higher`` or ``lower``."""
    if better not in ("higher", "lower"):
        raise ValueError(f"{name} must be 'higher' or 'lower', got {better!r}.")
    return better


def with_direction(what: str, better: str) -> str:
    """Label of an axis, with an arrow to its better values; beside a vertical axis it is turned with the text."""
    words = f"{better} is better {'→' if better == 'higher' else '←'}"
    return f"{what}, {words}" if what else words


def format_number(value: float, decimals: int = 3) -> str:
    """Fixed decimals with a true minus sign; a dash where there is no value."""
    if np.isnan(value):
        return "–"
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def format_signed(value: float, decimals: int = 3) -> str:
    """The same with a plus sign before what is above 0 as it is shown."""
    text = format_number(value, decimals)
    return f"+{text}" if value > 0 and float(text) else text
