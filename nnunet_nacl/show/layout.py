"""Lays a figure out: panels of a given size, heading above, legend and notes below, texts broken to fit."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path
from matplotlib.ticker import AutoLocator, MaxNLocator
from typing_extensions import Unpack

from nnunet_nacl.show.style import GREY, HEADING_SIZE, SMALL_SIZE, TEXT_SIZE, check_path, save_figure

MAX_WIDTH = 9.0  # inches: at 100 % no wider than a page of text on a screen
_MIN_WIDTH = 4.8
_MARGIN = 0.12  # inches beside heading and notes
_PAD = 0.08  # inches around every panel
_HANDLE = 0.62  # room of a legend's handle and the gaps around it
STEPS = [1, 2, 2.5, 5, 10]  # between the numbers on an axis
_APART = 0.6  # inches from number to number on a horizontal axis, at least
_PIECES = re.compile(r"\s*[^\s_/\-]*[_/\-]*")  # what a line may be broken between


@lru_cache(maxsize=4096)
def text_width(text: str, size: float = TEXT_SIZE, weight: str = "normal") -> float:
    """Width in inches of the widest line of a text."""
    font = FontProperties(family=["DejaVu Sans"], size=size, weight=weight)
    measure = text_to_path.get_text_width_height_descent
    return max(measure(line, font, ismath=False)[0] for line in text.split("\n")) / 72


def line_height(size: float) -> float:
    """Height in inches of a line of text, with the gap to the next."""
    return size * 1.35 / 72


def wrap(text: str, width: float, size: float = TEXT_SIZE, weight: str = "normal") -> str:
    """Break a text into lines no wider than ``width`` inches: at spaces, and in names behind ``_``, ``-`` and ``/``.

    A piece that is wider still is cut anywhere.
    """
    if "\n" in text:
        return "\n".join(wrap(line, width, size, weight) for line in text.split("\n"))
    lines = [""]
    for piece in _PIECES.findall(text):
        for part in [piece] if text_width(piece.strip(), size, weight) <= width else piece:
            if lines[-1].strip() and text_width((lines[-1] + part).rstrip(), size, weight) > width:
                lines.append("")
            lines[-1] += part if lines[-1] else part.lstrip()
    return "\n".join(line.rstrip() for line in lines)


class Frame(TypedDict, total=False):
    """What every figure may have around its panels, and its resolution.

    Attributes:
        title: Heading.
        subtitle: Second line: the data, units, number of cases, what the intervals are.
        notes: Sentences at the foot.
        dpi: Resolution of a PNG; 150 by default.
        also: Suffixes of further files, such as ``.svg``, that get the same drawing without laying it out again.
    """

    title: str
    subtitle: str
    notes: Sequence[str]
    dpi: int
    also: Sequence[str]


def new_body(height: float) -> SubFigure:
    """Room for panels, ``height`` inches high, on a figure that :func:`write_figure` completes."""
    layout = ConstrainedLayoutEngine(w_pad=_PAD, h_pad=_PAD)
    return cast(SubFigure, Figure(figsize=(MAX_WIDTH, height), layout=layout).subfigures())


def new_panels(
    count: int, columns: int | None = None, *, body: SubFigure | None = None, **keywords: Any
) -> tuple[SubFigure, list[Axes]]:
    """Panels of one size, row by row.

    Args:
        count: Number of panels.
        columns: Of panels beside each other; default: at most three.
        body: Where they are drawn; default: :func:`new_body`.
        keywords: Of :meth:`matplotlib.figure.Figure.subplots`.
    """
    columns = columns or {1: 1, 2: 2, 4: 2}.get(count, 3)
    rows = -(-count // columns)
    body = body or new_body(4 * rows + 1)
    axes = list(body.subplots(rows, columns, squeeze=False, **keywords).flat)
    for unused in axes[count:]:
        unused.remove()
    return body, axes[:count]


def write_figure(
    body: SubFigure,
    path: str | os.PathLike,
    panel: tuple[float, float | None] | None = None,
    *,
    legend: Sequence = (),
    remarks: Sequence[str] = (),
    **frame: Unpack[Frame],
) -> Path:
    """Give the panels their size, put heading, legend and notes around them, and write the figure.

    Headings and horizontal labels of the panels, handles and notes are broken into lines where they are too long.

    Args:
        body: What the panels are drawn on.
        path: Where to write.
        panel: Width and height in inches of the first panel; the other ones follow. It becomes narrower where the
            figure would be wider than :data:`MAX_WIDTH`. A height of None makes it square. None for the pair leaves
            the figure's size to the body.
        legend: Handles of a legend below the panels.
        remarks: Sentences below the legend that follow from the numbers.
        frame: See :class:`Frame`.

    Returns:
        The path.

    Raises:
        ValueError: A suffix is not one of PNG, SVG and PDF.
        UserError: A file cannot be written.
    """
    path = check_path(path)
    figure, first = body.figure, cast(Any, body.axes[0] if panel else None)
    engine = cast(ConstrainedLayoutEngine, figure.get_layout_engine())
    engine.execute(figure)
    widths = {axes: axes.bbox.width / figure.dpi for axes in figure.axes}
    if panel:
        grid, before = first.get_gridspec(), figure.get_figwidth()
        width_share, height_share = (
            ratios[0] / sum(ratios) for ratios in (grid.get_width_ratios(), grid.get_height_ratios())
        )
        figure.set_figwidth(min(max(before + (panel[0] - widths[first]) / width_share, _MIN_WIDTH), MAX_WIDTH))
        # what is beside the panels keeps its width: no need to lay all out again, which takes the longest
        widths = dict.fromkeys(widths, widths[first] + (figure.get_figwidth() - before) * width_share)
    for axes, width in widths.items():
        _fit(axes, width)
    room = figure.get_figwidth() - 2 * _MARGIN
    _add_legend(body, legend, room)
    title, second = frame.get("title", ""), wrap(frame.get("subtitle", ""), room)
    heading = wrap(title, room, HEADING_SIZE, "bold")
    foot = "\n".join(wrap(note, room, SMALL_SIZE) for note in (*remarks, *frame.get("notes", ())) if note)
    place: dict[str, Any] = {"x": _MARGIN / figure.get_figwidth(), "ha": "left"}
    if heading:
        figure.suptitle(heading, fontsize=HEADING_SIZE, fontweight="bold", **place)
    if second:
        body.suptitle(second, fontsize=TEXT_SIZE, **place)
    if foot:
        figure.supxlabel(foot, fontsize=SMALL_SIZE, color=GREY, **place)
    for text, size in ((heading, HEADING_SIZE), (second, TEXT_SIZE), (foot, SMALL_SIZE)):
        more = (text.count("\n") + 1) * line_height(size) + 2 * _PAD if text else 0
        figure.set_figheight(figure.get_figheight() + more)
    for height in [panel[1]] * 2 if panel else ():  # the second time for what rounding left
        engine.execute(figure)
        missing = (height or first.bbox.width / figure.dpi) - first.bbox.height / figure.dpi
        figure.set_figheight(figure.get_figheight() + missing / height_share)
    engine.execute(figure)
    figure.set_layout_engine("none")
    for file in (path, *(path.with_suffix(suffix) for suffix in frame.get("also", ()))):
        save_figure(figure, file, dpi=frame.get("dpi", 150), title=title)
    return path


def _fit(axes: Axes, width: float) -> None:
    """Break the texts of a panel, and put as many numbers below it as have room."""
    room = width + (0.7 if axes.name == "polar" else 0.1)  # beside a circle there is room
    texts: tuple[Any, ...] = (axes.title, cast(Any, axes)._left_title, axes.xaxis.label)
    for text in texts:
        text.set_text(wrap(text.get_text(), room, text.get_fontsize(), text.get_fontweight()))
    if isinstance(axes.xaxis.get_major_locator(), AutoLocator):
        axes.xaxis.set_major_locator(MaxNLocator(min(6, int(width / _APART)), steps=STEPS))


def _add_legend(body: SubFigure, handles: Sequence, room: float) -> None:
    """As many columns as fit."""
    for handle in handles:
        handle.set_label(wrap(handle.get_label(), room - _HANDLE))
    for columns in range(len(handles), 0, -1):
        legend = body.legend(
            handles=handles, ncols=columns, loc="outside lower left", frameon=False, handlelength=2.2, columnspacing=1.5
        )
        if columns == 1 or legend.get_window_extent().width <= room * body.figure.dpi:
            break
        legend.remove()


def write_in_row(axes: Axes, text: str, x: float, row: float, right: float = 0, **look: Any) -> None:
    """Text at a share of the panel's width and ``right`` inches right of it."""
    place: dict[str, Any] = {"xytext": (72 * right, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (x, row), xycoords=axes.get_yaxis_transform(), **{**place, "fontsize": SMALL_SIZE, **look})


def write_no_value(axes: Axes, text: str = "no value") -> None:
    """In the middle of an empty panel."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", fontsize=SMALL_SIZE, color=GREY)


def draw_interval(axes: Axes, position: float, low: float, high: float, *, vertical: bool, **look: Any) -> None:
    """A line from low to high with a cap at either end; nothing where one of them is NaN."""
    if np.isnan(low + high):
        return
    along, across = (low, high), (position, position)
    caps: dict[str, Any] = {"marker": "_" if vertical else "|", "markersize": 5, "markeredgewidth": 1.3}
    look = {"linewidth": 1.3, "zorder": 2.5, "label": "_interval", "solid_capstyle": "butt", **caps, **look}
    axes.plot(*((across, along) if vertical else (along, across)), **look)
