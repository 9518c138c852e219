"""Predicted against true Dice of every case: can the quality that is promised be trusted?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from typing_extensions import Unpack

from nnunet_nacl.calibration.dice_estimate import coverage
from nnunet_nacl.calibration.quality_report import QualityRows
from nnunet_nacl.show.layout import Frame, draw_interval, new_panels, write_figure, write_no_value
from nnunet_nacl.show.style import BLUE, GREY, INK, VERMILLION, figure_settings

_HOLLOW = {"markerfacecolor": "white"}
_INSIDE: dict[str, Any] = {"marker": "o", "color": BLUE, "markersize": 4.5}
_OUTSIDE: dict[str, Any] = {"marker": "s", "color": VERMILLION, "markersize": 5.5, "markeredgewidth": 1.4, **_HOLLOW}
_ALONE: dict[str, Any] = {"marker": "D", "color": GREY, "markersize": 4.5, **_HOLLOW}  # without an interval


@figure_settings()
def draw_predicted_dice(
    rows: QualityRows, structures: Sequence[str], path: str | os.PathLike, **frame: Unpack[Frame]
) -> Path:
    """Draw a panel per structure and a point per case on or off the line where the prediction is true.

    A bar shows in which interval the true Dice was expected. Cases whose true Dice lies outside differ in marker and
    colour, and the heading of each panel counts them. A case without predicted or true Dice is left out and counted at
    the foot.

    Args:
        rows: Cases, with their predicted Dice.
        structures: Name of each of their structures.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
    """
    predicted = rows.predicted
    both = ~np.isnan(rows.true_dice + predicted[..., 0])
    total = len(both)
    gone = ", ".join(f"{name} ({total - n} of {total})" for name, n in zip(structures, both.sum(0)) if n < total)
    left_out = [f"Cases without a predicted or a true Dice are left out: {gone}."] if gone else []
    shown = [np.column_stack([predicted[here, i], rows.true_dice[here, i]]) for i, here in enumerate(both.T)]
    low_end = min(np.fmin.reduce(cases, axis=None, initial=1) for cases in shown)
    limits = (low_end - 0.04 * (1.02 - low_end), 1.02)
    body, axes = new_panels(len(structures), sharex=True, sharey=True)
    for i, (panel, name, cases) in enumerate(zip(axes, structures, shown)):
        _draw(panel, *cases.T)
        inside, covered = count_covered(rows, i)
        counted = f"{inside} of {covered} ({100 * inside / covered:.0f} %) within" if covered else "no intervals"
        panel.set_title(f"{name}\n{counted}")
        panel.set(xlabel="predicted Dice", ylabel="true Dice", xlim=limits, ylim=limits)
        panel.tick_params(labelbottom=True)
    size = (4.2 if len(structures) == 1 else 3.2, None)
    return write_figure(body, path, size, legend=_legend(rows.level), remarks=left_out, **frame)


def count_covered(rows: QualityRows, structure: int) -> tuple[int, int]:
    """How many cases have their true Dice within the interval, and how many have both."""
    low, high = rows.predicted[:, structure, 1:].T
    found = coverage(low, high, rows.true_dice[:, structure])
    return round(found.share * found.n) if found.n else 0, found.n


def _draw(axes: Axes, predicted: np.ndarray, low: np.ndarray, high: np.ndarray, true: np.ndarray) -> None:
    axes.grid(True)
    axes.axline((0, 0), slope=1, color=INK, linewidth=1, linestyle="--", gid="identity")
    if not len(predicted):
        write_no_value(axes)
    for x, y, lowest, highest in zip(predicted, true, low, high):
        look = _ALONE if np.isnan(lowest) else _INSIDE if lowest <= y <= highest else _OUTSIDE
        draw_interval(axes, x, lowest, highest, vertical=True, color=look["color"], alpha=0.35, gid="interval")
        axes.plot([x], [y], linestyle="none", zorder=3, **look)


def _legend(level: float) -> list[Line2D]:
    interval = f"the {100 * level:g} % interval around the prediction"
    return [
        Line2D([], [], linestyle="none", label=f"true Dice within {interval} (bar)", **_INSIDE),
        Line2D([], [], linestyle="none", label=f"outside {interval}", **_OUTSIDE),
        Line2D([], [], color=INK, linewidth=1, linestyle="--", label="true = predicted"),
    ]
