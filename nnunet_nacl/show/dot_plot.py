"""Rows of points, one per method: where a radar would hide what it is to show."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.show.layout import new_panels, row_height, set_rows, wrap, write_figure, write_in_row
from nnunet_nacl.show.style import GREY, MethodStyle, figure_settings
from nnunet_nacl.show.values import format_number, with_direction

__all__ = ["draw_dots"]

_ROW, _LABEL = 0.27, 2.6  # inches


@figure_settings()
def draw_dots(
    axes: Sequence[str],
    values: Mapping[str, np.ndarray],
    path: str | os.PathLike,
    *,
    styles: Mapping[str, MethodStyle],
    better: str,
    what: str,
    shared: bool,
    decimals: int,
    **frame: Any,
) -> Path:
    """Draw a panel per axis, a row per method, the number beside every row.

    Args:
        axes: Headings of the panels.
        values: Method -> one value per axis, NaN where there is none.
        path: Where to write.
        styles: Look of each method.
        better: ``higher`` or ``lower``.
        what: Label of the value axes.
        shared: Whether all panels have the same range.
        decimals: Decimals of the numbers.
        frame: Further keywords of :func:`~nnunet_nacl.show.layout.write_figure`.

    Returns:
        The path.
    """
    labels = [wrap(method, _LABEL) for method in values]
    body, panels = new_panels(len(axes), min(len(axes), 3), sharex=shared, sharey=True)
    for panel, name, column in zip(panels, axes, np.transpose(list(values.values()))):
        panel.set_title(name)
        panel.grid(True)
        for i, (method, value) in enumerate(zip(values, column)):
            panel.plot([value], [i], linestyle="none", label=method, **styles[method].markers)
            color = GREY if np.isnan(value) else "black"
            write_in_row(panel, format_number(value, decimals), 1, i, 6 / 72, color=color, gid="number")
        panel.margins(x=0.08)
        panel.set_xlabel(with_direction(what, better))
        set_rows(panel, labels)
    return write_figure(body, path, (3.6, row_height(labels, _ROW, 0.02) * len(values)), **frame)
