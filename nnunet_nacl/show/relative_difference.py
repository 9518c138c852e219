"""Relative difference between two methods under several metrics, in percent (as fig. 7 of the NACL paper)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from typing_extensions import Unpack

from nnunet_nacl.metrics.bootstrap import Interval
from nnunet_nacl.show.layout import Frame, draw_interval, new_panels, row_height, set_rows, wrap, write_figure
from nnunet_nacl.show.style import BLUE, GREY, INK, ORANGE, SMALL_SIZE, figure_settings
from nnunet_nacl.show.values import format_number, format_signed

_LIMIT = 150.0  # percent; a longer bar would make all others invisible
_ROW, _BAR, _LABEL = 0.34, 0.62, 3.0
_EDGE: dict[str, Any] = {"edgecolor": INK, "linewidth": 0.6}
_LOOKS = {"better": {"facecolor": BLUE, **_EDGE}, "worse": {"facecolor": ORANGE, "hatch": "////", **_EDGE}}


@figure_settings()
def draw_relative_difference(
    differences: Mapping[str, Interval],
    path: str | os.PathLike,
    *,
    better: Mapping[str, str],
    first: str,
    second: str,
    **frame: Unpack[Frame],
) -> Path:
    """Draw a bar per metric: 100 * (second - first) / first. Better and worse differ in colour and in hatching.

    Bars beyond 150 % are cut, marked and their numbers written, so that the others stay visible.

    Args:
        differences: Metric, from the top -> difference of ``second`` in percent of ``first``; NaN where there is none.
        better: ``higher`` or ``lower`` for each metric.
        first: The method that is 100 %.
        second: The method that is compared with it.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
    """
    labels = [wrap(f"{metric}, {better[metric]} is better", _LABEL) for metric in differences]
    values = np.array([one.mean for one in differences.values()])
    shown = [x for one in differences.values() for x in (one.mean, one.low, one.high) if not np.isnan(x)]
    reach = max(map(abs, shown), default=1.0) or 1.0
    foot = ["Bars and intervals that end in an arrow go on beyond the axis."] if reach > _LIMIT else []
    if without := ", ".join(metric for metric, one in differences.items() if np.isnan(one.mean)):
        foot.append(f"No value: {without}.")
    limit, height = min(reach, _LIMIT), row_height(labels, _ROW, 0.06) * len(labels)
    legend = [Patch(label=f"{second} is {word}", **look) for word, look in _LOOKS.items()]
    body, (axes,) = new_panels(1)
    axes.axvline(0, color=INK, linewidth=1)
    axes.grid(True, axis="x")
    for i, (metric, one) in enumerate(differences.items()):
        _draw_row(axes, i, one, better[metric], limit)
    low, high = max(min([0, *shown]), -limit), min(max([0, *shown]), limit)
    room = 0.22 * ((high - low) or 1)  # for the numbers beside the bars
    axes.set_xlim(low - room * (0.1 + (values < 0).any()), high + room * (0.1 + (values >= 0).any()))
    set_rows(axes, labels)
    axes.xaxis.set_major_formatter(lambda tick, _: format_number(tick, 0 if limit > 4 else 1) + " %")
    axes.set_xlabel(f"difference of {second}, in percent of {first}")
    axes.spines["left"].set_visible(False)
    return write_figure(body, path, (5, height), legend=legend, remarks=foot, **frame)


def _draw_row(axes: Axes, i: int, difference: Interval, better: str, limit: float) -> None:
    if np.isnan(value := difference.mean):
        axes.text(0, i, " no value", va="center", fontsize=SMALL_SIZE, color=GREY, style="italic")
        return
    good = value == 0 or (value > 0) == (better == "higher")
    length = float(np.clip(value, -limit, limit))
    axes.barh(i, length, _BAR, gid="difference", **_LOOKS["better" if good else "worse"])
    ends = [length, 0.0]
    if abs(value) > limit:
        _draw_arrow(axes, length, i, size=11, gid="cut")
        ends.append(length * 1.04)
    elif not np.isnan(difference.low):
        inside = np.clip([difference.low, difference.high], -limit, limit).tolist()
        draw_interval(axes, i, *inside, vertical=False, color=INK, gid="interval")
        for end, cut in zip((difference.low, difference.high), inside):
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


def _draw_arrow(axes: Axes, x: float, y: float, *, size: float, gid: str) -> None:
    """What goes on beyond the axis."""
    axes.plot([x], [y], marker=">" if x > 0 else "<", markersize=size, color=INK, zorder=3, gid=gid)
