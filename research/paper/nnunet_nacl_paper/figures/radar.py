"""Radar of one metric: a polygon per method, a spoke per data set, structure or setting (figs. 1, 6
and 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from nnunet_nacl_paper.figures.drawing import new_panels, styles, with_direction, write_figure


def draw_radar(
    axes: Sequence[str],
    values: Mapping[str, Sequence[float]],
    path: Path,
    *,
    better: str,
    metric: str,
    own_scales: bool = False,
    **frame: Any,
) -> list[Path]:
    """Draw a polygon per method; outward is always better, so the radial axis of an error runs
    inward.

    Rows of points take its place where it would hide something: with one or two axes, equal or
    missing values.

    Args:
        axes: Names of the spokes, clockwise from the top.
        values: Method -> one value per axis; NaN where there is none, named at the foot.
        path, frame: As for :func:`~nnunet_nacl_paper.figures.drawing.write_figure`.
        better: ``higher`` or ``lower``.
        metric: What is drawn.
        own_scales: Each axis has its own range, written with its name: for data sets of different
            difficulty.
    """
    looks, table = styles(values), np.array(list(values.values()), dtype=float)
    missing = [
        f"No value for {method}: {', '.join(axis for axis, gap in zip(axes, row) if gap)}."
        for method, row in zip(looks, np.isnan(table))
        if row.any()
    ]
    if len(axes) < 3 or np.isnan(table).any() or np.ptp(table) == 0:
        figure, panels = new_panels(len(axes), 3.6, 0.4 + 0.27 * len(looks))
        for panel, axis, column in zip(panels, axes, table.T):
            for i, (look, value) in enumerate(zip(looks.values(), column)):
                panel.plot([value], [i], **look)
            panel.set(title=axis, xlabel=with_direction(metric, better))
            panel.set_yticks(range(len(looks)), list(looks))
            panel.invert_yaxis()
            panel.grid(True)
        return write_figure(figure, path, notes=missing, **frame)
    sign = 1 if better == "higher" else -1
    over = 0 if own_scales else None
    low, high = (sign * table).min(over), (sign * table).max(over)
    if own_scales:  # the best of each spoke lies at the rim, the worst at a fifth of it
        spread = np.where(high > low, high - low, 1.0)
        radii = np.where(high > low, 0.2 + 0.8 * (sign * table - low) / spread, 0.6)
        labels = [
            f"{axis}\n{sign * a:.3f} to {sign * b:.3f}" for axis, a, b in zip(axes, low, high)
        ]
        rings, note = (
            {},
            (
                "Every spoke has its own range, worst to best: compare along a spoke, not between"
                " spokes."
            ),
        )
    else:
        ticks = MaxNLocator(6).tick_values(low - (high - low) / 4, high)
        radii = (sign * table - ticks[0]) / (ticks[-1] - ticks[0])
        labels, note = list(axes), f"Centre {sign * ticks[0]:.3g}, rim {sign * ticks[-1]:.3g}."
        rings = {
            (tick - ticks[0]) / (ticks[-1] - ticks[0]): f"{sign * tick:.3g}" for tick in ticks[1:-1]
        }
    angles = np.linspace(0, 2 * np.pi, len(axes) + 1)
    figure, (panel,) = new_panels(1, 5.0, 4.6, projection="polar")
    panel.set(theta_zero_location="N", theta_direction=-1, ylim=(0, 1))
    panel.set_xticks(angles[:-1], labels, fontsize=8)
    for label, side in zip(panel.get_xticklabels(), np.sin(angles)):  # beside the rim, not on it
        label.set_ha("center" if abs(side) < 0.2 else "left" if side > 0 else "right")
    panel.set_yticks(list(rings), list(rings.values()), fontsize=7)
    for row, look in zip(radii, looks.values()):
        panel.plot(angles, [*row, row[0]], clip_on=False, **look)
    words = f"Outward is better ({metric}: {better} is better). {note}"
    return write_figure(figure, path, notes=[words, *missing], legend=looks, **frame)
