"""Scatter of discrimination against calibration (as fig. 10 of the NACL paper): is one bought with the other?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from typing_extensions import Unpack

from nnunet_nacl.show.layout import Frame, draw_interval, new_panels, write_figure
from nnunet_nacl.show.style import (
    GREY,
    SMALL_SIZE,
    MethodStyle,
    figure_settings,
    legend_handles,
    method_styles,
)
from nnunet_nacl.show.values import as_interval, as_values, with_direction


@figure_settings()
def draw_scatter(
    panels: Mapping[str, Mapping[str, tuple]],
    path: str | os.PathLike,
    **frame: Unpack[Frame],
) -> Path:
    """Draw one point per method with its intervals, one panel per calibration measure.

    Args:
        panels: Calibration measure, lower is better -> method -> (Dice, measure, (low, high) of Dice, (low, high) of
            the measure); an interval may be None or NaN, a method without one of the values is left out and named at
            the foot. All panels have the same range of Dice.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.

    Raises:
        ValueError: Nothing is given, a value is infinite, an interval is upside down, or the suffix is not one
            of these.
    """
    styles = method_styles(dict.fromkeys(method for found in panels.values() for method in found))
    if not styles:
        raise ValueError("draw_scatter needs at least one panel with one method, got none.")
    points = {panel: _check(panel, given) for panel, given in panels.items()}
    missing = [
        f"{panel}: no value for {', '.join(name for name in panels[panel] if name not in found)}."
        for panel, found in points.items()
        if len(found) < len(panels[panel])
    ]
    body, axes = new_panels(len(panels), sharex=True)
    for (panel, found), panel_axes in zip(points.items(), axes):
        _draw(panel_axes, {method: found[method] for method in styles if method in found}, styles)
        panel_axes.set_title(panel)
        panel_axes.set_xlabel(with_direction("DSC", "higher"))
        panel_axes.set_ylabel(with_direction(panel, "lower"))
        panel_axes.tick_params(labelbottom=True)
    legend, size = legend_handles(styles, lines=False), (4.2 if len(panels) == 1 else 3.4, None)
    return write_figure(body, path, size, legend=legend, remarks=missing, **frame)


def _check(panel: str, given: Mapping[str, tuple]) -> dict[str, tuple]:
    points: dict[str, tuple] = {}
    for method, point in given.items():
        name = f"{method} in {panel}"
        if len(point) != 4:
            raise ValueError(f"The point of {name} must be (x, y, x interval, y interval), got {point!r}.")
        x, y = as_values(point[:2], f"The point of {name}")
        intervals = as_interval(point[2], f"x of {name}"), as_interval(point[3], f"y of {name}")
        if not np.isnan(x + y):
            points[method] = (float(x), float(y), *intervals)
    return points


def _draw(axes, points: Mapping[str, tuple], styles: Mapping[str, MethodStyle]) -> None:
    axes.grid(True)
    if not points:
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center", fontsize=SMALL_SIZE, color=GREY)
    alpha = 1.0 if len(points) <= 4 else 0.55  # many intervals must not drown the points
    for method, (x, y, x_interval, y_interval) in points.items():
        color = styles[method].color
        draw_interval(axes, y, x_interval, vertical=False, color=color, alpha=alpha, gid="x interval")
        draw_interval(axes, x, y_interval, vertical=True, color=color, alpha=alpha, gid="y interval")
        axes.plot([x], [y], linestyle="none", label=method, zorder=3, **styles[method].markers)
