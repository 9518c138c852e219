"""Looks at what a figure is to draw before it is drawn, and draws what several figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from nnunet_nacl.figures.sheet import text_width
from nnunet_nacl.figures.style import SMALL_SIZE

__all__ = [
    "STEPS",
    "arrow",
    "as_interval",
    "as_values",
    "check_better",
    "direction",
    "draw_interval",
    "format_number",
    "set_x_ticks",
]

STEPS = [1, 2, 2.5, 5, 10]  # between the ticks of an axis


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


def as_interval(interval: Sequence[float] | None, name: str) -> tuple[float, float] | None:
    """(low, high), or None where there is none or one of its ends is NaN.

    Raises:
        ValueError: It is no pair, or low is above high.
    """
    if interval is None:
        return None
    low, high = as_values(interval, f"The interval of {name}", 2)
    if np.isnan(low) or np.isnan(high):
        return None
    if low > high:
        raise ValueError(f"The interval of {name} must run from low to high, got ({low}, {high}).")
    return float(low), float(high)


def check_better(better: str, name: str = "better") -> str:
    """ValueError unless it is ``higher`` or ``lower``."""
    if better not in ("higher", "lower"):
        raise ValueError(f"{name} must be 'higher' or 'lower', got {better!r}.")
    return better


def direction(better: str) -> str:
    """The words that stand beside a metric's name."""
    return f"{better} is better"


def arrow(better: str) -> str:
    """Points to where the better values lie; beside a vertical axis it is turned together with its text."""
    return {"higher": "→", "lower": "←"}[better]


def format_number(value: float, decimals: int = 3) -> str:
    """Fixed decimals with a true minus sign; a dash where there is no value."""
    if np.isnan(value):
        return "–"
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def draw_interval(
    axis,
    position: float,
    interval: tuple[float, float] | None,
    *,
    vertical: bool,
    color: str,
    alpha: float = 1.0,
    transform=None,
    gid: str | None = None,
) -> None:
    """A line from low to high with a cap at either end."""
    if interval is None:
        return
    ends = ((position, position), interval) if vertical else (interval, (position, position))
    axis.plot(
        *ends,
        color=color,
        linewidth=1.3,
        alpha=alpha,
        marker="_" if vertical else "|",
        markersize=5,
        markeredgewidth=1.3,
        markeredgecolor=color,
        zorder=2.5,
        gid=gid,
        label="_interval",
        solid_capstyle="butt",
        transform=axis.transData if transform is None else transform,
    )


def set_x_ticks(axis, width: float, most: int = 6) -> None:
    """Round ticks on a horizontal axis ``width`` inches wide, as many as have room for their numbers."""
    low, high = axis.get_xlim()
    for count in range(most, 1, -1):
        locator = MaxNLocator(count, steps=STEPS)
        ticks = locator.tick_values(low, high)
        step = ticks[1] - ticks[0]
        decimals = next((n for n in range(9) if np.allclose(ticks, np.round(ticks, n), rtol=0, atol=step / 100)), 9)
        numbers = max(text_width(format_number(tick, decimals), SMALL_SIZE) for tick in ticks)
        if numbers + 0.12 <= step / (high - low) * width:
            break
    axis.xaxis.set_major_locator(locator)
