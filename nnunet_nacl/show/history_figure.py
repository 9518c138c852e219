"""What the lists of several runs say, drawn over time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from nnunet_nacl.review.history import Run
from nnunet_nacl.show import layout

_MOST_TICKS = 3


@layout.figure_settings()
def draw_history(runs: Sequence[Run], path: str | os.PathLike) -> Path:
    """Draw scores, share flagged and share unlike of runs, with the calibration scans' scores behind the first.

    Args:
        runs: The oldest first.
        path: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
    """
    body, panels = layout.new_panels(3, (3.0, 3.1))
    times = [datetime.fromisoformat(run.created) for run in runs]
    names = ("low", "median", "high", "flagged", "unlike", "calibration_low", "calibration_high")
    low, median, high, flagged, unlike, lowest, highest = np.array(
        [[getattr(run, name) for name in names] for run in runs]
    ).T
    place = np.arange(len(runs))
    for i in place:  # of one run there would be no area
        panels[0].fill_between([i - 0.4, i + 0.4], lowest[i], highest[i], color=layout.PALE)
    layout.draw_interval(panels[0], place, low, high, vertical=True, color=layout.BLUE)
    for axes, values, title in zip(panels, (median, flagged, unlike), ("Score", "Share flagged", "Share unlike")):
        axes.plot(place, values, marker="o", color=layout.BLUE, gid=title)
        axes.set_title(title, loc="left")
        axes.set(xlim=(-0.6, len(runs) - 0.4), ylim=(0, 1.02))
        shown = place[:: -(-len(runs) // _MOST_TICKS)]
        axes.set_xticks(shown, [f"{times[i]:%Y-%m-%d\n%H:%M}\nn = {runs[i].n_scans}" for i in shown])
        axes.grid(True)
    legend = [
        Line2D([], [], marker="o", color=layout.BLUE, label="scans: median, and 5 to 95 % of them"),
        Line2D([], [], linewidth=8, color=layout.PALE, label="5 to 95 % of the calibration scans"),
    ]
    remark = (
        "Score: the Dice that the worst structure of a scan can expect. A run whose scores leave the calibration "
        "scans', or with many scans unlike them, is no longer what the map was learned for."
    )
    return layout.write_figure(body, path, legend=legend, remarks=[remark], title="Runs over time", dpi=110)
