"""Radar of one metric: a polygon per method, a spoke per data set, structure or setting (figs. 1, 6 of the paper)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from typing_extensions import Unpack

from nnunet_nacl.show.layout import STEPS, Frame, new_panels, row_height, set_rows, wrap, write_figure, write_in_row
from nnunet_nacl.show.style import GREY, SMALL_SIZE, MethodStyle, figure_settings, legend_handles, method_styles
from nnunet_nacl.show.values import format_number, with_direction

_IN_ONE = 6  # more polygons on top of each other cannot be told apart: then one small radar per method
_MOST_DOTS = 12  # axes; more of them are drawn as a radar even where values are missing
_MOST_NAMES, _MOST_NUMBERS = 12, 36  # spokes
_ROW, _LABEL = 0.27, 2.6  # inches, of points


@figure_settings()
def draw_radar(
    axes: Sequence[str],
    values: Mapping[str, Sequence[float]],
    path: str | os.PathLike,
    *,
    better: str,
    metric: str,
    scale: str = "common",
    **frame: Unpack[Frame],
) -> Path:
    """Draw a polygon per method; outward is always better, so the radial axis of an error runs inward.

    Up to six methods share one radar. More get a small radar each, over the outline of the first. Rows of points take
    its place where it would hide something: one or two axes, equal values, missing values on up to twelve axes.

    Args:
        axes: Names of the spokes, clockwise from the top; many are numbered, and named at the foot.
        values: Method -> one value per axis; NaN where there is none, named at the foot.
        better: ``higher`` or ``lower``.
        metric: What is drawn, with its unit.
        scale: ``common``, one range for all axes, or ``axis``, a range for each, written with its name: for data
            sets of different difficulty, between which differences would else be lost.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
    """
    axes, styles, own = list(axes), method_styles(values), scale == "axis"
    table = np.array(list(values.values()), dtype=float)
    gaps = {method: [axis for axis, gap in zip(axes, row) if gap] for method, row in zip(styles, np.isnan(table))}
    foot = [f"No value for {method}: {', '.join(gap)}." for method, gap in gaps.items() if gap]
    low, high = (extreme.reduce(table, axis=0 if own else None) for extreme in (np.fmin, np.fmax))
    if len(axes) < 3 or (np.isnan(table).any() and len(axes) <= _MOST_DOTS) or not np.any(high > low):
        body, size = _draw_dots(axes, table, styles, with_direction(metric, better), shared=not own)
        return write_figure(body, path, size, remarks=foot, **frame)
    worst, best = (low, high) if better == "higher" else (high, low)
    center, rim, rings, scale_note = (_own_scales if own else _common_scale)(worst, best)
    together, labels, spokes = len(styles) <= _IN_ONE, axes, axes
    if own:
        ends = [dict.fromkeys(format_number(end) for end in pair) for pair in zip(worst, best)]
        spokes = [f"{axis} ({' to '.join(pair)})" for axis, pair in zip(axes, ends)]
        labels = [f"{axis}\n{' to '.join(pair)}" for axis, pair in zip(axes, ends)] if together else labels
    labels = [wrap(label, 1.5 if together else 0.85, SMALL_SIZE) for label in labels]
    crowded = len(axes) > _MOST_NAMES / (1 if together else 2) or any(label.count("\n") > 4 for label in labels)
    if crowded:
        every = -(-len(axes) // _MOST_NUMBERS)
        labels = ["" if i % every else str(i + 1) for i in range(len(axes))]
        spokes = [f"{i} {spoke}" for i, spoke in enumerate(spokes, 1)]
    words = [f"Outward is better ({metric}: {better} is better). {scale_note}"]
    words += [f"Spokes: {'; '.join(spokes)}."] if crowded or (own and not together) else []
    words += [] if together else [f"Grey and dashed in every radar: {next(iter(styles))}."]
    angles, radii = np.linspace(0, 2 * np.pi, len(axes) + 1), (table - center) / (rim - center)
    lines = np.concatenate([radii, radii[:, :1]], axis=1)
    body, panels = new_panels(*((1, 1) if together else (len(styles), 3)), subplot_kw={"projection": "polar"})
    for panel in panels:
        _draw_web(panel, angles[:-1], labels, rings if together else dict.fromkeys(rings, ""))
    for i, (method, style) in enumerate(styles.items()):
        panel = panels[0 if together else i]
        look = {**style.markers, "markersize": 7 if together else 5, **style.line, "clip_on": False}
        panel.plot(angles, lines[i], label=method, zorder=3, gid="polygon", **look)
        if not together:
            panel.set_title(method, fontsize="medium", fontweight="bold")
            panel.fill(angles, np.nan_to_num(lines[i]), color=style.color, alpha=0.15)
        if not together and i:
            panel.plot(angles, lines[0], color=GREY, linestyle="--", linewidth=1.3, gid="reference")
    legend, size = (legend_handles(styles), 4.8 if crowded else 3.4) if together else ((), 1.6)
    return write_figure(body, path, (size, None), legend=legend, remarks=[*words, *foot], **frame)


def _common_scale(worst: float, best: float) -> tuple[float, float, dict[float, str], str]:
    """Round values at the centre and the rim, the radii of rings with their values, and all that in words."""
    off = worst + (worst - best) / 4  # holds the worst value off the centre
    rising = MaxNLocator(6, steps=STEPS).tick_values(*sorted((max(off, 0) if min(worst, best) >= 0 else off, best)))
    center, *_, rim = ticks = np.round(rising if best > worst else rising[::-1], 10)
    decimals = max(len(f"{tick:.10g}".partition(".")[2]) for tick in ticks)
    words = [format_number(tick, decimals) for tick in (*ticks, abs(ticks[1] - center))]
    scale_note = f"Centre {words[0]}, rim {words[-2]}, rings {words[-1]} apart."
    return center, rim, dict(zip((ticks[1:] - center) / (rim - center), words[1:-1])), scale_note


def _own_scales(worst: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[float, str], str]:
    """As above: the best value of each spoke lies at the rim, the worst at a fifth of it, a single one between."""
    same = worst == best
    center, rim = np.where(same, best - 0.6, best - (best - worst) / 0.8), np.where(same, best + 0.4, best)
    scale_note = "Every spoke has its own range, given as worst to best: compare along a spoke, not between spokes; "
    return center, rim, dict.fromkeys((0.2, 0.4, 0.6, 0.8, 1.0), ""), f"{scale_note}small differences look large."


def _draw_web(panel: Any, angles: np.ndarray, labels: list[str], rings: dict[float, str]) -> None:
    panel.set(theta_zero_location="N", theta_direction=-1, ylim=(0, 1), aspect="auto")
    panel.set_yticks(list(rings), [""] * len(rings))
    box = {"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    look = {"fontsize": SMALL_SIZE, "ha": "center", "va": "center", "zorder": 4, "bbox": box, "gid": "tick"}
    for radius, text in rings.items():
        panel.text(-np.pi / len(angles), radius, text, **look)
    panel.set_xticks(angles, labels, linespacing=1.2)
    panel.grid(color="#CFCFCF")
    panel.spines["polar"].set_visible(False)
    for label, x, y in zip(panel.get_xticklabels(), np.sin(angles), np.cos(angles)):
        label.set(ha="center" if abs(x) < 0.2 else "left" if x > 0 else "right", gid="axis")
        label.set(va="center" if abs(y) < 0.45 else "bottom" if y > 0 else "top")


def _draw_dots(
    axes: list[str], table: np.ndarray, styles: Mapping[str, MethodStyle], what: str, *, shared: bool
) -> tuple:
    """A panel per axis, a row per method, the number beside every row; the figure's body and a panel's size."""
    labels = [wrap(method, _LABEL) for method in styles]
    body, panels = new_panels(len(axes), min(len(axes), 3), sharex=shared, sharey=True)
    for panel, name, column in zip(panels, axes, table.T):
        panel.set(title=name, xlabel=what)
        panel.grid(True)
        for i, (method, value) in enumerate(zip(styles, column)):
            panel.plot([value], [i], linestyle="none", label=method, **styles[method].markers)
            color = GREY if np.isnan(value) else "black"
            write_in_row(panel, format_number(value), 1, i, 6 / 72, color=color, gid="number")
        panel.margins(x=0.08)
        set_rows(panel, labels)
    return body, (3.6, row_height(labels, _ROW, 0.02) * len(styles))
