"""Scatter of discrimination against calibration (as fig. 10 of the NACL paper): is one bought with the other?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from typing_extensions import Unpack

from nnunet_nacl.metrics.bootstrap import Interval
from nnunet_nacl.show.layout import Frame, draw_interval, new_panels, write_figure, write_no_value
from nnunet_nacl.show.style import MethodStyle, figure_settings, legend_handles, method_styles
from nnunet_nacl.show.values import with_direction

Point = tuple[Interval, Interval]


@figure_settings()
def draw_scatter(
    panels: Mapping[str, Mapping[str, Point]],
    path: str | os.PathLike,
    **frame: Unpack[Frame],
) -> Path:
    """Draw one point per method with its intervals, one panel per calibration measure.

    Args:
        panels: Calibration measure, lower is better -> method -> Dice and the measure. A method without one of the
            two is left out and named at the foot. All panels have the same range of Dice.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
    """
    styles = method_styles(dict.fromkeys(method for found in panels.values() for method in found))
    body, axes = new_panels(len(panels), sharex=True)
    missing = []
    for (panel, found), panel_axes in zip(panels.items(), axes):
        known = {method: (x, y) for method, (x, y) in found.items() if not np.isnan(x.mean + y.mean)}
        _draw(panel_axes, known, styles)
        panel_axes.set_title(panel)
        panel_axes.set_xlabel(with_direction("DSC", "higher"))
        panel_axes.set_ylabel(with_direction(panel, "lower"))
        panel_axes.tick_params(labelbottom=True)
        if without := ", ".join(method for method in found if method not in known):
            missing.append(f"{panel}: no value for {without}.")
    legend, size = legend_handles(styles, lines=False), (4.2 if len(panels) == 1 else 3.4, None)
    return write_figure(body, path, size, legend=legend, remarks=missing, **frame)


def _draw(axes: Axes, points: Mapping[str, Point], styles: Mapping[str, MethodStyle]) -> None:
    axes.grid(True)
    if not points:
        write_no_value(axes)
    alpha = 1.0 if len(points) <= 4 else 0.55  # many intervals must not drown the points
    for method, (x, y) in points.items():
        color = styles[method].color
        draw_interval(axes, y.mean, x.low, x.high, vertical=False, color=color, alpha=alpha, gid="x interval")
        draw_interval(axes, x.mean, y.low, y.high, vertical=True, color=color, alpha=alpha, gid="y interval")
        axes.plot([x.mean], [y.mean], linestyle="none", label=method, zorder=3, **styles[method].markers)
