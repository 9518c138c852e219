"""Rows of points, one per method: what a radar of one or two axes would hide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnunet_nacl.figures.checks import arrow, direction, format_number, set_x_ticks
from nnunet_nacl.figures.sheet import Sheet, line_height, row_height, widest, wrap
from nnunet_nacl.figures.style import GREY, MAX_WIDTH, SMALL_SIZE, TEXT_SIZE, MethodStyle

__all__ = ["draw_dots"]

_ROW, _LABEL, _GAP = 0.27, 2.6, 0.25  # inches


def draw_dots(
    axes: Sequence[str],
    values: Mapping[str, np.ndarray],
    styles: Mapping[str, MethodStyle],
    *,
    better: str,
    what: str,
    shared: bool,
    decimals: int,
    title: str,
    subtitle: str,
    notes: Sequence[str],
) -> Sheet:
    """Draw a panel per axis, a row per method, the number beside every row.

    Args:
        axes: Headings of the panels.
        values: Method -> one value per axis, NaN where there is none.
        styles: Look of each method.
        better: ``higher`` or ``lower``.
        what: Label of the value axes.
        shared: Whether all panels have the same range.
        decimals: Decimals of the numbers.
        title: Heading of the figure.
        subtitle: Second line.
        notes: Sentences at the foot.

    Returns:
        The sheet, not yet saved.
    """
    labels = [wrap(method, _LABEL) for method in values]
    left = widest(labels) + 0.25
    table = np.stack(list(values.values()))
    numbers = widest([format_number(value, decimals) for value in table.ravel()], SMALL_SIZE) + 0.12
    width = min(3.6, (MAX_WIDTH - left - 0.1) / len(axes) - numbers - _GAP)
    row = row_height(labels, _ROW, 0.02)
    titles = [wrap(axis, width, 10) for axis in axes]
    head = (max(text.count("\n") for text in titles) + 1) * line_height(10) + 0.08
    height = row * len(values)
    words = f"{direction(better)} {arrow(better)}"
    words = wrap(f"{what}, {words}" if what else words, width + 0.3)
    below = 0.3 + (words.count("\n") + 1) * line_height(TEXT_SIZE)
    sheet = Sheet(
        max(4.5, left + len(axes) * (width + numbers + _GAP)),
        head + height + below,
        title=title,
        subtitle=subtitle,
        notes=notes,
    )
    for j, name in enumerate(titles):
        axis = sheet.axes(left + j * (width + numbers + _GAP), head, width, height)
        axis.set_title(name, pad=5)
        axis.grid(True)
        for i, (method, line) in enumerate(values.items()):
            text = format_number(line[j], decimals)
            axis.plot([line[j]], [i], linestyle="none", label=method, **styles[method].markers)
            axis.text(
                1 + (numbers - 0.02) / width,
                i,
                text,
                transform=axis.get_yaxis_transform(),
                ha="right",
                va="center",
                fontsize=SMALL_SIZE,
                color=GREY if np.isnan(line[j]) else "black",
                gid="number",
            )
        low, high = _limits(table if shared else table[:, j])
        axis.set_xlim(low, high)
        axis.set_ylim(len(values) - 0.5, -0.5)
        axis.set_yticks(np.arange(len(values)), labels if j == 0 else [""] * len(values), fontsize=TEXT_SIZE)
        axis.tick_params(axis="y", length=0)
        set_x_ticks(axis, width, 5)
        axis.set_xlabel(words)
    return sheet


def _limits(values: np.ndarray) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not known.size:
        return 0.0, 1.0
    margin = 0.08 * (known.max() - known.min()) or abs(known.max()) * 0.05 or 0.05
    return known.min() - margin, known.max() + margin
