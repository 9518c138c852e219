"""Puts the numbers and directions of a figure into words."""

from __future__ import annotations

import numpy as np


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
