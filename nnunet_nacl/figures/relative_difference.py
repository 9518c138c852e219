"""Relative difference between two methods under several metrics, in percent (as fig. 7 of the NACL paper)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from nnunet_nacl.figures.checks import (
    STEPS,
    as_interval,
    as_values,
    check_better,
    direction,
    draw_interval,
    format_number,
)
from nnunet_nacl.figures.sheet import Sheet, line_height, row_height, widest, wrap
from nnunet_nacl.figures.style import (
    BLUE,
    GREY,
    INK,
    MAX_WIDTH,
    ORANGE,
    SMALL_SIZE,
    TEXT_SIZE,
    check_path,
    figure_settings,
    save_figure,
)

__all__ = ["draw_relative_difference"]

_LIMIT = 150.0  # percent; a longer bar would make all others invisible
_ROW, _BAR, _LABEL = 0.34, 0.62, 3.0


def draw_relative_difference(
    metrics: Sequence[str],
    percent: Sequence[float],
    intervals: Sequence[tuple[float, float] | None] | None,
    better: Sequence[str],
    path: str | os.PathLike,
    *,
    first: str,
    second: str,
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    dpi: int = 150,
) -> Path:
    """Draw a bar per metric: 100 * (second - first) / first. Better and worse differ in colour and in hatching.

    Bars beyond 150 % are cut, marked and their numbers written, so that the others stay visible.

    Args:
        metrics: Names, from the top.
        percent: Difference of ``second`` in percent of ``first``; NaN where there is none.
        intervals: (low, high) of each in percent, or None; None for no intervals at all.
        better: ``higher`` or ``lower`` for each metric.
        path: Where to write; the suffix chooses PNG, SVG or PDF. Written atomically.
        first: The method that is 100 %.
        second: The method that is compared with it.
        title: Heading of the figure.
        subtitle: Second line, for the data, the number of cases and what the intervals are.
        notes: Sentences at the foot.
        dpi: Resolution of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: Lengths do not agree, nothing is given, a value is infinite, an interval is upside down, ``better``
            holds another word, or the suffix is not one of these.
        OSError: The file cannot be written.
    """
    path = check_path(path)
    metrics = list(metrics)
    if not metrics:
        raise ValueError("draw_relative_difference needs at least one metric, got none.")
    values = as_values(percent, "percent", len(metrics))
    for name, given in (("intervals", intervals), ("better", better)):
        if given is not None and len(given) != len(metrics):
            raise ValueError(f"{name} must have {len(metrics)} entries, one per metric, got {len(given)}.")
    ends = [as_interval(interval, metric) for metric, interval in zip(metrics, intervals or [None] * len(metrics))]
    better = [check_better(word, f"better of {metric}") for metric, word in zip(metrics, better)]
    labels = [wrap(f"{metric}, {direction(word)}", _LABEL) for metric, word in zip(metrics, better)]
    shown = [*values[~np.isnan(values)], *(end for interval in ends if interval for end in interval)]
    reach = max(map(abs, shown), default=1.0) or 1.0
    cut = reach > _LIMIT
    foot = ["Bars and intervals that end in an arrow go on beyond the axis."] if cut else []
    if np.isnan(values).any():
        foot.append(f"No value: {', '.join(m for m, v in zip(metrics, values) if np.isnan(v))}.")
    row = row_height(labels, _ROW, 0.06)
    left = widest(labels) + 0.28
    width = min(MAX_WIDTH, left + 5.0)
    x_label = wrap(f"difference of {second}, in percent of {first}", width - left)
    with figure_settings():
        legend = [
            Patch(facecolor=BLUE, edgecolor=INK, linewidth=0.6, label=f"{second} is better"),
            Patch(facecolor=ORANGE, edgecolor=INK, linewidth=0.6, hatch="////", label=f"{second} is worse"),
        ]
        height = row * len(metrics)
        below = 0.4 + (x_label.count("\n") + 1) * line_height(TEXT_SIZE)
        sheet = Sheet(width, height + below, title=title, subtitle=subtitle, legend=legend, notes=[*foot, *notes])
        axis = sheet.axes(left, 0.04, sheet.width - left - 0.15, height)
        limit = min(reach, _LIMIT)
        axis.set_xlim(_range(values, shown, limit, sheet.width - left - 0.15))
        axis.set_ylim(len(metrics) - 0.5, -0.5)
        axis.axvline(0, color=INK, linewidth=1)
        axis.grid(True, axis="x")
        for i, (value, interval, word) in enumerate(zip(values, ends, better)):
            _draw_row(axis, i, value, interval, word, limit)
        axis.set_yticks(np.arange(len(metrics)), labels, fontsize=TEXT_SIZE)
        axis.tick_params(axis="y", length=0)
        axis.xaxis.set_major_locator(MaxNLocator(8, steps=STEPS))
        axis.xaxis.set_major_formatter(lambda tick, _: format_number(tick, 0 if limit > 4 else 1) + " %")
        axis.set_xlabel(x_label)
        axis.spines["left"].set_visible(False)
        return save_figure(sheet.figure, path, dpi=dpi, title=title)


def _range(values: np.ndarray, shown: list[float], limit: float, width: float) -> tuple[float, float]:
    """Ends of the axis in percent, with room for the numbers beside the bars."""
    low, high = max(min(shown, default=0.0), -limit), min(max(shown, default=0.0), limit)
    low, high = min(low, 0.0), max(high, 0.0)
    left, right = np.nanmin(values, initial=0) < 0, np.nanmax(values, initial=-1) >= 0
    per_inch = ((high - low) or 1.0) / (width - 0.85 * (int(left) + int(right)) - 0.1)
    return low - per_inch * (0.85 if left else 0.05), high + per_inch * (0.85 if right else 0.05)


def _draw_row(axis, i: int, value: float, interval, better: str, limit: float) -> None:
    if np.isnan(value):
        axis.text(0, i, " no value", va="center", fontsize=SMALL_SIZE, color=GREY, style="italic")
        return
    good = value == 0 or (value > 0) == (better == "higher")
    length = float(np.clip(value, -limit, limit))
    axis.barh(
        i,
        length,
        _BAR,
        color=BLUE if good else ORANGE,
        hatch=None if good else "////",
        edgecolor=INK,
        linewidth=0.6,
        gid="difference",
    )
    ends = [length, 0.0]
    if abs(value) > limit:
        axis.plot([length], [i], marker=">" if value > 0 else "<", markersize=11, color=INK, zorder=3, gid="cut")
        ends.append(length * 1.04)
    if interval:
        inside = tuple(float(np.clip(end, -limit, limit)) for end in interval)
        if abs(value) <= limit:
            draw_interval(axis, i, inside, vertical=False, color=INK, gid="interval")
            for end in interval:
                if abs(end) > limit:
                    axis.plot(
                        [np.copysign(limit, end)],
                        [i],
                        marker=">" if end > 0 else "<",
                        markersize=6,
                        color=INK,
                        zorder=3,
                        gid="cut interval",
                    )
        ends += inside
    text = format_number(value, 1) + " %"
    text = f"+{text}" if value > 0 else text
    right = value >= 0
    axis.annotate(
        text,
        (max(ends) if right else min(ends), i),
        xytext=(6 if right else -6, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="center",
        fontsize=SMALL_SIZE,
    )
