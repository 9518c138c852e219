"""Rank heat map: which method comes where under each metric or data set (as fig. 2 of the NACL paper)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from typing_extensions import Unpack

from nnunet_nacl.show.layout import Frame, new_panels, row_height, wrap, write_figure
from nnunet_nacl.show.style import TEXT_SIZE, VERMILLION, figure_settings
from nnunet_nacl.show.values import format_number

_CELL_HEIGHT, _WIDEST_CELL = 0.34, 1.0  # inches
_LABEL = 2.6  # widest row label
_BRIGHT = 0.3  # shades of blue from here on are bright enough for black numbers


@figure_settings()
def draw_rank_heatmap(
    rows: Sequence[str],
    columns: Sequence[str],
    ranks: np.ndarray,
    path: str | os.PathLike,
    *,
    decimals: int,
    what: str,
    **frame: Unpack[Frame],
) -> Path:
    """Draw a table of ranks (or sums or means of ranks) with the number in every cell; dark is good.

    Colours compare the cells of a column, as a sum may stand beside its terms. They differ in lightness alone, which
    any colour vision orders. The lowest of each column is framed, ties included; a cell without a value is hatched.

    Args:
        rows: R names of methods.
        columns: C short names of metrics.
        ranks: (R, C) ranks, 0 or more; low is good; NaN where there is none.
        decimals: Decimals of the numbers.
        what: What the numbers are, for the key.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
    """
    missing = int(np.isnan(ranks).sum())
    foot = [f"Dark is good: a low {what} is better. Colours compare the cells of one column, whose lowest is framed."]
    if missing:
        foot.append(f"Hatched: no value ({missing} of {ranks.size} cells).")
    row_labels = [wrap(row, _LABEL) for row in rows]
    body, (axes,) = new_panels(1)
    _draw_cells(axes, ranks, decimals)
    axes.set_yticks(range(len(rows)), row_labels, fontsize=TEXT_SIZE)
    axes.set_xticks(range(len(columns)), columns, fontsize=TEXT_SIZE)
    size = (_WIDEST_CELL * len(columns), row_height(row_labels, _CELL_HEIGHT, 0.1) * len(rows))
    return write_figure(body, path, size, remarks=foot, **frame)


def _draw_cells(axes: Axes, values: np.ndarray, decimals: int) -> None:
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
        ink, weight = "black" if shade[i, j] > _BRIGHT else "white", "bold" if best[i, j] else "normal"
        place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": TEXT_SIZE, "gid": f"cell {i} {j}"}
        axes.text(j, i, format_number(value, decimals), color=ink, fontweight=weight, **place)
    for i, j in zip(*np.nonzero(best)):
        for edge, width, gid in (("white", 2.6, None), (VERMILLION, 1.4, "best")):
            look: dict[str, Any] = {"fill": False, "edgecolor": edge, "linewidth": width, "zorder": 3, "gid": gid}
            axes.add_patch(Rectangle((j - 0.44, i - 0.42), 0.88, 0.84, **look))
    axes.set(xlim=(-0.5, values.shape[1] - 0.5), ylim=(values.shape[0] - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
