"""Forest plot: paired differences of each method to a reference, with their intervals and what their tests say."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from typing_extensions import Unpack

from nnunet_nacl.show import layout

_ROW, _LABEL, _PANEL, _AROUND = 0.27, 2.3, 3.2, 1.1  # inches
_LOOKS: dict[str, dict[str, Any]] = {
    "better": {"color": layout.BLUE, "marker": "o", "markerfacecolor": layout.BLUE},
    "worse": {"color": layout.VERMILLION, "marker": "s", "markerfacecolor": layout.VERMILLION},
    "none": {"color": layout.GREY, "marker": "D", "markerfacecolor": "white"},
    "untested": {"color": layout.GREY, "marker": "X", "markerfacecolor": layout.GREY},
}
_WORDS = {
    "better": "better than {}: p (Holm) below 0.05",
    "worse": "worse than {}: p (Holm) below 0.05",
    "none": "no difference shown",
    "untested": "not tested: too few cases, whose interval is too narrow to rely on",
}
_POINT: dict[str, Any] = {"markersize": 6.5, "markeredgewidth": 1.2}


@layout.figure_settings()
def draw_differences(
    rows: pd.DataFrame,
    path: str | os.PathLike,
    *,
    reference: str,
    better: Mapping[str, str],
    **frame: Unpack[layout.Frame],
) -> Path:
    """Draw one panel per metric and one line per method, in the order of their first appearance.

    Args:
        rows: One for each method and metric: ``label``, ``title`` of the metric with its unit, ``difference`` (method
            less reference), ``low`` and ``high`` of its interval, ``n`` cases, ``p_holm`` and ``verdict``, as
            :attr:`~nnunet_nacl.compare.comparison.Comparison.statistics` has them; NaN where there is none.
        path: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
        reference: The method that is subtracted.
        better: By title of a metric: ``higher`` or ``lower`` values are better.
        frame: As there.
    """
    methods = list(dict.fromkeys(rows["label"]))
    labels = [layout.wrap(method, _LABEL) for method in methods]
    width = max(map(layout.text_width, labels))
    panels = rows.groupby("title", sort=False)
    beside = min(len(panels), max(1, int((layout.MAX_WIDTH - width) / (_PANEL - 0.4))), 3)
    # all rows hold the tallest of the labels
    row = max(_ROW, *((label.count("\n") + 1) * layout.line_height(layout.TEXT_SIZE) + 0.02 for label in labels))
    size = _PANEL + width / beside, row * len(methods) + _AROUND
    body, axes = layout.new_panels(len(panels), size, beside, sharey=True)
    for panel, (title, of_metric) in zip(axes, panels):
        panel.set_title(title, loc="left", fontweight="bold", pad=72 * layout.line_height(layout.SMALL_SIZE) + 4)
        _draw_panel(panel, of_metric, methods, better[title])
        panel.set_yticks(range(len(labels)), labels, fontsize=layout.TEXT_SIZE)
        panel.set_ylim(len(labels) - 0.5, -0.5)  # the first at the top
        panel.tick_params(axis="y", length=0)
        panel.tick_params(labelbottom=True)
    n, lacking = rows["n"], rows[rows["difference"].isna()]
    foot = [f"n = {n.min()} cases." if n.nunique() == 1 else f"n = {n.min()} to {n.max()} cases."]
    foot += [f"{title}: no value for {', '.join(of['label'])}." for title, of in lacking.groupby("title", sort=False)]
    drawn = set(rows["verdict"].replace("mixed", "none"))
    legend = [
        Line2D(
            [], [], linewidth=1.3, markeredgecolor=look["color"], label=_WORDS[key].format(reference), **_POINT, **look
        )
        for key, look in _LOOKS.items()
        if key in drawn
    ]
    return layout.write_figure(body, path, legend=legend, remarks=foot, **frame)


def _draw_panel(axes: Axes, rows: pd.DataFrame, methods: list[str], better: str) -> None:
    """Points and intervals, and p-values at the right."""
    axes.grid(True, axis="x")
    axes.axvline(0, color=layout.INK, linewidth=1, gid="zero")
    axes.locator_params(axis="x", nbins=4)
    place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    place |= {"fontsize": layout.SMALL_SIZE, "va": "center"}
    tested = rows["p_holm"].notna().any()
    if tested:
        axes.annotate("p (Holm)", (1, -0.5), (45, 4), ha="right", color=layout.GREY, **place)
    for row in rows.itertuples():
        y, look = methods.index(row.label), _LOOKS.get(row.verdict, _LOOKS["none"])
        if math.isnan(row.difference):
            axes.annotate("no value", (0.5, y), (0, 0), ha="center", color=layout.GREY, style="italic", **place)
            continue
        layout.draw_interval(axes, y, row.low, row.high, vertical=False, color=look["color"], gid="interval")
        point = {**_POINT, **look, "markeredgecolor": look["color"]}
        axes.plot([row.difference], [y], linestyle="none", zorder=3, label=row.label, **point)
        if tested:
            p = "–" if math.isnan(row.p_holm) else "< 0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"
            axes.annotate(p, (1, y), (45, 0), ha="right", **place)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.1 * high), max(high, -0.1 * low))
    axes.spines["left"].set_visible(False)
    left, right = ("worse", "better") if better == "higher" else ("better", "worse")
    label = axes.set_xlabel(f"← {left}", loc="left")
    axes.annotate(f"{right} →", (1, 1), xycoords=("axes fraction", label), ha="right", va="top")
