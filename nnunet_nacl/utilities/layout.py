"""Colours, settings, panels and files of all figures; the same numbers give the same files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any, TypedDict, cast

from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from typing_extensions import Unpack

from nnunet_nacl.utilities.files import replacing

# of Okabe and Ito, distinguishable with any colour vision
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"

INK = "#222222"
GREY = "#6E6E6E"
PALE = "#E6E6E6"

# points
HEADING_SIZE = 12
TEXT_SIZE = 9
SMALL_SIZE = 8

# inches
_MIN_WIDTH = 4.8
_MAX_WIDTH = 9.0  # at 100 % no wider than a page of text on a screen
_MARGIN = 0.12  # beside heading and notes, and between texts
_LEGEND_COLUMN = 2.9
_LEGEND_HANDLE = 0.62  # inches of such a column, with the gaps

_CHARACTER = 0.62  # width of a character in DejaVu Sans, on average at most, by its size
_BOLD = 1.1  # how much wider texts may be than that: headings are bold

# without the time, so that the same numbers give the same bytes
_METADATA: dict[str, dict[str, str | None]] = {
    ".png": {"Software": "nnunet_nacl"},
    ".svg": {"Date": None},
}
_SETTINGS = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica", "sans-serif"],
    "font.size": TEXT_SIZE,
    "axes.labelsize": TEXT_SIZE,
    "axes.titlesize": 10,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,  # it would stand where the label does
    "xtick.labelsize": SMALL_SIZE,
    "ytick.labelsize": SMALL_SIZE,
    "legend.fontsize": TEXT_SIZE,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "text.parse_math": False,  # a name may hold a dollar sign
    "text.hinting": "no_hinting",  # else texts are up to 6 % wider than _CHARACTER says
    # text can be searched; where the font is missing, others are hardly wider
    "svg.fonttype": "none",
    "svg.hashsalt": "nnunet_nacl",
}


@contextmanager
def figure_settings() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever the user's own matplotlibrc says.

    The former settings come back.
    """
    with style.context(["default", _SETTINGS]):
        yield


def wrap(text: str, width: float, size: float = TEXT_SIZE) -> str:
    """Break a text into lines of about ``width`` inches, at spaces and hyphens.

    A word that is longer is broken anywhere.
    """
    characters = max(int(72 * width / (_CHARACTER * size)), 1)
    return "\n".join(fill(line, characters) for line in text.split("\n"))


def height_of(lines: int, size: float = TEXT_SIZE) -> float:
    """Height in inches of lines of text with the gaps between them."""
    return lines * size * 1.35 / 72


class Frame(TypedDict, total=False):
    """What every figure may have around its panels.

    Attributes:
        title: Heading.
        subtitle: Second line: the data, units, number of cases, what the intervals are.
        notes: Sentences at the foot.
        also: Suffixes of further files, such as ``.svg``, that get the same drawing without laying
            it out again.
    """

    title: str
    subtitle: str
    notes: Sequence[str]
    also: Sequence[str]


def new_panels(
    count: int, panel: tuple[float, float], columns: int | None = None, **keywords: Any
) -> tuple[SubFigure, list[Axes]]:
    """Panels of one size, row by row, on a figure that :func:`write_figure` completes.

    Args:
        count: Of the panels.
        panel: Width and height of one in inches, with titles and labels. Panels are narrower where
            all would be too wide.
        columns: Panels beside each other; None: as fits the count, at most three.
        keywords: Of Figure.subplots.
    """
    columns = columns or {1: 1, 2: 2, 4: 2}.get(count, 3)
    rows = -(-count // columns)
    panel_width, panel_height = panel
    width = min(max(columns * panel_width, _MIN_WIDTH), _MAX_WIDTH)
    figure = Figure((width, rows * panel_height), layout="constrained")
    body = cast(SubFigure, figure.subfigures())
    axes = list(body.subplots(rows, columns, squeeze=False, **keywords).flat)
    for unused in axes[count:]:
        unused.remove()
    return body, axes[:count]


def write_figure(
    body: SubFigure,
    path: str | os.PathLike,
    *,
    legend: Sequence[Artist] = (),
    remarks: Sequence[str] = (),
    **frame: Unpack[Frame],
) -> Path:
    """Put heading, legend and notes around the panels, and write the figure.

    The figure grows by what they take; what is too long is broken into lines. The file is PNG or
    SVG, has the same bytes on every run, and the title in its metadata.

    Args:
        body: What :func:`new_panels` gave.
        path: Of the file.
        legend: Handles with labels, for below the panels.
        remarks: Sentences below the legend that follow from the numbers.
        frame: What every figure may have.

    Returns:
        The path of the file.

    Raises:
        UserError: A file cannot be written.
    """
    path = Path(path)
    figure = body.figure
    title = frame.get("title", "")
    subtitle = frame.get("subtitle", "")
    foot = "\n".join((*remarks, *frame.get("notes", ())))
    width = figure.get_figwidth()
    height = figure.get_figheight()
    height += _write_text(figure.suptitle, title, HEADING_SIZE, width, fontweight="bold")
    height += _write_text(body.suptitle, subtitle, TEXT_SIZE, width)
    height += _write_text(figure.supxlabel, foot, SMALL_SIZE, width, color=GREY)
    if legend:
        height += _write_legend(body, legend, width)
    figure.set_figheight(height)
    for _ in range(2):  # panels of a fixed aspect have their place the second time
        figure.draw_without_rendering()
    figure.set_layout_engine("none")  # further files get the same drawing
    _save(figure, path, title)
    for suffix in frame.get("also", ()):
        _save(figure, path.with_suffix(suffix), title)
    return path


def _write_text(
    write: Callable[..., object], text: str, size: int, figure_width: float, **look: str
) -> float:
    """Write a text of a figure by Matplotlib's method for it; how many inches it needs."""
    if not text:
        return 0.0
    text = wrap(text, figure_width - 2 * _MARGIN, _BOLD * size)
    write(text, x=_MARGIN / figure_width, ha="left", fontsize=size, **look)
    return height_of(text.count("\n") + 1, size) + _MARGIN


def _write_legend(body: SubFigure, handles: Sequence[Artist], figure_width: float) -> float:
    """Write the legend below the panels; how many inches it needs."""
    room = figure_width - 2 * _MARGIN
    columns = int(room / _LEGEND_COLUMN)
    label_width = room / columns - _LEGEND_HANDLE
    labels = [wrap(str(handle.get_label()), label_width) for handle in handles]
    body.legend(
        handles, labels, loc="outside lower left", ncols=columns, frameon=False, handlelength=2.2
    )
    rows = -(-len(labels) // columns)
    lines_of_row = max(label.count("\n") for label in labels) + 1
    return height_of(rows * lines_of_row, _BOLD * TEXT_SIZE) + _MARGIN


def _save(figure: Figure, path: Path, title: str) -> None:
    """Write a file as it was laid out; UserError where that fails."""
    metadata = dict(_METADATA[path.suffix])
    if title:
        metadata["Title"] = title
    with figure_settings(), replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata=metadata)
