"""Draws reliability diagrams: the accuracy of voxels by their confidence."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from typing_extensions import Unpack

from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import ece
from nnunet_nacl.utilities import layout

_ACCURACY = "#4A9CCB"
_SHARE = "#7F7F7F"
_GAPS = {"over": layout.VERMILLION, "under": layout.GREEN}
_PANELS_PER_ROW = 4
_PANEL_WIDTH = 3.2  # inches
_TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1)
_TICK_LABELS = ("0", "0.2", "0.4", "0.6", "0.8", "1")  # short: panels stand close
_BAR: dict[str, Any] = {"align": "edge", "edgecolor": "white", "lw": 0.5}
_INTERVAL: dict[str, Any] = {
    "color": layout.INK,
    "lw": 0,
    "marker": "|",
    "markersize": 11,
    "markeredgewidth": 1.3,
}

Band = tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]
"""(n_bins,) low and high ends of an interval of each bin's accuracy; NaN where a bin has none."""


class _Panel(NamedTuple):
    """The two drawings of a method, one below the other."""

    accuracy: Axes
    share: Axes


@layout.figure_settings()
def draw_reliability(
    stats_by_method: Mapping[str, BinStats],
    path: str | os.PathLike,
    *,
    bands: Mapping[str, Band] | None = None,
    **frame: Unpack[layout.Frame],
) -> Path:
    """Draw one panel per method: accuracy of each confidence bin above a histogram of confidences.

    The gap between a bar and its bin's mean confidence has a colour of its own. Each panel states
    its number of voxels and its ECE pooled over them, which is not the mean over cases of a table.
    Regions are drawn together, and the ECE is then the mean of theirs.

    Args:
        stats_by_method: Sums in each bin, by label of the method.
        path: The file; its suffix says of which kind.
        bands: Of any of the methods, the ends of an interval of each bin's accuracy, NaN where a
            bin has none.
        **frame: See :func:`~nnunet_nacl.utilities.layout.write_figure`, as for further errors.

    Returns:
        The path.

    Raises:
        ValueError: No method is given.
    """
    if not stats_by_method:
        raise ValueError("draw_reliability needs the sums of at least one method, got none.")
    band_by_method = {method: np.array(band, float) for method, band in (bands or {}).items()}
    num_methods = len(stats_by_method)
    num_rows = -(-num_methods // _PANELS_PER_ROW)  # rounded up
    num_columns = -(-num_methods // num_rows)
    body, panels = _new_panels(num_methods, num_rows, num_columns)
    title_width = 8 / max(num_columns, 3)  # inches
    for panel_number, (method, stats) in enumerate(stats_by_method.items()):
        panel = panels[panel_number]
        title = f"{layout.wrap(method, title_width, 10)}\n{_summary(stats)}"
        panel.accuracy.set_title(title, fontsize=layout.TEXT_SIZE)
        _draw_accuracy(panel.accuracy, stats, band_by_method.get(method))
        _draw_share(panel.share, stats)
        if panel_number % num_columns == 0:  # the first of a row
            panel.accuracy.set_ylabel("accuracy")
            panel.share.set_ylabel("voxels")
    has_interval = any(np.isfinite(band).any() for band in band_by_method.values())
    return layout.write_figure(body, path, legend=_make_legend(has_interval), **frame)


def _new_panels(
    num_methods: int, num_rows: int, num_columns: int
) -> tuple[SubFigure, list[_Panel]]:
    body, axes = layout.new_panels(
        2 * num_rows * num_columns,
        (_PANEL_WIDTH, 0.65 * _PANEL_WIDTH),
        num_columns,
        sharex=True,
        sharey="row",
        height_ratios=[4, 1] * num_rows,
    )
    # rows of panels, accuracy or share, columns
    by_row = np.reshape(np.array(axes, object), (num_rows, 2, num_columns))
    pairs = by_row.swapaxes(1, 2).reshape(-1, 2)
    for unused in pairs[num_methods:].flat:
        unused.remove()
    return body, [_Panel(accuracy, share) for accuracy, share in pairs[:num_methods]]


def _summary(stats: BinStats) -> str:
    """Pooled ECE and number of voxels."""
    if not stats.n_voxels:
        return "no voxel"
    return f"pooled ECE {ece(stats):.3f},\nn = {stats.n_voxels:,} voxels"


def _draw_accuracy(axes: Axes, stats: BinStats, band: np.ndarray | None) -> None:
    """Accuracy of each bin, the gap to its mean confidence, and perhaps intervals."""
    count = stats.count.sum(axis=0)
    is_shown = count > 0
    num_shown = count[is_shown]
    accuracy = stats.correct.sum(axis=0)[is_shown] / num_shown
    confidence = stats.confidence.sum(axis=0)[is_shown] / num_shown
    width = 1 / stats.n_bins
    left = stats.edges[:-1]
    is_overconfident = confidence > accuracy
    colors = [_GAPS["over"] if is_over else _GAPS["under"] for is_over in is_overconfident]
    axes.bar(left[is_shown], accuracy, width, color=_ACCURACY, gid="accuracy", **_BAR)
    axes.bar(
        left[is_shown], confidence - accuracy, width, accuracy, color=colors, gid="gap", **_BAR
    )
    axes.plot((0, 1), (0, 1), color=layout.GREY, lw=1, ls="--", zorder=2.2)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), yticks=_TICKS, yticklabels=_TICK_LABELS)
    if band is not None:
        has_interval = is_shown & np.isfinite(band).all(axis=0)
        low, high = band[:, has_interval]
        axes.vlines(left[has_interval] + width / 2, low, high, color=layout.INK, gid="band")


def _draw_share(axes: Axes, stats: BinStats) -> None:
    """Share of the voxels in each bin."""
    count = stats.count.sum(axis=0)
    share = count / max(count.sum(), 1)
    axes.bar(stats.edges[:-1], share, 1 / stats.n_bins, color=_SHARE, gid="share", **_BAR)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1.05),
        xticks=_TICKS,
        xticklabels=_TICK_LABELS,
        xlabel="confidence",
    )
    axes.set_yticks((0, 0.5, 1), ("0", "50 %", "100 %"))
    axes.tick_params(labelbottom=True)


def _make_legend(has_interval: bool) -> list[Artist]:
    legend: list[Artist] = [Patch(facecolor=_ACCURACY, label="accuracy")]
    for side, color in _GAPS.items():
        legend.append(Patch(facecolor=color, label=f"{side}confident by this much"))
    legend.append(Line2D([], [], color=layout.GREY, lw=1, ls="--", label="accuracy = confidence"))
    if has_interval:
        legend.append(Line2D([], [], label="95 % interval", **_INTERVAL))
    return legend
