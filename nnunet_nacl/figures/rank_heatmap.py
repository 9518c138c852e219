"""Rank heat map: which method comes where under each metric or data set (as fig. 2 of the NACL paper)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle

from nnunet_nacl.figures.checks import as_values, format_number
from nnunet_nacl.figures.sheet import Sheet, line_height, row_height, text_width, widest, widest_word, wrap
from nnunet_nacl.figures.style import (
    MAX_WIDTH,
    TEXT_SIZE,
    VERMILLION,
    check_path,
    figure_settings,
    save_figure,
)

__all__ = ["draw_rank_heatmap"]

_CELL_HEIGHT, _WIDEST_CELL, _NARROWEST_CELL = 0.34, 1.0, 0.42  # inches
_LABEL = 2.6  # widest row label


def draw_rank_heatmap(
    rows: Sequence[str],
    columns: Sequence[str],
    ranks: np.ndarray,
    path: str | os.PathLike,
    *,
    colour_by: str = "all",
    best: str | None = None,
    decimals: int = 0,
    what: str = "rank",
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    dpi: int = 150,
) -> Path:
    """Draw a table of ranks (or sums or means of ranks) with the number in every cell; dark is good.

    Colours differ in lightness alone, which any colour vision orders. A cell without a value is hatched.

    Args:
        rows: R names, best the methods: they lie flat however long they are.
        columns: C names, such as metrics.
        ranks: (R, C) ranks; low is good; NaN where there is none.
        path: Where to write; the suffix chooses PNG, SVG or PDF. Written atomically.
        colour_by: Range over which the colours are stretched: ``all`` cells, or each ``row`` or ``column`` on its own,
            where a sum stands beside its terms.
        best: Frame the lowest value of each ``row`` or ``column``, ties included; None frames nothing.
        decimals: Decimals of the numbers.
        what: What the numbers are, for the key.
        title: Heading of the figure.
        subtitle: Second line, for the data and the number of cases.
        notes: Sentences at the foot.
        dpi: Resolution of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: Sizes do not agree, nothing is given, an option is unknown, a value is infinite or below 0, or the
            suffix is not one of these.
        OSError: The file cannot be written.
    """
    path = check_path(path)
    rows, columns = list(rows), list(columns)
    values = _check(rows, columns, ranks, colour_by, best)
    shade = _shade(values, colour_by)
    missing = int(np.isnan(values).sum())
    foot = [f"Dark is good: a low {what} is better."]
    if colour_by != "all":
        foot[0] += f" Colours compare the cells of one {colour_by}."
    if best:
        foot[0] += f" Framed: lowest of its {best}."
    if missing:
        foot.append(f"Hatched: no value ({missing} of {values.size} cells).")
    row_labels = [wrap(row, _LABEL) for row in rows]
    left = widest(row_labels) + 0.24
    cell = min(_WIDEST_CELL, max(_NARROWEST_CELL, (MAX_WIDTH - left - 0.3) / len(columns)))
    column_labels = [wrap(column, cell - 0.08) for column in columns]
    flat = all(label.count("\n") <= 2 for label in column_labels) and max(map(widest_word, columns)) <= cell - 0.08
    if flat:
        head, right = (max(label.count("\n") for label in column_labels) + 1) * line_height(TEXT_SIZE) + 0.12, 0.12
    else:  # slanted, and the last ones need room at the right
        column_labels = [wrap(column, 2.2) for column in columns]
        slant = [text_width(label) * np.sqrt(0.5) + label.count("\n") * 0.12 for label in column_labels]
        head = max(slant) + 0.3
        right = max(0.12, max(s - (len(columns) - 0.6 - i) * cell for i, s in enumerate(slant)) + 0.1)
        cell = min(cell, max(_NARROWEST_CELL, (MAX_WIDTH - left - right) / len(columns)))
    height = row_height(row_labels, _CELL_HEIGHT, 0.1)
    with figure_settings():
        width = max(left + cell * len(columns) + right, 4.5)
        sheet = Sheet(width, head + height * len(rows) + 0.12, title=title, subtitle=subtitle, notes=[*foot, *notes])
        axis = sheet.axes(left, head, cell * len(columns), height * len(rows))
        _draw_cells(axis, values, shade, decimals, _best(values, best))
        axis.set_yticks(np.arange(len(rows)), row_labels, fontsize=TEXT_SIZE)
        axis.set_xticks(np.arange(len(columns)), column_labels, fontsize=TEXT_SIZE)
        if not flat:
            for label in axis.get_xticklabels():
                label.set(rotation=45, ha="left", va="bottom", rotation_mode="anchor")
        return save_figure(sheet.figure, path, dpi=dpi, title=title)


def _check(rows: list[str], columns: list[str], ranks, colour_by: str, best: str | None) -> np.ndarray:
    if not rows or not columns:
        raise ValueError(f"draw_rank_heatmap needs rows and columns, got {len(rows)} and {len(columns)}.")
    if len(ranks) != len(rows):
        raise ValueError(f"ranks must have a line for each of the {len(rows)} rows, got {len(ranks)}.")
    if colour_by not in ("all", "row", "column"):
        raise ValueError(f"colour_by must be 'all', 'row' or 'column', got {colour_by!r}.")
    if best not in (None, "row", "column"):
        raise ValueError(f"best must be 'row', 'column' or None, got {best!r}.")
    values = np.stack([as_values(line, f"The ranks of {row}", len(columns)) for row, line in zip(rows, ranks)])
    if (values < 0).any():
        raise ValueError(f"Ranks cannot be below 0, got {np.nanmin(values)}.")
    return values


def _along(by: str | None) -> int | None:
    return {"row": 1, "column": 0}.get(by)


def _shade(values: np.ndarray, colour_by: str) -> np.ndarray:
    """0 for the lowest to 1 for the highest of the range; 0.5 where all are the same."""
    axis = _along(colour_by)
    filled_low, filled_high = np.where(np.isnan(values), np.inf, values), np.where(np.isnan(values), -np.inf, values)
    low, high = filled_low.min(axis=axis, keepdims=True), filled_high.max(axis=axis, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(high > low, (values - low) / (high - low), np.where(np.isnan(values), np.nan, 0.5))


def _best(values: np.ndarray, best: str | None) -> np.ndarray:
    if best is None:
        return np.zeros(values.shape, dtype=bool)
    filled = np.where(np.isnan(values), np.inf, values)
    return np.isfinite(filled) & (filled == filled.min(axis=_along(best), keepdims=True))


def _draw_cells(axis, values: np.ndarray, shade: np.ndarray, decimals: int, best: np.ndarray) -> None:
    blues = matplotlib.colormaps["Blues_r"]
    for (i, j), value in np.ndenumerate(values):
        empty = np.isnan(value)
        color = (1, 1, 1, 1) if empty else blues(0.96 * shade[i, j])
        axis.add_patch(
            Rectangle(
                (j - 0.5, i - 0.5),
                1,
                1,
                facecolor=color,
                edgecolor="#999999" if empty else "white",
                hatch="////" if empty else None,
                linewidth=0.8,
            )
        )
        if empty:
            continue
        axis.text(
            j,
            i,
            format_number(value, decimals),
            ha="center",
            va="center",
            fontsize=TEXT_SIZE,
            gid=f"cell {i} {j}",
            color="black" if _luminance(color) > 0.179 else "white",
            fontweight="bold" if best[i, j] else "normal",
        )
    for i, j in zip(*np.nonzero(best)):
        axis.add_patch(
            Rectangle((j - 0.44, i - 0.42), 0.88, 0.84, fill=False, edgecolor="white", linewidth=2.6, zorder=3)
        )
        axis.add_patch(
            Rectangle(
                (j - 0.44, i - 0.42), 0.88, 0.84, fill=False, edgecolor=VERMILLION, linewidth=1.4, zorder=4, gid="best"
            )
        )
    axis.set(xlim=(-0.5, values.shape[1] - 0.5), ylim=(values.shape[0] - 0.5, -0.5))
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)


def _luminance(color: Sequence[float]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2): above 0.179 black has more contrast to it, below it white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
