"""What a figure is before it is drawn, and how its numbers are put into words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Picture", "listed", "pair"]


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        id: Name of its files.
        title: Heading.
        subtitle: Second line of the figure: data, number of cases, what the intervals are.
        caption: What it shows and how it is read.
        alt: Its numbers in one or two sentences, for whoever cannot see it.
        draw: Function of (path, title, subtitle, notes) of the report package with everything else bound.
        dataset: Name of the data set, None if it is about several.
    """

    id: str
    title: str
    subtitle: str
    caption: str
    alt: str
    draw: Callable[..., Path]
    dataset: str | None = None


def listed(values: Iterable[tuple[str, float]], decimals: int = 3) -> str:
    """``CE 0.054, NACL 0.057``; what is undefined is called so."""
    return ", ".join(f"{name} {'undefined' if math.isnan(v) else f'{v:.{decimals}f}'}" for name, v in values)


def pair(low: float, high: float) -> tuple[float, float] | None:
    """An interval for the report's functions: None where it is undefined."""
    return None if math.isnan(low) or math.isnan(high) else (low, high)
