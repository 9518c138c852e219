"""Relative difference between two methods under several metrics, in percent (as fig. 7 of the NACL paper)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Patch
from typing_extensions import Unpack

from nnunet_nacl.show.layout import Frame, draw_interval, new_panels, row_height, set_rows, wrap, write_figure
from nnunet_nacl.show.style import BLUE, GREY, INK, ORANGE, SMALL_SIZE, figure_settings
from nnunet_nacl.show.values import as_interval, as_values, check_better, format_number, format_signed

_LIMIT = 150.0  # percent; a longer bar would make all others invisible
_ROW, _BAR, _LABEL = 0.34, 0.62, 3.0
_EDGE: dict[str, Any] = {"edgecolor": INK, "linewidth": 0.6}
_LOOKS = {"better": {"facecolor": BLUE, **_EDGE}, "worse": {"facecolor": ORANGE, "hatch": "////", **_EDGE}}


@figure_settings()
def draw_relative_difference(
    metrics: Sequence[str],
    percent: Sequence[float],
    intervals: Sequence[tuple[float, float] | None],
    better: Sequence[str],
    path: str | os.PathLike,
    *,
    first: str,
    second: str,
    **frame: Unpack[Frame],
) -> Path:
    """Draw a bar per metric: 100 * (second - first) / first. Better and worse differ in colour and in hatching.

    Bars beyond 150 % are cut, marked and their numbers written, so that the others stay visible.

    Args:
        metrics: Names, from the top.
        percent: Difference of ``second`` in percent of ``first``; NaN where there is none.
        intervals: (low, high) of each in percent; None or NaN where there is none.
        better: ``higher`` or ``lower`` for each metric.
        first: The method that is 100 %.
        second: The method that is compared with it.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.

    Raises:
        ValueError: Lengths do not agree, nothing is given, a value is infinite, an interval is upside down, ``better``
            holds another word, or the suffix is not one of these.
    """
    metrics = list(metrics)
    if not metrics:
        raise ValueError("draw_relative_difference needs at least one metric, got none.")
    values = as_values(percent, "percent", len(metrics))
    for name, given in (("intervals", intervals), ("better", better)):
        if len(given) != len(metrics):
            raise ValueError(f"{name} must have {len(metrics)} entries, one per metric, got {len(given)}.")
    ends = [as_interval(interval, metric) for metric, interval in zip(metrics, intervals)]
    better = [check_better(word, f"better of {metric}") for metric, word in zip(metrics, better)]
    labels = [wrap(f"{metric}, {word} is better", _LABEL) for metric, word in zip(metrics, better)]
    shown = [*values[~np.isnan(values)], *(end for interval in ends if interval for end in interval)]
    reach = max(map(abs, shown), default=1.0) or 1.0
    cut = reach > _LIMIT
    foot = ["Bars and intervals that end in an arrow go on beyond the axis."] if cut else []
    if np.isnan(values).any():
        foot.append(f"No value: {', '.join(m for m, v in zip(metrics, values) if np.isnan(v))}.")
    limit, height = min(reach, _LIMIT), row_height(labels, _ROW, 0.06) * len(metrics)
    legend = [Patch(label=f"{second} is {word}", **look) for word, look in _LOOKS.items()]
    body, (axes,) = new_panels(1)
    axes.axvline(0, color=INK, linewidth=1)
    axes.grid(True, axis="x")
    for i, (value, interval, word) in enumerate(zip(values, ends, better)):
        _draw_row(axes, i, value, interval, word, limit)
    low, high = max(min(shown, default=0), -limit), min(max(shown, default=0), limit)
    low, high = min(low, 0), max(high, 0)
    room = 0.22 * ((high - low) or 1)  # for the numbers beside the bars
    axes.set_xlim(low - room * (0.1 + (values < 0).any()), high + room * (0.1 + (values >= 0).any()))
    set_rows(axes, labels)
    axes.xaxis.set_major_formatter(lambda tick, _: format_number(tick, 0 if limit > 4 else 1) + " %")
    axes.set_xlabel(f"difference of {second}, in percent of {first}")
    axes.spines["left"].set_visible(False)
    return write_figure(body, path, (5, height), legend=legend, remarks=foot, **frame)


def _draw_row(axes, i: int, value: float, interval, better: str, limit: float) -> None:
    if np.isnan(value):
        axes.text(0, i, " no value", va="center", fontsize=SMALL_SIZE, color=GREY, style="italic")
        return
    good = value == 0 or (value > 0) == (better == "higher")
    length = float(np.clip(value, -limit, limit))
    axes.barh(i, length, _BAR, gid="difference", **_LOOKS["better" if good else "worse"])
    ends = [length, 0.0]
    if abs(value) > limit:
        _draw_arrow(axes, length, i, size=11, gid="cut")
        ends.append(length * 1.04)
    elif interval:
        low, high = (float(np.clip(end, -limit, limit)) for end in interval)
        inside = (low, high)
        draw_interval(axes, i, inside, vertical=False, color=INK, gid="interval")
        for end, cut in zip(interval, inside):
            if end != cut:
                _draw_arrow(axes, cut, i, size=6, gid="cut interval")
        ends += inside
    right = value >= 0
    axes.annotate(
        format_signed(value, 1) + " %",
        (max(ends) if right else min(ends), i),
        xytext=(6 if right else -6, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="center",
        fontsize=SMALL_SIZE,
    )


def _draw_arrow(axes, x: float, y: float, *, size: float, gid: str) -> None:
    """What goes on beyond the axis."""
    axes.plot([x], [y], marker=">" if x > 0 else "<", markersize=size, color=INK, zorder=3, gid=gid)
