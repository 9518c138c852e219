"""Forest plot: paired differences of each method to a reference, with their intervals over cases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from typing_extensions import Unpack

from nnunet_nacl.show.layout import (
    MAX_WIDTH,
    Frame,
    draw_interval,
    line_height,
    new_panels,
    row_height,
    set_rows,
    text_width,
    wrap,
    write_figure,
    write_in_row,
)
from nnunet_nacl.show.style import BLUE, GREY, INK, SMALL_SIZE, VERMILLION, figure_settings
from nnunet_nacl.show.values import as_interval, as_values, check_better

_ROW, _LABEL, _WIDEST, _NARROWEST = 0.27, 2.3, 4.2, 2.0  # inches
_LOOKS: dict[str, dict[str, Any]] = {
    "better": {"color": BLUE, "marker": "o", "markerfacecolor": BLUE},
    "worse": {"color": VERMILLION, "marker": "s", "markerfacecolor": VERMILLION},
    "open": {"color": GREY, "marker": "D", "markerfacecolor": "white"},
}
_POINT: dict[str, Any] = {"markersize": 6.5, "markeredgewidth": 1.2}


@dataclass(frozen=True)
class ForestRow:
    """Difference of a method to the reference under one metric.

    Attributes:
        label: The method.
        metric: Name of the metric, the heading of its panel.
        difference: Method minus reference; NaN where there is none.
        low: Lower end of its interval.
        high: Upper end.
        better: ``higher`` or ``lower`` values of the metric are better.
        n: Number of cases.
        p_value: Of a test of the difference, corrected for the number of tests.
        unit: Unit of the metric.
    """

    label: str
    metric: str
    difference: float | None
    low: float | None
    high: float | None
    better: str
    n: int | None = None
    p_value: float | None = None
    unit: str = ""

    @property
    def value(self) -> float:
        """The difference; NaN where there is none."""
        return float(as_values([self.difference], f"The difference of {self.label} in {self.metric}")[0])

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its ends, or None."""
        return as_interval((self.low, self.high), f"{self.label} in {self.metric}")

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval excludes 0, else ``open``."""
        if self.interval is None or np.isnan(self.value) or self.interval[0] <= 0 <= self.interval[1]:
            return "open"
        return "better" if (self.interval[0] > 0) == (self.better == "higher") else "worse"

    @property
    def lacks(self) -> str:
        """``value``, ``interval`` or nothing."""
        return "value" if np.isnan(self.value) else "interval" if self.interval is None else ""

    @property
    def p_text(self) -> str:
        """The p-value as it is written.

        Raises:
            ValueError: It does not lie in 0..1.
        """
        if self.p_value is None or np.isnan(self.p_value):
            return "–"
        if not 0 <= self.p_value <= 1:
            raise ValueError(f"A p-value must lie in 0..1, got {self.p_value!r}.")
        return "< 0.001" if self.p_value < 0.001 else f"{self.p_value:.3f}"


@figure_settings()
def draw_differences(
    rows: Sequence[ForestRow],
    path: str | os.PathLike,
    *,
    reference: str,
    confidence: float = 0.95,
    **frame: Unpack[Frame],
) -> Path:
    """Draw one panel per metric and one line per method; an interval that excludes 0 differs in marker and colour.

    Args:
        rows: The differences; panels and lines come in the order of their first appearance.
        reference: The method that is subtracted.
        confidence: Of the intervals, for the legend.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.

    Raises:
        ValueError: Nothing is given, a method appears twice under one metric, a metric has two units or directions, a
            value is infinite, an interval is upside down, or the suffix is not one of these.
    """
    panels = _panels(rows)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}.")
    methods = list(dict.fromkeys(row.label for row in rows))
    counts = {row.n for row in rows if row.n is not None}
    columns = [("n", {row: "" if row.n is None else str(row.n) for row in rows})] if len(counts) > 1 else []
    foot = [f"n = {counts.pop()} cases."] if len(counts) == 1 else []
    if any(row.p_value is not None for row in rows):
        foot.append("p is corrected for the number of tests, the intervals are not.")
        columns.append(("p (Holm)", {row: row.p_text for row in rows}))
    foot += [
        f"{metric}: no {what} for {', '.join(names)}."
        for metric, of in panels.items()
        for what in ("value", "interval")
        if (names := [row.label for row in of if row.lacks == what])
    ]
    labels = [wrap(method, _LABEL) for method in methods]
    side = sum(max(text_width(heading, SMALL_SIZE), 0.3) + 0.12 for heading, _ in columns)
    beside = int((MAX_WIDTH - max(map(text_width, labels))) / (_NARROWEST + side + 0.3))
    body, axes = new_panels(len(panels), min(len(panels), max(1, beside), 3), sharey=True)
    for panel, (metric, of) in zip(axes, panels.items()):
        heading = f"{metric} ({of[0].unit})" if of[0].unit else metric
        panel.set_title(heading, loc="left", fontweight="bold", pad=72 * line_height(SMALL_SIZE) + 4)
        _draw_panel(panel, of, methods)
        _draw_columns(panel, of, methods, columns)
        set_rows(panel, labels)
    size, legend = (_WIDEST, row_height(labels, _ROW, 0.02) * len(methods)), _legend(reference, confidence)
    return write_figure(body, path, size, legend=legend, remarks=foot, **frame)


def _panels(rows: Sequence[ForestRow]) -> dict[str, list[ForestRow]]:
    """The rows of each metric, looked at."""
    if not rows:
        raise ValueError("draw_differences needs at least one difference, got none.")
    panels: dict[str, list[ForestRow]] = {}
    for row in rows:
        check_better(row.better, f"better of {row.label} in {row.metric}")
        panel = panels.setdefault(row.metric, [])
        if any(other.label == row.label for other in panel):
            raise ValueError(f"{row.metric} has more than one difference of {row.label!r}.")
        if panel and (panel[0].better, panel[0].unit) != (row.better, row.unit):
            raise ValueError(
                f"{row.metric}: all differences need the same unit and direction, got "
                f"{(panel[0].better, panel[0].unit)} and {(row.better, row.unit)}."
            )
        panel.append(row)
    return panels


def _draw_panel(axes: Axes, of: list[ForestRow], methods: list[str]) -> None:
    axes.grid(True, axis="x")
    axes.axvline(0, color=INK, linewidth=1, gid="zero")
    for row in of:
        y, look = methods.index(row.label), _LOOKS[row.verdict]
        if row.lacks == "value":
            write_in_row(axes, "no value", 0.5, y, ha="center", color=GREY, style="italic")
            continue
        draw_interval(axes, y, row.interval, vertical=False, color=look["color"], gid="interval")
        point = {**_POINT, **look, "markeredgecolor": look["color"]}
        axes.plot([row.value], [y], linestyle="none", zorder=3, label=row.label, **point)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.1 * high), max(high, -0.1 * low))
    axes.spines["left"].set_visible(False)
    left, right = ("worse", "better") if of[0].better == "higher" else ("better", "worse")
    label = axes.set_xlabel(f"← {left}", loc="left")
    axes.annotate(f"{right} →", (1, 1), xycoords=("axes fraction", label), ha="right", va="top")


def _draw_columns(axes: Axes, of: list[ForestRow], methods: list[str], columns: list[tuple[str, dict]]) -> None:
    """Numbers of cases and p-values at the right of a panel."""
    right = 0.0
    for heading, texts in columns:
        right += max(text_width(heading, SMALL_SIZE), 0.3) + 0.12
        write_in_row(axes, heading, 1, -0.5, right, ha="right", va="bottom", color=GREY)
        for row in of:
            write_in_row(axes, texts[row], 1, methods.index(row.label), right, ha="right")


def _legend(reference: str, confidence: float) -> list[Line2D]:
    interval = f"the {100 * confidence:g} % interval of the difference"
    words = {
        "better": f"better than {reference}: {interval} excludes 0",
        "worse": f"worse than {reference}: {interval} excludes 0",
        "open": f"undecided: {interval} holds 0",
    }
    return [
        Line2D([], [], linewidth=1.3, markeredgecolor=look["color"], label=words[verdict], **_POINT, **look)
        for verdict, look in _LOOKS.items()
    ]
