"""Draws predicted against true Dice, with intervals."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from typing_extensions import Unpack

from nnunet_nacl.estimators.intervals import DEFAULT_ALPHA, coverage
from nnunet_nacl.estimators.learned_quality import DICE_COLUMNS
from nnunet_nacl.utilities import layout

LEVEL = f"{100 * (1 - DEFAULT_ALPHA):g} %"
"""Of the intervals of predicted Dice."""
_INSIDE = f"true Dice within the {LEVEL} interval (bar)"
_OUTSIDE = f"outside the {LEVEL} interval"
_NO_INTERVAL = "no interval"
_LOOKS: dict[str, dict[str, Any]] = {
    _INSIDE: {"marker": "o", "color": layout.BLUE},
    _OUTSIDE: {"marker": "s", "color": layout.VERMILLION, "markerfacecolor": "white"},
    _NO_INTERVAL: {"marker": "D", "color": layout.GREY, "markerfacecolor": "white"},
}
_DIAGONAL: dict[str, Any] = {"color": layout.INK, "linewidth": 1, "linestyle": "--"}


@layout.figure_settings()
def draw_predicted_dice(
    rows: pd.DataFrame,
    structures: Mapping[str, str],
    path: str | os.PathLike,
    **frame: Unpack[layout.Frame],
) -> Path:
    """Draw a panel per structure: a point per case, on the line where the prediction is true.

    A bar shows in which interval the true Dice was expected. Cases whose true Dice lies outside
    differ in marker and colour, and the heading of each panel counts them. A case without predicted
    or true Dice is left out and counted at the foot.

    Args:
        rows: With the columns ``key``, ``Dice`` and those of
            :data:`~nnunet_nacl.estimators.learned_quality.DICE_COLUMNS`, NaN where there is no
            value.
        structures: Name of each structure by nnU-Net's key.
        path: The file; its suffix says of which kind.
        **frame: See :func:`~nnunet_nacl.utilities.layout.write_figure`, as for the errors.

    Returns:
        The path.
    """
    predicted_dice, *ends = DICE_COLUMNS
    shown = rows.dropna(subset=["Dice", predicted_dice])
    lowest = min(0.9, shown[["Dice", predicted_dice, *ends]].min(axis=None)) if len(shown) else 0.0
    body, panels = layout.new_panels(len(structures), (3.2, 3.4), sharex=True, sharey=True)
    drawn = set[str]()
    for panel, (key, name) in zip(panels, structures.items()):
        drawn |= _draw_cases(panel, shown[shown.key == key])
        panel.axline((0, 0), slope=1, gid="identity", **_DIAGONAL)
        panel.grid(True)
        heading = f"{layout.wrap(name, 2.6, 10)}\n{covered_text(rows[rows.key == key])} within"
        panel.set_title(heading)
        panel.set(
            xlabel="predicted Dice",
            ylabel="true Dice",
            xlim=(lowest - 0.02, 1.02),
            ylim=(lowest - 0.02, 1.02),
        )
        panel.set_box_aspect(1)
        panel.tick_params(labelbottom=True)
    legend = [
        Line2D([], [], linestyle="none", label=text, **look)
        for text, look in _LOOKS.items()
        if text in drawn
    ]
    legend.append(Line2D([], [], label="true = predicted", **_DIAGONAL))
    remarks = []
    num_left_out = len(rows) - len(shown)
    if num_left_out:
        remarks.append(
            f"Without a predicted or a true Dice, so left out: {num_left_out} of {len(rows)}."
        )
    return layout.write_figure(body, path, legend=legend, remarks=remarks, **frame)


def _draw_cases(axes: Axes, rows: pd.DataFrame) -> set[str]:
    """Points and bars of the cases of one structure; the texts of the looks that are drawn."""
    predicted, low, high, true = rows[[*DICE_COLUMNS, "Dice"]].to_numpy(float).T
    is_inside = (low <= true) & (true <= high)
    has_interval = ~np.isnan(low)
    colors = np.where(is_inside, layout.BLUE, layout.VERMILLION)[has_interval]
    axes.vlines(
        predicted[has_interval],
        low[has_interval],
        high[has_interval],
        colors=colors,
        alpha=0.35,
        gid="interval",
    )
    drawn = set()
    cases_by_look = {
        _INSIDE: is_inside,
        _OUTSIDE: has_interval & ~is_inside,
        _NO_INTERVAL: ~has_interval,
    }
    for text, is_drawn in cases_by_look.items():
        axes.plot(
            predicted[is_drawn],
            true[is_drawn],
            linestyle="none",
            zorder=3,
            markersize=5,
            **_LOOKS[text],
        )
        if is_drawn.any():
            drawn.add(text)
    return drawn


def covered_text(rows: pd.DataFrame) -> str:
    """How many cases have their true Dice within the interval, of those that have both."""
    _, low, high = DICE_COLUMNS
    covered = coverage(rows[low], rows[high], rows.Dice)
    if not covered.n:
        return "0 cases"
    return f"{round(covered.share * covered.n)} of {covered.n} cases"
