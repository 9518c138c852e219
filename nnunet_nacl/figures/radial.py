"""Where values lie on the spokes of a radar: always outward for better ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from nnunet_nacl.figures.checks import STEPS, format_number

__all__ = ["RadialScale", "common_scale", "own_scales"]

_INNER = 0.2  # share of the radius at which the worst value lies where an axis has its own range


@dataclass(frozen=True)
class RadialScale:
    """A spoke.

    Attributes:
        center: Value at the centre.
        rim: Value at the rim, the better end.
        ticks: Values of the rings; none where every axis has its own range.
        extremes: Worst and best value that is drawn, of an axis with its own range; NaN where there is none.
    """

    center: float
    rim: float
    ticks: tuple[float, ...] = ()
    extremes: tuple[float, float] = (np.nan, np.nan)

    def radius(self, value: float) -> float:
        """Distance from the centre as a share of the radius; NaN for NaN."""
        return (value - self.center) / (self.rim - self.center)

    @property
    def decimals(self) -> int:
        """As many as the ticks need."""
        return next(n for n in range(10) if all(abs(round(tick, n) - tick) < 1e-9 for tick in self.ticks) or n == 9)

    def describe(self, decimals: int) -> str:
        """The worst and the best value drawn on a spoke with a range of its own."""
        worst, best = (format_number(value, decimals) for value in self.extremes)
        return worst if worst == best else f"{worst} to {best}"


def common_scale(table: np.ndarray, better: str) -> list[RadialScale]:
    """One scale for all columns: round numbers at the centre and at the rim, the worst value off the centre."""
    low, high = _range(table)
    spread = (high - low) or abs(high) * 0.1 or 1.0
    sign = 1 if better == "higher" else -1
    worst, best = (low, high) if sign > 0 else (high, low)
    ends = sorted((worst - sign * 0.25 * spread, best))
    if low >= 0 and ends[0] < 0:  # a metric without negative values gets no negative ring
        ends[0] = 0.0
    if ends[0] == ends[1]:  # all are 0, and lower would be negative
        ends[1] += spread
    ticks = MaxNLocator(6, steps=STEPS).tick_values(*ends)
    ticks = [float(np.round(tick, 10)) for tick in ticks]
    center, rim = (ticks[0], ticks[-1]) if sign > 0 else (ticks[-1], ticks[0])
    return [RadialScale(center, rim, tuple(tick for tick in ticks if tick != center))] * table.shape[1]


def own_scales(table: np.ndarray, better: str) -> list[RadialScale]:
    """A scale per column: its best value at the rim, its worst at a fifth of the radius."""
    scales = []
    for column in table.T:
        low, high = _range(column)
        extremes = (low, high) if better == "higher" else (high, low)
        if low == high:  # one value lies in the middle
            low, high = low - (abs(low) * 0.01 or 0.01), high + (abs(high) * 0.01 or 0.01)
        worst, best = (low, high) if better == "higher" else (high, low)
        known = not np.isnan(column).all()
        scales.append(RadialScale(best - (best - worst) / (1 - _INNER), best, (), extremes if known else (np.nan,) * 2))
    return scales


def _range(values: np.ndarray) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
