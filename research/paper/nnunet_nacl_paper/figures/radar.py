"""Radar of one metric (figs. 1, 6, 8): a polygon a method, a spoke a data set or setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
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
    looks = styles(values)
    table = pd.DataFrame(values, index=list(range(len(axes))), dtype=float).T
    missing = []
    for method, gaps in zip(looks, table.isna().to_numpy()):
        if gaps.any():
            names = ", ".join(np.array(axes)[gaps])
            missing.append(f"No value for {method}: {names}.")
    if len(axes) < 3 or missing or np.ptp(table.to_numpy()) == 0:
        figure = _draw_rows(axes, table.to_numpy(), looks, with_direction(metric, better))
        return write_figure(figure, path, notes=missing, **frame)

    sign = 1 if better == "higher" else -1
    scale = _scale_each_spoke if own_scales else _scale_together
    scaled = scale(axes, sign * table.to_numpy(), sign)
    figure = _draw_polygons(scaled, looks)
    note = f"Outward is better ({metric}: {better} is better). {scaled.note}"
    return write_figure(figure, path, notes=[note], legend=looks, **frame)


def _draw_rows(
    axes: Sequence[str], table: np.ndarray, looks: Mapping[str, dict[str, Any]], label: str
) -> Figure:
    """A panel for each spoke with a point a method, one below the other."""
    figure, panels = new_panels(len(axes), 3.6, 0.4 + 0.27 * len(looks))
    for panel, axis, column in zip(panels, axes, table.T):
        for i, (look, value) in enumerate(zip(looks.values(), column)):
            panel.plot([value], [i], **look)
        panel.set(title=axis, xlabel=label)
        panel.set_yticks(range(len(looks)), list(looks))
        panel.invert_yaxis()
        panel.grid(True)
    return figure


@dataclass(frozen=True)
class _Scaled:
    """What a radar shows.

    Attributes:
        radii: (methods, spokes) from 0 in the centre to 1 at the rim.
        labels: Of the spokes.
        rings: Radius and label.
        note: What centre and rim mean.
    """

    radii: np.ndarray
    labels: list[str]
    rings: dict[float, str]
    note: str


def _scale_each_spoke(axes: Sequence[str], table: np.ndarray, sign: int) -> _Scaled:
    """The best of each spoke lies at the rim, the worst at a fifth of it; equal ones between.

    Args:
        table: (methods, spokes), higher is better.
        sign: By which the values were multiplied for that.
    """
    low = table.min(axis=0)
    high = table.max(axis=0)
    spread = np.where(high > low, high - low, 1.0)
    radii = np.where(high > low, 0.2 + 0.8 * (table - low) / spread, 0.6)
    labels = []
    for axis, worst, best in zip(axes, sign * low, sign * high):
        labels.append(f"{axis}\n{worst:.3f} to {best:.3f}")
    note = (
        "Every spoke has its own range, worst to best: compare along a spoke, not between spokes."
    )
    return _Scaled(radii, labels, {}, note)


def _scale_together(axes: Sequence[str], table: np.ndarray, sign: int) -> _Scaled:
    """All spokes have one range, from a round number below the worst to one above the best."""
    low = table.min()
    high = table.max()
    ticks = MaxNLocator(6).tick_values(low - (high - low) / 4, high)
    centre = ticks[0]
    rim = ticks[-1]
    rings = {}
    for tick in ticks[1:-1]:
        rings[(tick - centre) / (rim - centre)] = f"{sign * tick:.3g}"
    note = f"Centre {sign * centre:.3g}, rim {sign * rim:.3g}."
    return _Scaled((table - centre) / (rim - centre), list(axes), rings, note)


def _draw_polygons(scaled: _Scaled, looks: Mapping[str, dict[str, Any]]) -> Figure:
    """The radar itself."""
    angles = np.linspace(0, 2 * np.pi, len(scaled.labels) + 1)
    figure, (panel,) = new_panels(1, 5.0, 4.6, projection="polar")
    panel.set(theta_zero_location="N", theta_direction=-1, ylim=(0, 1))
    panel.set_xticks(angles[:-1], scaled.labels, fontsize=8)
    for label, side in zip(panel.get_xticklabels(), np.sin(angles)):  # beside the rim, not on it
        if abs(side) < 0.2:
            label.set_ha("center")
        else:
            label.set_ha("left" if side > 0 else "right")
    panel.set_yticks(list(scaled.rings), list(scaled.rings.values()), fontsize=7)
    for radii, look in zip(scaled.radii, looks.values()):
        panel.plot(angles, [*radii, radii[0]], clip_on=False, **look)
    return figure
