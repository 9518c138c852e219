"""Rank heat map: which method comes where under each metric or data set (as fig. 2 of the NACL paper)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle
from typing_extensions import Unpack

from nnunet_nacl.show.layout import MAX_WIDTH, Frame, new_panels, row_height, text_width, wrap, write_figure
from nnunet_nacl.show.style import TEXT_SIZE, VERMILLION, figure_settings
from nnunet_nacl.show.values import as_values, format_number

_CELL_HEIGHT, _WIDEST_CELL = 0.34, 1.0  # inches
_LABEL = 2.6  # widest row label


@figure_settings()
def draw_rank_heatmap(
    rows: Sequence[str],
    columns: Sequence[str],
    ranks: np.ndarray,
    path: str | os.PathLike,
    *,
    decimals: int = 0,
    what: str = "rank",
    **frame: Unpack[Frame],
) -> Path:
    """Draw a table of ranks (or sums or means of ranks) with the number in every cell; dark is good.

    Colours compare the cells of a column, as a sum may stand beside its terms. They differ in lightness alone, which
    any colour vision orders. The lowest of each column is framed, ties included; a cell without a value is hatched.

    Args:
        rows: R names, best the methods: they lie flat however long they are.
        columns: C names, such as metrics.
        ranks: (R, C) ranks; low is good; NaN where there is none.
        decimals: Decimals of the numbers.
        what: What the numbers are, for the key.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.

    Raises:
        ValueError: Sizes do not agree, nothing is given, a value is infinite or below 0, or the suffix is not one
            of these.
    """
    rows, columns = list(rows), list(columns)
    if not rows or not columns:
        raise ValueError(f"draw_rank_heatmap needs rows and columns, got {len(rows)} and {len(columns)}.")
    if len(ranks) != len(rows):
        raise ValueError(f"ranks must have a line for each of the {len(rows)} rows, got {len(ranks)}.")
    values = np.stack([as_values(line, f"The ranks of {row}", len(columns)) for row, line in zip(rows, ranks)])
    if (values < 0).any():
        raise ValueError(f"Ranks cannot be below 0, got {np.nanmin(values)}.")
    missing = int(np.isnan(values).sum())
    foot = [f"Dark is good: a low {what} is better. Colours compare the cells of one column, whose lowest is framed."]
    if missing:
        foot.append(f"Hatched: no value ({missing} of {values.size} cells).")
    row_labels = [wrap(row, _LABEL) for row in rows]
    cell = min(_WIDEST_CELL, (MAX_WIDTH - max(map(text_width, row_labels)) - 0.4) / len(columns)) - 0.08
    column_labels = [wrap(column, cell) for column in columns]
    words = [text_width(word) for column in columns for word in wrap(column, 0.01).split("\n")]
    slanted = max(words) > cell or any(label.count("\n") > 2 for label in column_labels)
    body, (axes,) = new_panels(1)
    _draw_cells(axes, values, decimals)
    axes.set_yticks(range(len(rows)), row_labels, fontsize=TEXT_SIZE)
    axes.set_xticks(range(len(columns)), [wrap(name, 2.2) for name in columns] if slanted else column_labels)
    for label in axes.get_xticklabels():
        label.set_fontsize(TEXT_SIZE)
        if slanted:
            label.set(rotation=45, ha="left", va="bottom", rotation_mode="anchor")
    size = (_WIDEST_CELL * len(columns), row_height(row_labels, _CELL_HEIGHT, 0.1) * len(rows))
    return write_figure(body, path, size, remarks=foot, **frame)


def _draw_cells(axes, values: np.ndarray, decimals: int) -> None:
    blues, (low, high) = matplotlib.colormaps["Blues_r"], (f.reduce(values, axis=0) for f in (np.fmin, np.fmax))
    shade = np.where(high > low, (values - low) / np.where(high > low, high - low, 1), 0.5)
    best = values == low
    for (i, j), value in np.ndenumerate(values):
        corner = (j - 0.5, i - 0.5)
        if np.isnan(value):
            axes.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor="#999999", hatch="////", linewidth=0.8))
            continue
        color = blues(0.96 * shade[i, j])
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=color, edgecolor="white", linewidth=0.8))
        ink, weight = "black" if _luminance(color) > 0.179 else "white", "bold" if best[i, j] else "normal"
        place = {"ha": "center", "va": "center", "fontsize": TEXT_SIZE, "gid": f"cell {i} {j}"}
        axes.text(j, i, format_number(value, decimals), color=ink, fontweight=weight, **place)
    for i, j in zip(*np.nonzero(best)):
        for edge, width, gid in (("white", 2.6, None), (VERMILLION, 1.4, "best")):
            look: dict[str, Any] = {"fill": False, "edgecolor": edge, "linewidth": width, "zorder": 3, "gid": gid}
            axes.add_patch(Rectangle((j - 0.44, i - 0.42), 0.88, 0.84, **look))
    axes.set(xlim=(-0.5, values.shape[1] - 0.5), ylim=(values.shape[0] - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)


def _luminance(color: Sequence[float] | np.ndarray) -> float:
    """Relative luminance of an sRGB colour (WCAG 2): above 0.179 black has more contrast to it, below it white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
