"""Metrics over the share of the training cases (as fig. 9 of the NACL paper): which method lives on few cases?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.transforms import ScaledTranslation
from typing_extensions import Unpack

from nnunet_nacl.show.layout import Frame, draw_interval, new_panels, write_figure
from nnunet_nacl.show.style import MethodStyle, figure_settings, legend_handles, method_styles
from nnunet_nacl.show.values import as_interval, as_values, check_better, with_direction

_HEIGHT = 2.8  # inches
_SHARE = "share of the training cases (%)"
_APART = 3.0  # points between methods at the same share, so that their intervals do not hide each other
_ROOM = 14.0  # points that all methods of a share take at most
_LOGARITHMIC = 4.0  # from this ratio of the largest to the smallest share

_Point = tuple[float, float, "tuple[float, float] | None"]


@figure_settings()
def draw_training_share(
    panels: Mapping[str, Mapping[str, Sequence[tuple]]],
    path: str | os.PathLike,
    *,
    better: Mapping[str, str],
    **frame: Unpack[Frame],
) -> Path:
    """Draw a line per method over the share of training cases, one panel per metric.

    Methods at the same share stand a few points apart, so that all intervals are seen.

    Args:
        panels: Metric, with its unit -> method -> (share in percent, value, low, high) in any order; low and high may
            be None or NaN. A value that is None or NaN leaves a gap in the line.
        better: ``higher`` or ``lower`` for each panel.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.

    Raises:
        ValueError: Nothing is given, a share is not in (0, 100], a value is infinite, an interval is upside down, a
            panel has no ``better``, or the suffix is not one of these.
    """
    styles = method_styles(dict.fromkeys(method for found in panels.values() for method in found))
    if not styles:
        raise ValueError("draw_training_share needs at least one panel with one method, got none.")
    directions = {panel: check_better(better.get(panel), f"better of {panel}") for panel in panels}
    lines = {
        panel: {method: _check(points, f"{method} in {panel}") for method, points in given.items()}
        for panel, given in panels.items()
    }
    missing = [
        f"{panel}: no value for {method} at {share:g} %."
        for panel, drawn in lines.items()
        for method, points in drawn.items()
        for share, value, _ in points
        if np.isnan(value)
    ]
    shares = sorted({share for drawn in lines.values() for points in drawn.values() for share, _, _ in points})
    if not shares:
        raise ValueError(f"draw_training_share needs at least one point, got none for {', '.join(styles)}.")
    width = 5.0 if len(panels) == 1 else 3.6 if len(panels) in (2, 4) else 2.2
    body, axes = new_panels(len(panels))
    for (panel, drawn), panel_axes in zip(lines.items(), axes):
        present = [method for method in styles if method in drawn]
        for place, method in enumerate(present):
            offset = (place - (len(present) - 1) / 2) * min(_APART, _ROOM / len(present))
            moved = panel_axes.transData + ScaledTranslation(offset / 72, 0, body.dpi_scale_trans)
            look = {"transform": moved, "alpha": 1.0 if len(present) <= 4 else 0.55}
            _draw_line(panel_axes, method, drawn[method], styles[method], look)
        _set_shares(panel_axes, shares, width)
        panel_axes.grid(True)
        panel_axes.set(title=panel, xlabel=_SHARE, ylabel=with_direction(panel, directions[panel]))
    return write_figure(body, path, (width, _HEIGHT), legend=legend_handles(styles), remarks=missing, **frame)


def _check(points: Sequence[tuple], name: str) -> list[_Point]:
    checked = []
    for point in points:
        if len(point) != 4:
            raise ValueError(f"Every point of {name} must be (share, value, low, high), got {point!r}.")
        share, value = as_values(point[:2], f"The point of {name}")
        if not 0 < share <= 100:
            raise ValueError(f"The share of {name} must lie in (0, 100] percent, got {share}.")
        checked.append((float(share), float(value), as_interval(point[2:], f"{name} at {share:g} %")))
    return sorted(checked, key=lambda point: point[0])


def _draw_line(axes, method: str, points: list[_Point], style: MethodStyle, look: dict) -> None:
    for share, _, interval in points:
        draw_interval(axes, share, interval, vertical=True, color=style.color, gid="interval", **look)
    line = np.reshape([point[:2] for point in points], (-1, 2)).T
    axes.plot(*line, label=method, zorder=3, transform=look["transform"], **style.line, **style.markers)
    axes.update_datalim([(share, value) for share, value, _ in points if not np.isnan(value)])
    axes.update_datalim([(share, end) for share, _, interval in points if interval for end in interval])
    axes.autoscale_view()


def _set_shares(axes, shares: list[float], width: float) -> None:
    """Ticks at the shares; logarithmic where they span much, as shares are mostly halved again and again."""
    logarithmic = shares[-1] >= _LOGARITHMIC * shares[0]
    axes.set_xscale("log" if logarithmic else "linear")
    places = np.log(shares) if logarithmic else np.asarray(shares)
    reach = (places[-1] - places[0]) or 0.1 * places[-1] or 1.0
    low, high = places[0] - 0.12 * reach, places[-1] + 0.12 * reach
    axes.set_xlim(np.exp([low, high]) if logarithmic else (low, high))
    labels, last = [], -np.inf
    for share, place in zip(shares, places):
        free = (place - last) / (high - low) * width > 0.3  # else it would touch the label before
        labels.append(f"{share:g}" if free else "")
        last = place if free else last
    axes.set_xticks(shares, labels)
    axes.set_xticks([], minor=True)
