"""Draws the differences between methods as a forest plot."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from typing_extensions import Unpack

from nnunet_nacl.comparison.headline import UNCONFIRMED
from nnunet_nacl.metrics.statistics import VERDICT_TEXTS
from nnunet_nacl.utilities import layout

# inches
_LABEL_WIDTH = 2.0
_PANEL_WIDTH = 2.6
_HEIGHT_AROUND_ROWS = 1.0
_POINT: dict[str, Any] = {"markersize": 6.5, "markeredgewidth": 1.2}


@dataclass(frozen=True)
class _OutcomeLook:
    """How the points of an outcome look, and its text in the legend, with braces for the
    reference."""

    text: str
    color: str
    marker: str
    face_color: str | None = None

    @property
    def marker_options(self) -> dict[str, Any]:
        """Options of Matplotlib's lines."""
        options: dict[str, Any] = {"color": self.color, "marker": self.marker, **_POINT}
        if self.face_color is not None:
            options["markerfacecolor"] = self.face_color
        return options


_LOOKS = {
    "better": _OutcomeLook("better than {}: p (Holm) below 0.05", layout.BLUE, "o"),
    "worse": _OutcomeLook("worse than {}: p (Holm) below 0.05", layout.VERMILLION, "s"),
    UNCONFIRMED: _OutcomeLook(
        "interval excludes 0; not significant after correction for the tests of its family",
        layout.GREY,
        "D",
    ),
    "none": _OutcomeLook(VERDICT_TEXTS["none"], layout.GREY, "D", "white"),
    "equal": _OutcomeLook(VERDICT_TEXTS["equal"], layout.GREY, "o", "white"),
    "untested": _OutcomeLook(
        "not tested: too few cases, whose interval is too narrow to rely on", layout.GREY, "X"
    ),
}


@layout.figure_settings()
def draw_differences(
    rows: pd.DataFrame,
    path: str | os.PathLike,
    *,
    reference: str,
    better: Mapping[str, str],
    **frame: Unpack[layout.Frame],
) -> Path:
    """Draw a forest plot: a panel for each metric, a line for each method.

    Args:
        rows: Of :attr:`~nnunet_nacl.comparison.comparison.Comparison.statistics`, with the
            ``label`` of the method, the ``title`` of the metric and the ``outcome`` of the test,
            see :func:`~nnunet_nacl.comparison.headline.outcome_of`; methods and metrics are drawn
            in the order of their first appearance.
        path: The file; its suffix says of which kind.
        reference: Label of the method that others are compared with.
        better: By title whether ``higher`` or ``lower`` values are better.
        **frame: See :func:`~nnunet_nacl.utilities.layout.write_figure`, as for the errors.

    Returns:
        The path.
    """
    methods = list(dict.fromkeys(rows["label"]))
    labels = [layout.wrap(method, _LABEL_WIDTH) for method in methods]
    by_title = rows.groupby("title", sort=False)
    num_columns = min(len(by_title), 3)
    most_lines = max(label.count("\n") for label in labels) + 1
    row_height = layout.height_of(most_lines) + 0.1
    panel_size = (
        _PANEL_WIDTH + _LABEL_WIDTH / num_columns,
        row_height * len(methods) + _HEIGHT_AROUND_ROWS,
    )
    body, panels = layout.new_panels(len(by_title), panel_size, num_columns, sharey=True)
    for panel, (title, rows_of_metric) in zip(panels, by_title):
        panel.set_title(layout.wrap(title, _PANEL_WIDTH, 10), loc="left", fontweight="bold")
        _draw_panel(panel, rows_of_metric, methods, better[title])
        panel.set_yticks(range(len(labels)), labels, fontsize=layout.TEXT_SIZE)
        panel.set_ylim(len(labels) - 0.5, -0.5)  # the first at the top
        panel.tick_params(axis="y", length=0)
    legend = _make_legend(set(rows["outcome"]), reference)
    return layout.write_figure(body, path, legend=legend, remarks=_remarks(rows), **frame)


def _draw_panel(axes: Axes, rows: pd.DataFrame, methods: Sequence[str], better: str) -> None:
    """Points and intervals; nothing where there is no value."""
    axes.grid(True, axis="x")
    axes.axvline(0, color=layout.INK, linewidth=1, gid="zero")
    axes.locator_params(axis="x", nbins=4)
    for row in rows.dropna(subset="difference").itertuples():
        y = methods.index(row.label)
        look = _LOOKS[row.outcome]
        if not np.isnan(row.low):
            axes.hlines(y, row.low, row.high, color=look.color, gid="interval")
        axes.plot(
            [row.difference],
            [y],
            linestyle="none",
            zorder=3,
            label=row.label,
            **look.marker_options,
        )
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.1 * high), max(high, -0.1 * low))
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("worse ← 0 → better" if better == "higher" else "better ← 0 → worse")


def _remarks(rows: pd.DataFrame) -> list[str]:
    """How many cases there are, and which methods have no value."""
    fewest = rows["n"].min()
    most = rows["n"].max()
    number_of_cases = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    remarks = [f"n = {number_of_cases} cases."]
    without_value = rows[rows["difference"].isna()]
    for title, rows_of_metric in without_value.groupby("title", sort=False):
        remarks.append(f"{title}: no value for {', '.join(rows_of_metric['label'])}.")
    return remarks


def _make_legend(outcomes: set[str], reference: str) -> list[Line2D]:
    legend = []
    for outcome, look in _LOOKS.items():
        if outcome in outcomes:
            label = look.text.format(reference)
            legend.append(Line2D([], [], linewidth=1.3, label=label, **look.marker_options))
    return legend
