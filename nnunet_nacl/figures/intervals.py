"""Forest plot: paired differences of each method to a reference, with their intervals over cases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from nnunet_nacl.figures.checks import as_interval, as_values, check_better, draw_interval, set_x_ticks
from nnunet_nacl.figures.sheet import Sheet, line_height, row_height, text_width, widest, wrap
from nnunet_nacl.figures.style import (
    BLUE,
    GREY,
    INK,
    MAX_WIDTH,
    SMALL_SIZE,
    TEXT_SIZE,
    VERMILLION,
    check_path,
    figure_settings,
    save_figure,
)

__all__ = ["Difference", "draw_differences"]

_ROW, _LABEL, _GAP, _BELOW = 0.27, 2.3, 0.3, 0.6  # inches
_LOOKS = {
    "better": {"color": BLUE, "marker": "o", "markerfacecolor": BLUE},
    "worse": {"color": VERMILLION, "marker": "s", "markerfacecolor": VERMILLION},
    "open": {"color": GREY, "marker": "D", "markerfacecolor": "white"},
}


@dataclass(frozen=True)
class Difference:
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
    difference: float
    low: float | None
    high: float | None
    better: str
    n: int | None = None
    p_value: float | None = None
    unit: str = ""

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval excludes 0, else ``open``."""
        interval = as_interval((self.low, self.high), f"{self.label} in {self.metric}")
        if interval is None or np.isnan(as_values([self.difference], self.label)[0]):
            return "open"
        low, high = interval
        if low <= 0 <= high:
            return "open"
        return "better" if (low > 0) == (self.better == "higher") else "worse"


def draw_differences(
    rows: Sequence[Difference],
    path: str | os.PathLike,
    *,
    reference: str,
    confidence: float = 0.95,
    p_label: str = "p (Holm)",
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    dpi: int = 150,
) -> Path:
    """Draw one panel per metric and one line per method; an interval that excludes 0 differs in marker and colour.

    Args:
        rows: The differences; panels and lines come in the order of their first appearance.
        path: Where to write; the suffix chooses PNG, SVG or PDF. Written atomically.
        reference: The method that is subtracted.
        confidence: Of the intervals, for the legend.
        p_label: Heading of the p-values.
        title: Heading of the figure.
        subtitle: Second line, for the data and how intervals and p-values were got.
        notes: Sentences at the foot.
        dpi: Resolution of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: Nothing is given, a method appears twice under one metric, a metric has two units or directions, a
            value is infinite, an interval is upside down, or the suffix is not one of these.
        OSError: The file cannot be written.
    """
    path = check_path(path)
    panels = _panels(rows)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}.")
    methods = list(dict.fromkeys(row.label for row in rows))
    counts = {row.n for row in rows if row.n is not None}
    with_p = any(row.p_value is not None for row in rows)
    foot = [f"n = {counts.pop()} cases."] if len(counts) == 1 else []
    with_n = len(counts) > 1
    if with_p:
        foot.append("p is corrected for the number of tests, the intervals are not.")
    missing = [
        f"{metric}: no {what} for {', '.join(names)}."
        for metric, of in panels.items()
        for what in ("value", "interval")
        if (names := [row.label for row in of if _lacks(row) == what])
    ]
    labels = [wrap(method, _LABEL) for method in methods]
    left = widest(labels) + 0.25
    side = (text_width(p_label, SMALL_SIZE) + 0.12 if with_p else 0) + (0.45 if with_n else 0)
    columns = min(len(panels), max(1, int((MAX_WIDTH - left) / (2.0 + side + _GAP))), 3)
    lines = -(-len(panels) // columns)
    width = min(4.2, (MAX_WIDTH - left - columns * (side + _GAP)) / columns)
    row = row_height(labels, _ROW, 0.02)
    titles = {
        metric: wrap(f"{metric} ({of[0].unit})" if of[0].unit else metric, width + side, 10)
        for metric, of in panels.items()
    }
    with figure_settings():
        head = (max(text.count("\n") for text in titles.values()) + 1) * line_height(10) + line_height(8) + 0.04
        step = head + row * len(methods) + _BELOW
        sheet = Sheet(
            left + columns * (width + side + _GAP),
            lines * step,
            title=title,
            subtitle=subtitle,
            legend=_legend(reference, confidence),
            notes=[*foot, *missing, *notes],
        )
        for i, (metric, of) in enumerate(panels.items()):
            column, line = i % columns, i // columns
            x, y = left + column * (width + side + _GAP), line * step
            sheet.text(x, y, titles[metric], fontsize=10, va="top", fontweight="bold")
            axis = sheet.axes(x, y + head, width, row * len(methods))
            _draw_panel(axis, of, methods, width)
            axis.set_yticks(np.arange(len(methods)), labels if column == 0 else [""] * len(methods), fontsize=TEXT_SIZE)
            _draw_columns(axis, of, methods, with_p, with_n, p_label, width, side)
        return save_figure(sheet.figure, path, dpi=dpi, title=title)


def _value(row: Difference) -> float:
    return float(as_values([row.difference], f"The difference of {row.label} in {row.metric}")[0])


def _lacks(row: Difference) -> str:
    if np.isnan(_value(row)):
        return "value"
    return "interval" if as_interval((row.low, row.high), row.label) is None else ""


def _panels(rows: Sequence[Difference]) -> dict[str, list[Difference]]:
    if not rows:
        raise ValueError("draw_differences needs at least one difference, got none.")
    panels: dict[str, list[Difference]] = {}
    for row in rows:
        check_better(row.better, f"better of {row.label} in {row.metric}")
        as_interval((row.low, row.high), f"{row.label} in {row.metric}")
        _value(row)
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


def _draw_panel(axis, of: list[Difference], methods: list[str], width: float) -> None:
    axis.grid(True, axis="x")
    axis.axvline(0, color=INK, linewidth=1, gid="zero")
    for row in of:
        y, value, look = methods.index(row.label), _value(row), _LOOKS[row.verdict]
        if np.isnan(value):
            axis.text(
                0.5,
                y,
                "no value",
                transform=axis.get_yaxis_transform(),
                ha="center",
                va="center",
                fontsize=SMALL_SIZE,
                color=GREY,
                style="italic",
            )
            continue
        interval = as_interval((row.low, row.high), row.label)
        draw_interval(axis, y, interval, vertical=False, color=look["color"], gid="interval")
        axis.plot(
            [value],
            [y],
            linestyle="none",
            markersize=6.5,
            markeredgewidth=1.2,
            markeredgecolor=look["color"],
            marker=look["marker"],
            markerfacecolor=look["markerfacecolor"],
            zorder=3,
            label=row.label,
        )
    low, high = axis.get_xlim()
    axis.set_xlim(min(low, -0.1 * high), max(high, -0.1 * low))
    axis.set_ylim(len(methods) - 0.5, -0.5)
    set_x_ticks(axis, width)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    left, right = ("worse", "better") if of[0].better == "higher" else ("better", "worse")
    # em spaces: an SVG joins several blanks into one
    axis.set_xlabel(f"← {left}\u2003\u2003{right} →")


def _draw_columns(axis, of, methods, with_p: bool, with_n: bool, p_label: str, width: float, side: float) -> None:
    """p-values and numbers of cases at the right of a panel."""
    texts = []
    if with_n:
        texts.append(("n", 0.42, {row.label: "" if row.n is None else str(row.n) for row in of}))
    if with_p:
        texts.append((p_label, side - 0.04, {row.label: _format_p(row.p_value) for row in of}))
    for heading, right, by_method in texts:
        x = 1 + right / width
        axis.text(
            x,
            -0.5,
            heading,
            transform=axis.get_yaxis_transform(),
            ha="right",
            va="bottom",
            fontsize=SMALL_SIZE,
            color=GREY,
        )
        for method, text in by_method.items():
            axis.text(
                x,
                methods.index(method),
                text,
                transform=axis.get_yaxis_transform(),
                ha="right",
                va="center",
                fontsize=SMALL_SIZE,
            )


def _format_p(p_value: float | None) -> str:
    if p_value is None or np.isnan(p_value):
        return "–"
    if not 0 <= p_value <= 1:
        raise ValueError(f"A p-value must lie in 0..1, got {p_value!r}.")
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _legend(reference: str, confidence: float) -> list[Line2D]:
    interval = f"the {100 * confidence:g} % interval of the difference"
    words = {
        "better": f"better than {reference}: {interval} excludes 0",
        "worse": f"worse than {reference}: {interval} excludes 0",
        "open": f"undecided: {interval} holds 0",
    }
    return [
        Line2D(
            [],
            [],
            linewidth=1.3,
            markersize=6.5,
            markeredgewidth=1.2,
            markeredgecolor=look["color"],
            label=words[verdict],
            **look,
        )
        for verdict, look in _LOOKS.items()
    ]
