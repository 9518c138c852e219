"""Metrics over the share of the training cases (as fig. 9 of the NACL paper): which method lives on few cases?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation
from typing_extensions import Unpack

from nnunet_nacl.metrics.bootstrap import Interval
from nnunet_nacl.show.layout import Frame, draw_interval, new_panels, write_figure
from nnunet_nacl.show.style import MethodStyle, figure_settings, legend_handles, method_styles
from nnunet_nacl.show.values import with_direction

_HEIGHT = 2.8  # inches
_SHARE = "share of the training cases (%)"
_APART = 3.0  # points between methods at the same share, so that their intervals do not hide each other
_ROOM = 14.0  # points that all methods of a share take at most
_LOGARITHMIC = 4.0  # from this ratio of the largest to the smallest share


@figure_settings()
def draw_training_share(
    panels: Mapping[str, Mapping[str, Mapping[float, Interval]]],
    path: str | os.PathLike,
    *,
    better: Mapping[str, str],
    **frame: Unpack[Frame],
) -> Path:
    """Draw a line per method over the share of training cases, one panel per metric.

    Methods at the same share stand a few points apart, so that all intervals are seen.

    Args:
        panels: Metric, with its unit -> method -> share in percent, above 0 and rising -> value. A value that is NaN
            leaves a gap in the line and is named at the foot.
        better: ``higher`` or ``lower`` for each panel.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
    """
    styles = method_styles(dict.fromkeys(method for lines in panels.values() for method in lines))
    points = [
        (panel, method, share, value)
        for panel, lines in panels.items()
        for method, line in lines.items()
        for share, value in line.items()
    ]
    missing = [f"{panel}: no value for {m} at {share:g} %." for panel, m, share, one in points if np.isnan(one.mean)]
    shares = sorted({share for _, _, share, _ in points})
    width = 5.0 if len(panels) == 1 else 3.6 if len(panels) in (2, 4) else 2.2
    body, axes = new_panels(len(panels))
    for (panel, lines), panel_axes in zip(panels.items(), axes):
        present = [method for method in styles if method in lines]
        for place, method in enumerate(present):
            offset = (place - (len(present) - 1) / 2) * min(_APART, _ROOM / len(present))
            moved = panel_axes.transData + ScaledTranslation(offset / 72, 0, body.dpi_scale_trans)
            look = {"transform": moved, "alpha": 1.0 if len(present) <= 4 else 0.55}
            _draw_line(panel_axes, method, lines[method], styles[method], look)
        _set_shares(panel_axes, shares, width)
        panel_axes.grid(True)
        panel_axes.set(title=panel, xlabel=_SHARE, ylabel=with_direction(panel, better[panel]))
    return write_figure(body, path, (width, _HEIGHT), legend=legend_handles(styles), remarks=missing, **frame)


def _draw_line(axes: Axes, method: str, line: Mapping[float, Interval], style: MethodStyle, look: dict) -> None:
    for share, one in line.items():
        draw_interval(axes, share, one.low, one.high, vertical=True, color=style.color, gid="interval", **look)
        # points that are moved do not count for the limits of an axis
        axes.update_datalim([(share, y) for y in (one.mean, one.low, one.high) if not np.isnan(y)])
    means = [one.mean for one in line.values()]
    axes.plot(list(line), means, label=method, zorder=3, transform=look["transform"], **style.line, **style.markers)
    axes.autoscale_view()


def _set_shares(axes: Axes, shares: list[float], width: float) -> None:
    """Ticks at the shares; logarithmic where they span much, as shares are mostly halved again and again."""
    logarithmic = shares[-1] >= _LOGARITHMIC * shares[0]
    axes.set_xscale("log" if logarithmic else "linear")
    places = np.log(shares) if logarithmic else np.asarray(shares)
    reach = (places[-1] - places[0]) or 0.1 * places[-1] or 1.0
    low, high = places[0] - 0.12 * reach, places[-1] + 0.12 * reach
    axes.set_xlim(*(np.exp([low, high]) if logarithmic else (low, high)))
    labels, last = [], -np.inf
    for share, place in zip(shares, places):
        free = (place - last) / (high - low) * width > 0.3  # else it would touch the label before
        labels.append(f"{share:g}" if free else "")
        last = place if free else last
    axes.set_xticks(shares, labels)
    axes.set_xticks([], minor=True)
