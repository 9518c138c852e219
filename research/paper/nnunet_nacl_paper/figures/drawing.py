"""What all figures share: one look per method, panels, intervals, and how they are written."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnunet_nacl.metrics.statistics import Interval
from nnunet_nacl_paper.files import replacing

INK = "#222222"
GOOD = "#0072B2"
BAD = "#D55E00"
# Okabe and Ito's palette, without the yellow: distinguishable with any colour vision
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "h", "*", "d", "8", "H")
_LINES = ("-", "--", "-.", ":")
_SETTINGS: Any = {
    "font.family": ["sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "text.parse_math": False,  # a name may hold a dollar sign
    "svg.fonttype": "none",
    "svg.hashsalt": "nnunet_nacl_paper",
}
_COLUMNS = 3  # of panels


def styles(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Keywords of ``Axes.plot`` for each method by its place; the reference, the first, is black.

    Lines change with each round of the colours, and with the fifth colour of a round.
    """
    looks = {}
    for i, method in enumerate(methods):
        round_of_colors, color = divmod(i, len(_COLORS))
        line = round_of_colors if color < 4 else round_of_colors + 1
        looks[method] = {
            "color": _COLORS[color],
            "marker": _MARKERS[i % len(_MARKERS)],
            "linestyle": _LINES[line % len(_LINES)],
            "markersize": 6,
            "linewidth": 1.6,
        }
    return looks


def new_panels(
    number: int, width: float, height: float, **subplot: Any
) -> tuple[Figure, list[Any]]:
    """A figure with so many panels of a size in inches, at most three in a row; four are 2 x 2."""
    columns = 2 if number == 4 else min(number, _COLUMNS)
    rows = -(-number // columns)
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure((width * columns, height * rows + 0.9), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, subplot_kw=subplot).ravel().tolist()
    for unused in axes[number:]:
        unused.set_visible(False)
    return figure, axes[:number]


def draw_interval(axes: Axes, at: float, interval: Interval, *, vertical: bool, color: str) -> None:
    """A bar from end to end of an interval, if it has any."""
    if np.isnan(interval.low):
        return
    look: Any = {"color": color, "linewidth": 1.2, "alpha": 0.7, "zorder": 2}
    ends = [interval.low, interval.high]
    if vertical:
        axes.plot([at, at], ends, **look)
    else:
        axes.plot(ends, [at, at], **look)


def with_direction(what: str, better: str) -> str:
    """Label of an axis with its better direction."""
    return f"{what} ({better} is better)"


def write_figure(
    figure: Figure,
    path: Path,
    *,
    title: str,
    subtitle: str = "",
    notes: Sequence[str] = (),
    legend: dict[str, dict[str, Any]] | None = None,
) -> list[Path]:
    """Write a figure as PNG and SVG, the same bytes on every run.

    Args:
        figure: Of :func:`new_panels`.
        path: Without an ending.
        title, subtitle, notes: Above, one below the other.
        legend: Looks of :func:`styles` that are named below.

    Returns:
        The files.
    """
    characters = int(figure.get_figwidth() * 13)
    head = [textwrap.fill(text, characters) for text in (title, subtitle, *notes) if text]
    with matplotlib.rc_context(_SETTINGS):
        figure.suptitle("\n".join(head), x=0.02, ha="left", fontsize=9)
        if legend:
            handles = [Line2D([], [], label=method, **look) for method, look in legend.items()]
            figure.legend(
                handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8
            )
        files = []
        for ending, changing in ((".png", "Software"), (".svg", "Date")):
            files.append(path.with_name(f"{path.name}{ending}"))
            with replacing(files[-1], ending) as temporary:
                figure.savefig(temporary, dpi=150, metadata={changing: None})
    return files
