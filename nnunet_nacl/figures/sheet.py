"""The sheet a figure is drawn on: heading above, legend and notes below, with room for as much text as there is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from nnunet_nacl.figures.style import GREY, HEADING_SIZE, INK, SMALL_SIZE, TEXT_SIZE

__all__ = ["Sheet", "line_height", "row_height", "text_width", "widest", "widest_word", "wrap"]

_MARGIN = 0.12  # inches around everything
_HANDLE = 0.62  # room of a legend's handle and the gaps around it
_PIECES = re.compile(r"\s*[^\s_/\-]*[_/\-]*")  # what a line may be broken between


@lru_cache(maxsize=4096)
def text_width(text: str, size: float = TEXT_SIZE, weight: str = "normal") -> float:
    """Width in inches of the widest line of a text."""
    font = FontProperties(family=["DejaVu Sans"], size=size, weight=weight)
    measure = text_to_path.get_text_width_height_descent
    return max(measure(line, font, ismath=False)[0] for line in text.split("\n")) / 72


def widest(texts: Sequence[str], size: float = TEXT_SIZE, weight: str = "normal") -> float:
    """Width in inches of the widest of the texts, 0 for none."""
    return max((text_width(text, size, weight) for text in texts), default=0.0)


def line_height(size: float) -> float:
    """Height in inches of a line of text, with the gap to the next."""
    return size * 1.35 / 72


def row_height(labels: Sequence[str], least: float, gap: float) -> float:
    """Height in inches of rows that all hold the tallest of the labels and a gap, and are no lower than ``least``."""
    return max(least, *((label.count("\n") + 1) * line_height(TEXT_SIZE) + gap for label in labels))


def wrap(text: str, width: float, size: float = TEXT_SIZE, weight: str = "normal") -> str:
    """Break a text into lines no wider than ``width`` inches: at spaces, and in names behind ``_``, ``-`` and ``/``.

    A piece that is wider still is cut anywhere.
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for piece in _PIECES.findall(paragraph):
            if not piece or text_width((line + piece).rstrip(), size, weight) <= width:
                line += piece
                continue
            if line.strip():
                lines.append(line.rstrip())
            line = piece.lstrip()
            while text_width(line, size, weight) > width and len(line) > 1:
                cut = len(line) - 1
                while cut > 1 and text_width(line[:cut], size, weight) > width:
                    cut -= 1
                lines.append(line[:cut])
                line = line[cut:]
        lines.append(line.rstrip())
    return "\n".join(lines)


def widest_word(text: str, size: float = TEXT_SIZE) -> float:
    """Width in inches below which :func:`wrap` has to cut inside a word."""
    return max(text_width(piece.strip(), size) for piece in _PIECES.findall(text))


class Sheet:
    """A figure of fixed width whose height follows from what is on it.

    Axes are placed in inches from the upper left corner of the body, which lies between the heading and the foot.

    Args:
        width: Width of the figure in inches.
        body: Height of the body in inches.
        title: Heading; broken into lines where it is too long.
        subtitle: Second line: the data, units, number of cases.
        legend: Handles of a legend below the body.
        notes: Sentences below the legend.
    """

    def __init__(
        self,
        width: float,
        body: float,
        *,
        title: str = "",
        subtitle: str = "",
        legend: Sequence = (),
        notes: Sequence[str] = (),
    ) -> None:
        room = width - 2 * _MARGIN
        title = wrap(title, room, HEADING_SIZE, "bold") if title else ""
        subtitle = wrap(subtitle, room, TEXT_SIZE) if subtitle else ""
        notes = [wrap(note, room, SMALL_SIZE) for note in notes if note]
        head = _MARGIN + _height(title, HEADING_SIZE) + _height(subtitle, TEXT_SIZE) + (0.1 if title or subtitle else 0)
        legend, columns, legend_height = _legend_layout(list(legend), room)
        notes_height = sum(_height(note, SMALL_SIZE) for note in notes) + (0.06 if notes else 0)
        self.width, self.body = width, body
        self.height = head + body + legend_height + notes_height + _MARGIN
        self._body_top = head
        self.figure = Figure(figsize=(width, self.height))
        y = _MARGIN
        for text, size, weight, color in ((title, HEADING_SIZE, "bold", INK), (subtitle, TEXT_SIZE, "normal", INK)):
            if text:
                self._text(y, text, size, weight=weight, color=color)
                y += _height(text, size)
        y = head + body
        if legend:
            self.figure.legend(
                handles=legend,
                ncols=columns,
                loc="upper left",
                frameon=False,
                borderpad=0.2,
                borderaxespad=0,
                bbox_to_anchor=(_MARGIN / width, 1 - y / self.height),
                columnspacing=1.5,
                handlelength=2.2,
                labelspacing=0.45,
                fontsize=TEXT_SIZE,
            )
        y += legend_height + (0.06 if notes else 0)
        for note in notes:
            self._text(y, note, SMALL_SIZE, color=GREY)
            y += _height(note, SMALL_SIZE)

    def axes(self, left: float, top: float, width: float, height: float, **keywords) -> Axes:
        """Axes whose frame lies ``left`` and ``top`` inches from the body's upper left corner."""
        bottom = self.height - self._body_top - top - height
        return self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height), **keywords
        )

    def text(self, left: float, top: float, text: str, **keywords) -> None:
        """Text at a place of the body, in inches from its upper left corner."""
        self.figure.text(left / self.width, 1 - (self._body_top + top) / self.height, text, **keywords)

    def _text(self, top: float, text: str, size: float, **keywords) -> None:
        self.figure.text(
            _MARGIN / self.width,
            1 - top / self.height,
            text,
            fontsize=size,
            ha="left",
            va="top",
            linespacing=1.2,
            **keywords,
        )


def _height(text: str, size: float) -> float:
    return (text.count("\n") + 1) * line_height(size) if text else 0.0


def _legend_layout(handles: list, room: float) -> tuple[list, int, float]:
    """Handles with labels that fit, the number of columns, and the height in inches."""
    if not handles:
        return [], 1, 0.0
    for handle in handles:
        handle.set_label(wrap(handle.get_label(), room - _HANDLE))
    widths = [text_width(handle.get_label()) + _HANDLE for handle in handles]
    for columns in range(len(handles), 0, -1):  # as many as fit, filled column by column
        rows, longer = divmod(len(handles), columns)
        ends = np.cumsum([0, *(rows + (i < longer) for i in range(columns))])
        if sum(max(widths[a:b]) for a, b in zip(ends, ends[1:])) <= room:
            break
    rows = -(-len(handles) // columns)
    lines = max(handle.get_label().count("\n") + 1 for handle in handles)
    return handles, columns, rows * (lines * line_height(TEXT_SIZE) + 0.02) + 0.08
