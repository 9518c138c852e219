"""Scatter of discrimination against calibration (as fig. 10 of the NACL paper): is one bought with the other?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nnunet_nacl.figures.checks import (
    STEPS,
    arrow,
    as_interval,
    as_values,
    check_better,
    direction,
    draw_interval,
    set_x_ticks,
)
from nnunet_nacl.figures.grid import Grid, of_panel, shown_methods
from nnunet_nacl.figures.style import GREY, SMALL_SIZE, MethodStyle, check_path, figure_settings, save_figure

__all__ = ["draw_scatter"]


def draw_scatter(
    panels: Mapping[str, Mapping[str, tuple]],
    path: str | os.PathLike,
    *,
    x_label: str = "Dice",
    y_label: str | Mapping[str, str] = "ECE",
    x_better: str = "higher",
    y_better: str = "lower",
    order: Sequence[str] | None = None,
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    dpi: int = 150,
) -> Path:
    """Draw one point per method with its intervals, one panel per calibration measure.

    Args:
        panels: Panel -> method -> (x, y, (x low, x high), (y low, y high)); an interval may be None, a method without
            x or y is left out and named at the foot.
        path: Where to write; the suffix chooses PNG, SVG or PDF. Written atomically.
        x_label: What x is, with its unit. All panels have the same range of x.
        y_label: What y is, for all panels or for each.
        x_better: ``higher`` or ``lower``.
        y_better: ``higher`` or ``lower``.
        order: All methods of the comparison, so that each looks the same in every figure.
        title: Heading of the figure.
        subtitle: Second line, for the data, the number of cases and what the intervals are.
        notes: Sentences at the foot.
        dpi: Resolution of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: Nothing is given, a value is infinite, an interval is upside down, a panel has no ``y_label``, or
            the suffix is not one of these.
        OSError: The file cannot be written.
    """
    path = check_path(path)
    check_better(x_better, "x_better"), check_better(y_better, "y_better")
    looks = shown_methods(panels, order)
    y_labels = {panel: of_panel(y_label, panel, "y_label") for panel in panels}
    points = {panel: _check(panel, given) for panel, given in panels.items()}
    missing = [
        f"{panel}: no value for {', '.join(names)}."
        for panel in panels
        if (names := [name for name, point in points[panel].items() if point is None])
    ]
    with figure_settings():
        grid = Grid(panels, widest=(4.2, 3.4), height=None, gap=0.85)
        handles = [Line2D([], [], linestyle="none", label=method, **look.markers) for method, look in looks.items()]
        sheet = grid.sheet(title=title, subtitle=subtitle, legend=handles, notes=[*missing, *notes])
        limits = _limits([point for drawn in points.values() for point in drawn.values() if point])
        for (panel, drawn), axis in zip(points.items(), grid.axes(sheet)):
            _draw(axis, {method: drawn[method] for method in looks if drawn.get(method)}, looks)
            axis.set_xlim(limits)
            axis.set_xlabel(f"{x_label}, {direction(x_better)} {arrow(x_better)}")
            axis.set_ylabel(f"{y_labels[panel]}, {direction(y_better)} {arrow(y_better)}")
            set_x_ticks(axis, grid.width)
            axis.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        return save_figure(sheet.figure, path, dpi=dpi, title=title)


def _check(panel: str, given: Mapping[str, tuple]) -> dict[str, tuple | None]:
    points: dict[str, tuple | None] = {}
    for method, point in given.items():
        name = f"{method} in {panel}"
        if len(point) != 4:
            raise ValueError(f"The point of {name} must be (x, y, x interval, y interval), got {point!r}.")
        x, y = as_values(point[:2], f"The point of {name}")
        intervals = as_interval(point[2], f"x of {name}"), as_interval(point[3], f"y of {name}")
        points[method] = None if np.isnan(x) or np.isnan(y) else (float(x), float(y), *intervals)
    return points


def _limits(points: list[tuple]) -> tuple[float, float]:
    ends = [value for x, _, interval, _ in points for value in (x, *(interval or ()))] or [0.0, 1.0]
    margin = 0.06 * (max(ends) - min(ends)) or 0.01
    return min(ends) - margin, max(ends) + margin


def _draw(axis, points: Mapping[str, tuple], styles: Mapping[str, MethodStyle]) -> None:
    if not points:
        axis.text(
            0.5, 0.5, "no value", transform=axis.transAxes, ha="center", va="center", fontsize=SMALL_SIZE, color=GREY
        )
    alpha = 1.0 if len(points) <= 4 else 0.55  # many intervals must not drown the points
    for method, (x, y, x_interval, y_interval) in points.items():
        color = styles[method].color
        draw_interval(axis, y, x_interval, vertical=False, color=color, alpha=alpha, gid="x interval")
        draw_interval(axis, x, y_interval, vertical=True, color=color, alpha=alpha, gid="y interval")
        axis.plot([x], [y], linestyle="none", label=method, zorder=3, **styles[method].markers)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.03 * (high - low))
