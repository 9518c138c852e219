"""Reliability diagrams: how often a confidence is right, for several methods side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nnunet_nacl.figures.checks import as_interval, as_values, draw_interval
from nnunet_nacl.figures.reliability_look import (
    ACCURACY,
    ACCURACY_EDGE,
    FEW_OPACITY,
    FEW_VOXELS,
    GAP_EDGES,
    GAP_FACES,
)
from nnunet_nacl.figures.sheet import Sheet, line_height, wrap
from nnunet_nacl.figures.style import (
    GREY,
    INK,
    MAX_WIDTH,
    SMALL_SIZE,
    TEXT_SIZE,
    check_path,
    figure_settings,
    save_figure,
)
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import ece

__all__ = ["draw_reliability"]

_HATCHES = {"over": "////", "under": "||||"}
_PANELS_PER_ROW = 4
_LEFT, _RIGHT, _GAP, _WIDEST, _SINGLE = 0.72, 0.15, 0.22, 2.7, 3.4  # inches
_HISTOGRAM, _BETWEEN, _BELOW = 0.62, 0.1, 0.5
_TICKS, _TICK_LABELS = (0, 0.2, 0.4, 0.6, 0.8, 1), ("0", "0.2", "0.4", "0.6", "0.8", "1")  # short: panels stand close


def draw_reliability(
    stats_by_method: Mapping[str, BinStats],
    path: str | os.PathLike,
    *,
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    band_label: str = "95 % interval over cases",
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    dpi: int = 150,
) -> Path:
    """Draw one panel per method: accuracy of each confidence bin above a histogram of the confidences.

    A bar ends, with a dark edge, at the accuracy of its bin. The gap to the bin's mean confidence is hatched, above the
    bar where the method is overconfident and inside it where it is underconfident; colour and hatching both tell which.
    Each panel states its number of voxels and its ECE pooled over them, which is not the mean over cases of a table.

    Args:
        stats_by_method: Sums of each method, in the order of the panels. Regions are drawn together, and
            the ECE is then the mean of theirs.
        path: Where to write; the suffix chooses PNG, SVG or PDF. Written atomically.
        bands: For any of the methods the lower and upper end, per bin, of an interval of the accuracy, such as a
            bootstrap over cases; NaN where a bin has none. Drawn as error bars.
        band_label: What the intervals are, for the legend.
        title: Heading of the figure.
        subtitle: Second line, for the data, the mask and the number of cases.
        notes: Sentences at the foot.
        dpi: Resolution of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: No method is given, the suffix is not one of these, or a band does not fit the bins.
        OSError: The file cannot be written.
    """
    path = check_path(path)
    if not stats_by_method:
        raise ValueError("draw_reliability needs the sums of at least one method, got none.")
    intervals = _check_bands(stats_by_method, bands or {})
    count = len(stats_by_method)
    rows = -(-count // _PANELS_PER_ROW)
    columns = -(-count // rows)
    side = min(_WIDEST if columns > 1 else _SINGLE, (MAX_WIDTH - _LEFT - _RIGHT - (columns - 1) * _GAP) / columns)
    used = _LEFT + columns * side + (columns - 1) * _GAP + _RIGHT
    width = max(used, 5.2)
    titles = [wrap(method, side + 0.1, TEXT_SIZE + 1) for method in stats_by_method]
    words = [wrap(_in_words(stats), side + _GAP - 0.1, SMALL_SIZE) for stats in stats_by_method.values()]
    below_title = max(text.count("\n") for text in words) * line_height(SMALL_SIZE) + 0.25
    heads = [_height(titles[row * columns : (row + 1) * columns]) + below_title for row in range(rows)]
    step = side + _BETWEEN + _HISTOGRAM + _BELOW
    with figure_settings():
        sheet = Sheet(
            width,
            sum(heads) + rows * step,
            title=title,
            subtitle=subtitle,
            notes=notes,
            legend=_legend(stats_by_method, band_label if any(map(any, intervals.values())) else None),
        )
        for i, (method, stats) in enumerate(stats_by_method.items()):
            row, column = divmod(i, columns)
            left = (width - used) / 2 + _LEFT + column * (side + _GAP)
            top = sum(heads[: row + 1]) + row * step
            upper = sheet.axes(left, top, side, side)
            lower = sheet.axes(left, top + side + _BETWEEN, side, _HISTOGRAM)
            upper.set_title(titles[i], fontsize=TEXT_SIZE + 1, pad=72 * below_title)
            upper.annotate(
                words[i],
                (0.5, 1),
                xycoords="axes fraction",
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=SMALL_SIZE,
                linespacing=1.2,
            )
            _draw_accuracy(upper, stats, intervals.get(method))
            _draw_histogram(lower, stats)
            upper.set_ylabel("accuracy" if column == 0 else "")
            lower.set_ylabel("voxels" if column == 0 else "")
            for axis in (upper, lower):
                axis.tick_params(labelleft=column == 0)
            lower.set_xlabel("confidence")
        return save_figure(sheet.figure, path, dpi=dpi, title=title)


def _check_bands(stats_by_method: Mapping[str, BinStats], bands) -> dict[str, list[tuple[float, float] | None]]:
    intervals = {}
    for method, (low, high) in bands.items():
        if method not in stats_by_method:
            raise ValueError(f"A band is given for {method!r}, which is not drawn: {', '.join(stats_by_method)}.")
        n_bins = stats_by_method[method].n_bins
        ends = zip(as_values(low, f"The band of {method}", n_bins), as_values(high, f"The band of {method}", n_bins))
        intervals[method] = [as_interval(end, f"bin {i} of {method}") for i, end in enumerate(ends)]
    return intervals


def _height(titles: list[str]) -> float:
    """Height in inches of the names above a row of panels."""
    return (max(text.count("\n") for text in titles) + 1) * line_height(TEXT_SIZE + 1)


def _in_words(stats: BinStats) -> str:
    if not stats.n_voxels:
        return "no voxel"
    return f"pooled ECE {ece(stats):.3f}, n = {_short(stats.n_voxels)} voxels"


def _few(stats: BinStats) -> np.ndarray:
    """Which bins hold some voxels, but too few."""
    count = stats.count.sum(axis=0)
    return (count > 0) & (count < FEW_VOXELS)


def _draw_accuracy(axis: Axes, stats: BinStats, intervals: list | None) -> None:
    count, few, width = stats.count.sum(axis=0), _few(stats), 1 / stats.n_bins
    confidence, correct = stats.confidence.sum(axis=0), stats.correct.sum(axis=0)
    axis.plot((0, 1), (0, 1), color=GREY, lw=1, ls="--", zorder=2.2)
    for i in np.flatnonzero(count):
        accuracy, mean, left = correct[i] / count[i], confidence[i] / count[i], stats.edges[i]
        alpha, side = FEW_OPACITY if few[i] else 1.0, "over" if mean > accuracy else "under"
        axis.bar(
            left,
            accuracy,
            width,
            align="edge",
            color=to_rgba(ACCURACY, alpha),
            edgecolor="white",
            lw=0.5,
            gid="accuracy",
        )
        axis.bar(
            left,
            abs(mean - accuracy),
            width,
            bottom=min(mean, accuracy),
            align="edge",
            hatch=_HATCHES[side],
            lw=0.6,
            facecolor=to_rgba(GAP_FACES[side], alpha),
            edgecolor=to_rgba(GAP_EDGES[side], alpha),
            gid=side,
        )
        axis.plot(
            (left + 0.1 * width, left + 0.9 * width),
            (accuracy, accuracy),
            lw=1.6,
            solid_capstyle="butt",
            color=to_rgba(ACCURACY_EDGE, alpha),
            zorder=2.3,
            gid="top",
        )
        if intervals:
            draw_interval(axis, left + width / 2, intervals[i], vertical=True, color=INK, gid="band")
    axis.set(xlim=(0, 1), ylim=(0, 1.01))
    axis.set_yticks(_TICKS, _TICK_LABELS)
    axis.set_xticks(_TICKS)
    axis.tick_params(labelbottom=False)


def _draw_histogram(axis: Axes, stats: BinStats) -> None:
    count = stats.count.sum(axis=0)
    axis.bar(
        stats.edges[:-1],
        count / max(count.sum(), 1),
        1 / stats.n_bins,
        align="edge",
        color="#7F7F7F",
        edgecolor="white",
        lw=0.5,
        gid="share",
    )
    axis.set(xlim=(0, 1), ylim=(0, 1.05))
    axis.set_xticks(_TICKS, _TICK_LABELS)
    axis.set_yticks((0, 0.5, 1), ("0", "50 %", "100 %"))


def _legend(stats_by_method: Mapping[str, BinStats], band_label: str | None) -> list:
    handles: list = [
        Patch(facecolor=ACCURACY, label="accuracy (dark edge)"),
        *(
            Patch(
                facecolor=GAP_FACES[side],
                edgecolor=GAP_EDGES[side],
                hatch=_HATCHES[side],
                lw=0.6,
                label=f"{side}confident by this much",
            )
            for side in ("over", "under")
        ),
        Line2D([], [], color=GREY, lw=1, ls="--", label="accuracy = confidence"),
    ]
    if band_label:
        handles.append(
            Line2D([], [], color=INK, lw=0, marker="|", markersize=11, markeredgewidth=1.3, label=band_label)
        )
    if any(_few(stats).any() for stats in stats_by_method.values()):
        handles.append(
            Patch(facecolor=to_rgba(ACCURACY, FEW_OPACITY), label=f"pale: fewer than {FEW_VOXELS} voxels in the bin")
        )
    return handles


def _short(n: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= size:
            return f"{n / size:.3g}{letter}"
    return str(n)
