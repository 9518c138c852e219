"""Colours, settings and panels of all figures, and their files, which are the same for the same
numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any, TypedDict, cast

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from typing_extensions import Unpack

from nnunet_nacl.files import replacing

# of Okabe and Ito, distinguishable with any colour vision
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, GREY, PALE = "#222222", "#6E6E6E", "#E6E6E6"

HEADING_SIZE, TEXT_SIZE, SMALL_SIZE = 12, 9, 8  # points
_MIN_WIDTH, _MAX_WIDTH = 4.8, 9.0  # inches: at 100 % no wider than a page of text on a screen
_MARGIN = 0.12  # inches beside heading and notes, and between texts
_LEGEND = 2.9  # inches of a column of the legend, of which the handle and gaps take the next
_HANDLE = 0.62
_CHARACTER = 0.62  # width of a character in DejaVu Sans, on average at most, by its size

_METADATA: dict[str, Any] = {".png": {"Software": "nnunet_nacl"}, ".svg": {"Date": None}}
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
    **{
        f"{what}color": INK
        for what in ("text.", "axes.label", "axes.title", "xtick.label", "ytick.label")
    },
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
    """Matplotlib's defaults and ours, whatever the user's own matplotlibrc says; the former
    settings come back."""
    with style.context(["default", _SETTINGS]):
        yield


def wrap(text: str, width: float, size: float = TEXT_SIZE) -> str:
    """Break a text into lines of about ``width`` inches, at spaces and hyphens, and where a word is
    longer anywhere."""
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

    A panel has a width and height in inches with titles and labels, and is narrower where all would
    be too wide. Without ``columns`` at most three stand beside each other. Keywords are those of
    Figure.subplots.
    """
    columns = columns or {1: 1, 2: 2, 4: 2}.get(count, 3)
    rows = -(-count // columns)
    size = min(max(columns * panel[0], _MIN_WIDTH), _MAX_WIDTH), rows * panel[1]
    body = cast(SubFigure, Figure(size, layout="constrained").subfigures())
    axes = list(body.subplots(rows, columns, squeeze=False, **keywords).flat)
    for unused in axes[count:]:
        unused.remove()
    return body, axes[:count]


def write_figure(
    body: SubFigure,
    path: str | os.PathLike,
    *,
    legend: Sequence = (),
    remarks: Sequence[str] = (),
    **frame: Unpack[Frame],
) -> Path:
    """Put heading, legend and notes around the panels, and write the figure, which grows by what
    they take; its path.

    Below the panels stand a legend of handles, then remarks, sentences that follow from the
    numbers. What is too long is broken into lines. The file is PNG or SVG, has the same bytes on
    every run, and the title in its metadata. UserError if it cannot be written.
    """
    path, figure, title = Path(path), body.figure, frame.get("title", "")
    room, height = figure.get_figwidth() - 2 * _MARGIN, figure.get_figheight()
    texts: tuple[tuple[Any, str, dict[str, Any]], ...] = (
        (figure.suptitle, title, {"fontsize": HEADING_SIZE, "fontweight": "bold"}),
        (body.suptitle, frame.get("subtitle", ""), {"fontsize": TEXT_SIZE}),
        (
            figure.supxlabel,
            "\n".join((*remarks, *frame.get("notes", ()))),
            {"fontsize": SMALL_SIZE, "color": GREY},
        ),
    )
    for write, text, look in texts:
        if text:
            text = wrap(text, room, 1.1 * look["fontsize"])  # bold is wider
            write(text, x=_MARGIN / figure.get_figwidth(), ha="left", **look)
            height += height_of(text.count("\n") + 1, look["fontsize"]) + _MARGIN
    if legend:
        columns = int(room / _LEGEND)
        labels = [wrap(handle.get_label(), room / columns - _HANDLE) for handle in legend]
        body.legend(
            legend, labels, loc="outside lower left", ncols=columns, frameon=False, handlelength=2.2
        )
        highest = max(label.count("\n") for label in labels) + 1
        height += height_of(-(-len(labels) // columns) * highest, 1.1 * TEXT_SIZE) + _MARGIN
    figure.set_figheight(height)
    for _ in range(2):  # panels of a fixed aspect have their place the second time
        figure.draw_without_rendering()
    figure.set_layout_engine("none")  # further files get the same drawing
    for file in (path, *(path.with_suffix(suffix) for suffix in frame.get("also", ()))):
        metadata = _METADATA[file.suffix] | ({"Title": title} if title else {})
        with figure_settings(), replacing(file) as temporary:
            figure.savefig(temporary, format=file.suffix[1:], dpi=150, metadata=metadata)
    return path
