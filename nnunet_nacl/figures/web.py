"""The web of a radar: spokes, rings and names, with as much room as they take."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes

from nnunet_nacl.figures.checks import format_number
from nnunet_nacl.figures.radial import RadialScale
from nnunet_nacl.figures.sheet import Sheet, line_height, text_width, widest_word, wrap
from nnunet_nacl.figures.style import INK, SMALL_SIZE

__all__ = ["Web", "spokes"]

_GRID = "#CFCFCF"
_MARGIN = 1.04  # of the axes around the rim, so that markers are whole
_AWAY = 0.125  # inches between a spoke and its label
_UPRIGHT = 0.2  # spokes that point aside by less have their label centred


def spokes(count: int) -> np.ndarray:
    """(count, 2) unit vectors, clockwise from the top."""
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


class Web:
    """Spokes, rings and labels, and the room that they take.

    Args:
        labels: Of the spokes.
        panel: Width in inches that spokes and labels may take.
        radius: Length in inches of the spokes, where the longest words of the labels leave room for it.
        size: Of the text in points.

    Attributes:
        up: Inches that spokes and labels reach above the centre.
        down: Below it.
    """

    def __init__(self, labels: Sequence[str], panel: float, radius: float, size: float) -> None:
        self._spokes, self._size, self._panel, self._longest = spokes(len(labels)), size, panel, radius
        beside = [(abs(x), label) for (x, _), label in zip(self._spokes, labels) if abs(x) >= _UPRIGHT]
        room = [(panel / 2 - 0.03 - widest_word(label, size)) / x - _AWAY for x, label in beside]
        self._radius = max(min([radius, *room]), 0.6 * radius)
        self._labels = [wrap(label, self._room(abs(x)), size) for (x, _), label in zip(self._spokes, labels)]
        self._boxes = [self._box(spoke, label) for spoke, label in zip(self._spokes, self._labels)]
        self.up, self.down = max(box[3] for box in self._boxes), -min(box[1] for box in self._boxes)

    def _room(self, x: float) -> float:
        return 1.6 if x < _UPRIGHT else min(1.6, self._panel / 2 - x * (self._radius + _AWAY) - 0.02)

    @property
    def crowded(self) -> bool:
        """Whether labels lie on each other."""
        boxes = [box for box, label in zip(self._boxes, self._labels) if label]
        return any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a, b in combinations(boxes, 2))

    def numbered(self) -> Web:
        """The same web with numbers for names, clockwise from 1 at the top, and of very many spokes only some."""
        count, step, web = len(self._spokes), 0, self
        while web.crowded:
            step += 1
            labels = ["" if i % step else str(i + 1) for i in range(count)]
            web = Web(labels, self._panel, self._longest, self._size)
        return web

    def _box(self, spoke: np.ndarray, label: str) -> tuple[float, float, float, float]:
        """Left, lower, right and upper end of a label, in inches from the centre."""
        width, height = text_width(label, self._size), (label.count("\n") + 1) * line_height(self._size)
        x, y = spoke * (self._radius + _AWAY)
        horizontal, vertical = _sides(*spoke)
        left = x - {"left": 0.0, "center": width / 2, "right": width}[horizontal]
        lower = y - {"bottom": 0.0, "center": height / 2, "top": height}[vertical]
        return left, lower, left + width, lower + height

    def draw(self, sheet: Sheet, left: float, top: float, scales: list[RadialScale], *, numbers: bool) -> Axes:
        """Draw it with its panel's upper left corner there; (0, 0) of the axes is the centre and 1 the rim."""
        side = 2 * _MARGIN * self._radius
        axis = sheet.axes(left + (self._panel - side) / 2, top + self.up - side / 2, side, side)
        ring = np.concatenate([self._spokes, self._spokes[:1]]).T
        ticks = scales[0].ticks
        for radius in [scales[0].radius(tick) for tick in ticks] or (0.2, 0.4, 0.6, 0.8, 1.0):
            axis.plot(*(ring * radius), color=_GRID, linewidth=0.8, zorder=1)
        for (x, y), label in zip(self._spokes, self._labels):
            axis.plot((0, x), (0, y), color=_GRID, linewidth=0.8, zorder=1)
            ha, va = _sides(x, y)
            axis.annotate(
                label,
                (x, y),
                xytext=(72 * _AWAY * x, 72 * _AWAY * y),
                textcoords="offset points",
                ha=ha,
                va=va,
                fontsize=self._size,
                linespacing=1.2,
                annotation_clip=False,
                gid="axis",
            )
        for tick in ticks if numbers else ():
            axis.annotate(
                format_number(tick, scales[0].decimals),
                (0, scales[0].radius(tick)),
                xytext=(-6, 0),
                textcoords="offset points",
                fontsize=SMALL_SIZE,
                ha="right",
                va="center",
                color=INK,
                zorder=4,
                gid="tick",
                bbox={"boxstyle": "square,pad=0.02", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
            )
        axis.set(xlim=(-_MARGIN, _MARGIN), ylim=(-_MARGIN, _MARGIN), aspect="equal")
        axis.axis("off")
        return axis


def _sides(x: float, y: float) -> tuple[str, str]:
    """Alignment of the label of a spoke that points there."""
    ha = "center" if abs(x) < _UPRIGHT else "left" if x > 0 else "right"
    return ha, "center" if abs(y) < 0.45 else "bottom" if y > 0 else "top"
