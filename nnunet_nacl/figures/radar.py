"""Radar of one metric: a polygon per method, a spoke per data set, structure or setting (figs. 1, 6 of the paper)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nnunet_nacl.figures.checks import as_values, check_better, direction, format_number
from nnunet_nacl.figures.dots import draw_dots
from nnunet_nacl.figures.radial import RadialScale, common_scale, own_scales
from nnunet_nacl.figures.sheet import Sheet, line_height, wrap
from nnunet_nacl.figures.style import (
    GREY,
    MAX_WIDTH,
    SMALL_SIZE,
    TEXT_SIZE,
    MethodStyle,
    check_path,
    figure_settings,
    save_figure,
    styles_for,
)
from nnunet_nacl.figures.web import Web, spokes

__all__ = ["draw_radar"]

_IN_ONE = 6  # more polygons on top of each other cannot be told apart: then one small radar per method


def draw_radar(
    axes: Sequence[str],
    values: Mapping[str, Sequence[float]],
    path: str | os.PathLike,
    *,
    better: str,
    metric: str = "",
    unit: str = "",
    scale: str = "common",
    decimals: int = 3,
    order: Sequence[str] | None = None,
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    dpi: int = 150,
) -> Path:
    """Draw a polygon per method; outward is always better, so the radial axis of an error runs inward.

    Up to six methods share one radar. More get a small radar each, over the outline of the first. Spokes whose names
    would lie on each other are numbered, and named at the foot. One or two axes make no polygon: they are drawn as rows
    of points.

    Args:
        axes: Names of the spokes, clockwise from the top.
        values: Method -> one value per axis; NaN or None leaves a gap, named at the foot.
        path: Where to write; the suffix chooses PNG, SVG or PDF. Written atomically.
        better: ``higher`` or ``lower``.
        metric: What is drawn.
        unit: Its unit.
        scale: ``common``, one range for all axes, or ``axis``, a range for each, written beside its name: for data
            sets of different difficulty, between which differences would else be lost.
        decimals: Decimals of the numbers.
        order: All methods of the comparison, so that each looks the same in every figure.
        title: Heading of the figure.
        subtitle: Second line, for the data and the number of cases.
        notes: Sentences at the foot.
        dpi: Resolution of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: No axis or no method is given, lengths do not agree, a value is infinite, an option is unknown, or
            the suffix is not one of these.
        OSError: The file cannot be written.
    """
    path = check_path(path)
    axes = list(axes)
    check_better(better)
    if scale not in ("common", "axis"):
        raise ValueError(f"scale must be 'common' or 'axis', got {scale!r}.")
    if not axes or not values:
        raise ValueError(f"draw_radar needs axes and methods, got {len(axes)} axes and {len(values)} methods.")
    checked = {method: as_values(given, f"The values of {method}", len(axes)) for method, given in values.items()}
    styles = styles_for(list(checked), order)
    checked = {method: checked[method] for method in styles if method in checked}
    missing = [
        f"No value for {method}: {', '.join(a for a, v in zip(axes, line) if np.isnan(v))}."
        for method, line in checked.items()
        if np.isnan(line).any()
    ]
    what = f"{metric} ({unit})" if unit else metric
    with figure_settings():
        keywords = {"title": title, "subtitle": subtitle}
        if len(axes) < 3:
            sheet = draw_dots(
                axes,
                checked,
                styles,
                better=better,
                what=what,
                shared=scale == "common",
                decimals=decimals,
                notes=[*missing, *notes],
                **keywords,
            )
            return save_figure(sheet.figure, path, dpi=dpi, title=title)
        table = np.stack(list(checked.values()))
        scales = common_scale(table, better) if scale == "common" else own_scales(table, better)
        foot = [
            f"Outward is better ({what + ': ' if what else ''}{direction(better)}). {_describe(scales)}",
            *missing,
            *notes,
        ]
        ranges = [one.describe(decimals) for one in scales] if scale == "axis" else None
        draw = _draw_one if len(checked) <= _IN_ONE else _draw_each
        sheet = draw(axes, ranges, checked, styles, scales, foot, keywords)
        return save_figure(sheet.figure, path, dpi=dpi, title=title)


def _describe(scales: list[RadialScale]) -> str:
    one = scales[0]
    if not one.ticks:
        return (
            "Every spoke has its own range, given as worst to best: compare along a spoke, not between spokes; "
            "small differences look large."
        )
    center, rim = (format_number(end, one.decimals) for end in (one.center, one.rim))
    return f"Centre {center}, rim {rim}, rings {format_number(abs(one.ticks[0] - one.ticks[1]), one.decimals)} apart."


def _draw_one(axes, ranges, values, styles, scales, notes, keywords) -> Sheet:
    """All polygons in one radar, with a legend."""
    legend = [Line2D([], [], label=method, **styles[method].line, **styles[method].markers) for method in values]
    labels = [f"{axis}\n{text}" for axis, text in zip(axes, ranges)] if ranges else axes
    web = Web(labels, 7.4, 1.65, TEXT_SIZE)
    if web.crowded:
        web, notes = web.numbered(), [notes[0], _key(axes, ranges), *notes[1:]]
    sheet = Sheet(7.4, web.up + web.down + 0.1, legend=legend, notes=notes, **keywords)
    axis = web.draw(sheet, 0, 0, scales, numbers=True)
    for method, line in values.items():
        _draw_polygon(axis, method, line, scales, styles[method])
    return sheet


def _draw_each(axes, ranges, values, styles, scales, notes, keywords) -> Sheet:
    """A small radar per method, each over the first method's outline; numbers stand at the foot."""
    reference, columns = next(iter(values)), 3
    panel = MAX_WIDTH / columns
    web = Web(axes, panel, 0.78, SMALL_SIZE)
    if web.crowded:
        web, notes = web.numbered(), [notes[0], _key(axes, ranges), *notes[1:]]
    elif ranges:
        notes = [notes[0], f"Ranges: {'; '.join(f'{axis} {text}' for axis, text in zip(axes, ranges))}.", *notes[1:]]
    titles = [wrap(method, panel - 0.2, TEXT_SIZE, "bold") for method in values]
    rows = -(-len(values) // columns)
    heads = [
        (max(t.count("\n") for t in titles[row * columns : (row + 1) * columns]) + 1) * line_height(TEXT_SIZE)
        for row in range(rows)
    ]
    step = web.up + web.down + 0.3
    sheet = Sheet(
        MAX_WIDTH, sum(heads) + rows * step, **keywords, notes=[f"Grey and dashed in every radar: {reference}.", *notes]
    )
    for i, (method, line) in enumerate(values.items()):
        row, column = divmod(i, columns)
        left, top = column * panel, sum(heads[: row + 1]) + row * step
        sheet.text(left + panel / 2, top, titles[i], ha="center", va="bottom", fontsize=TEXT_SIZE, fontweight="bold")
        axis = web.draw(sheet, left, top + 0.08, scales, numbers=False)
        if method != reference:
            axis.plot(*_corners(values[reference], scales), color=GREY, linestyle="--", linewidth=1.3, gid="reference")
        _draw_polygon(axis, method, line, scales, styles[method], fill=True)
    return sheet


def _key(axes: Sequence[str], ranges: Sequence[str] | None) -> str:
    """What the numbers stand for, where names would lie on each other."""
    names = [f"{axis} ({text})" for axis, text in zip(axes, ranges)] if ranges else axes
    return f"Spokes: {'; '.join(f'{number} {name}' for number, name in enumerate(names, 1))}."


def _corners(line: np.ndarray, scales: list[RadialScale]) -> np.ndarray:
    """(2, axes + 1) corners of a closed polygon; NaN where there is no value."""
    radius = np.array([one.radius(value) for one, value in zip(scales, line)])
    corners = spokes(len(line)) * radius[:, None]
    return np.concatenate([corners, corners[:1]]).T


def _draw_polygon(axis: Axes, method: str, line: np.ndarray, scales, style: MethodStyle, fill: bool = False) -> None:
    corners = _corners(line, scales)
    if fill and not np.isnan(line).any():
        axis.fill(*corners, color=style.color, alpha=0.15, linewidth=0)
    markers = {**style.markers, **({"markersize": 5} if fill else {})}
    axis.plot(*corners, label=method, zorder=3, gid="polygon", **style.line, **markers)
