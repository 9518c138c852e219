"""Forest plot: paired differences of each method to a reference, with their intervals over cases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from typing_extensions import Unpack

from nnunet_nacl.metrics.bootstrap import CONFIDENCE, Interval
from nnunet_nacl.show import layout

_ROW, _LABEL, _PANEL, _AROUND = 0.27, 2.3, 2.6, 1.1  # inches
_LOOKS: dict[str, dict[str, Any]] = {
    "better": {"color": layout.BLUE, "marker": "o", "markerfacecolor": layout.BLUE},
    "worse": {"color": layout.VERMILLION, "marker": "s", "markerfacecolor": layout.VERMILLION},
    "open": {"color": layout.GREY, "marker": "D", "markerfacecolor": "white"},
    "untested": {"color": layout.GREY, "marker": "X", "markerfacecolor": layout.GREY},
}
_POINT: dict[str, Any] = {"markersize": 6.5, "markeredgewidth": 1.2}


@dataclass(frozen=True)
class ForestRow:
    """Difference of a method to the reference under one metric.

    Attributes:
        label: The method.
        metric: Name of the metric with its unit, the heading of its panel.
        difference: Method minus reference; NaN where there is none.
        better: ``higher`` or ``lower`` values of the metric are better.
        p_value: Of a test of the difference, corrected for the number of tests; NaN with too few cases for one; None
            where there are no tests.
    """

    label: str
    metric: str
    difference: Interval
    better: str
    p_value: float | None = None

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval excludes 0, else ``open``; ``untested`` with too few cases."""
        if self.p_value is not None and np.isnan(self.p_value):
            return "untested"  # an interval over so few is too narrow to rely on
        low, high = self.difference.low, self.difference.high
        if self.lacks or low <= 0 <= high:
            return "open"
        return "better" if (low > 0) == (self.better == "higher") else "worse"

    @property
    def lacks(self) -> str:
        """``value``, ``interval`` or nothing."""
        return "value" if np.isnan(self.difference.mean) else "interval" if np.isnan(self.difference.low) else ""

    @property
    def p_text(self) -> str:
        """The p-value as it is written."""
        if self.p_value is None or np.isnan(self.p_value):
            return "–"
        return "< 0.001" if self.p_value < 0.001 else f"{self.p_value:.3f}"


@layout.figure_settings()
def draw_differences(
    rows: Sequence[ForestRow],
    path: str | os.PathLike,
    *,
    reference: str,
    **frame: Unpack[layout.Frame],
) -> Path:
    """Draw one panel per metric and one line per method; an interval that excludes 0 differs in marker and colour.

    Args:
        rows: The differences, one for each method and metric; panels and lines come in the order of their first
            appearance.
        reference: The method that is subtracted.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
    """
    panels = {row.metric: [other for other in rows if other.metric == row.metric] for row in rows}
    methods = list(dict.fromkeys(row.label for row in rows))
    counts = {row.difference.n for row in rows}
    columns = [("n", {row: str(row.difference.n) for row in rows})] if len(counts) > 1 else []
    foot = [] if columns else [f"n = {counts.pop()} cases."]
    if any(row.p_text != "–" for row in rows):
        foot.append("p is corrected for the number of tests, the intervals are not.")
        columns.append(("p (Holm)", {row: row.p_text for row in rows}))
    foot += [
        f"{metric}: no {missing} for {', '.join(names)}."
        for metric, of_metric in panels.items()
        for missing in ("value", "interval")
        if (names := [row.label for row in of_metric if row.lacks == missing])
    ]
    labels = [layout.wrap(method, _LABEL) for method in methods]
    width, side = max(map(layout.text_width, labels)), 0.6 * len(columns)
    beside = min(len(panels), max(1, int((9 - width) / (_PANEL + side - 0.4))), 3)
    # all rows hold the tallest of the labels
    row = max(_ROW, *((label.count("\n") + 1) * layout.line_height(layout.TEXT_SIZE) + 0.02 for label in labels))
    size = _PANEL + side + width / beside, row * len(methods) + _AROUND
    body, axes = layout.new_panels(len(panels), size, beside, sharey=True)
    for panel, (metric, of_metric) in zip(axes, panels.items()):
        panel.set_title(metric, loc="left", fontweight="bold", pad=72 * layout.line_height(layout.SMALL_SIZE) + 4)
        _draw_panel(panel, of_metric, methods, columns)
        panel.set_yticks(range(len(labels)), labels, fontsize=layout.TEXT_SIZE)
        panel.set_ylim(len(labels) - 0.5, -0.5)  # the first at the top
        panel.tick_params(axis="y", length=0)
        panel.tick_params(labelbottom=True)
    legend = _legend(reference, {row.verdict for row in rows if row.lacks != "value"})
    return layout.write_figure(body, path, legend=legend, remarks=foot, **frame)


def _draw_panel(
    axes: Axes, rows: list[ForestRow], methods: list[str], columns: list[tuple[str, dict[ForestRow, str]]]
) -> None:
    """Points and intervals, and numbers of cases and p-values at the right."""
    axes.grid(True, axis="x")
    axes.axvline(0, color=layout.INK, linewidth=1, gid="zero")
    axes.locator_params(axis="x", nbins=4)
    place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    place |= {"fontsize": layout.SMALL_SIZE, "va": "center"}
    for row in rows:
        y, look, difference = methods.index(row.label), _LOOKS[row.verdict], row.difference
        if row.lacks == "value":
            axes.annotate("no value", (0.5, y), (0, 0), ha="center", color=layout.GREY, style="italic", **place)
            continue
        layout.draw_interval(
            axes, y, difference.low, difference.high, vertical=False, color=look["color"], gid="interval"
        )
        point = {**_POINT, **look, "markeredgecolor": look["color"]}
        axes.plot([difference.mean], [y], linestyle="none", zorder=3, label=row.label, **point)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.1 * high), max(high, -0.1 * low))
    axes.spines["left"].set_visible(False)
    left, right = ("worse", "better") if rows[0].better == "higher" else ("better", "worse")
    label = axes.set_xlabel(f"← {left}", loc="left")
    axes.annotate(f"{right} →", (1, 1), xycoords=("axes fraction", label), ha="right", va="top")
    for offset, (heading, texts) in zip((40, 85), columns):
        axes.annotate(heading, (1, -0.5), (offset, 4), ha="right", color=layout.GREY, **place)
        for row in rows:
            axes.annotate(texts[row], (1, methods.index(row.label)), (offset, 0), ha="right", **place)


def _legend(reference: str, verdicts: set[str]) -> list[Line2D]:
    """The three verdicts of a test, unless nothing is tested, and what is not tested."""
    interval = f"the {100 * CONFIDENCE:g} % interval of the difference"
    words = {
        "better": f"better than {reference}: {interval} excludes 0",
        "worse": f"worse than {reference}: {interval} excludes 0",
        "open": f"undecided: {interval} holds 0",
        "untested": "not tested: too few cases, whose interval is too narrow to rely on",
    }
    drawn = verdicts if verdicts == {"untested"} else verdicts | {"better", "worse", "open"}
    return [
        Line2D([], [], linewidth=1.3, markeredgecolor=look["color"], label=words[verdict], **_POINT, **look)
        for verdict, look in _LOOKS.items()
        if verdict in drawn
    ]
