"""Are promises kept: reliability diagrams of voxels' confidence, and predicted against true Dice of every case."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from typing_extensions import Unpack

from nnunet_nacl.numbers.binning import BinStats
from nnunet_nacl.numbers.calibration_error import ece
from nnunet_nacl.numbers.learned_quality import DEFAULT_ALPHA, DICE, coverage
from nnunet_nacl.show import layout

FEW_VOXELS = 100  # bins with fewer voxels are drawn pale: their accuracy means little
_ACCURACY, _ACCURACY_EDGE, _FEW_OPACITY = "#4A9CCB", "#003E63", 0.35
_GAPS: dict[str, dict[str, Any]] = {  # the latter lies inside the bar: a paler blue
    "over": {"hatch": "////", "facecolor": "#FFFFFF", "edgecolor": layout.VERMILLION, "lw": 0.6},
    "under": {"hatch": "||||", "facecolor": "#CDE4F1", "edgecolor": layout.GREEN, "lw": 0.6},
}
_PANELS_PER_ROW = 4
_WIDEST, _SINGLE = 3.2, 4.0  # inches of a panel
_SIDE_BY_HISTOGRAM = 4.0  # heights
_TICKS, _TICK_LABELS = (0, 0.2, 0.4, 0.6, 0.8, 1), ("0", "0.2", "0.4", "0.6", "0.8", "1")  # short: panels stand close
_INSIDE: dict[str, Any] = {"marker": "o", "color": layout.BLUE, "markersize": 4.5}
_OUTSIDE: dict[str, Any] = {"marker": "s", "color": layout.VERMILLION, "markersize": 5.5, "markerfacecolor": "white"}
# without an interval
_ALONE: dict[str, Any] = {"marker": "D", "color": layout.GREY, "markersize": 4.5, "markerfacecolor": "white"}


@layout.figure_settings()
def draw_reliability(
    stats_by_method: Mapping[str, BinStats],
    path: str | os.PathLike,
    *,
    bands: Mapping[str, tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]] | None = None,
    **frame: Unpack[layout.Frame],
) -> Path:
    """Draw one panel per method: accuracy of each confidence bin above a histogram of the confidences.

    A bar ends, with a dark edge, at the accuracy of its bin. The gap to the bin's mean confidence is hatched, above the
    bar where the method is overconfident and inside it where it is underconfident; colour and hatching both tell which.
    Each panel states its number of voxels and its ECE pooled over them, which is not the mean over cases of a table.

    Args:
        stats_by_method: Sums of each method, in the order of the panels. Regions are drawn together, and
            the ECE is then the mean of theirs.
        bands: For any of the methods the lower and upper end, per bin, of an interval of the accuracy, such as a
            bootstrap over cases of 95 %; NaN where a bin has none. Drawn as error bars.
        path: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
        **frame: As there.

    Raises:
        ValueError: No method is given, the suffix is not one of these, or a band does not fit the bins.
    """
    if not stats_by_method:
        raise ValueError("draw_reliability needs the sums of at least one method, got none.")
    ends = {method: np.array(band, dtype=float) for method, band in (bands or {}).items()}
    for method, band in ends.items():
        if method not in stats_by_method or band.shape != (2, stats_by_method[method].n_bins):
            raise ValueError(f"The band of {method!r}, of shape {band.shape}, fits no method that is drawn.")
    rows = -(-len(stats_by_method) // _PANELS_PER_ROW)
    columns = -(-len(stats_by_method) // rows)
    size, shares = (_WIDEST if columns > 1 else _SINGLE), [_SIDE_BY_HISTOGRAM, 1] * rows
    body, axes = layout.new_panels(
        2 * rows * columns, (size, 0.65 * size), columns, sharex=True, sharey="row", height_ratios=shares
    )
    panels = np.reshape(np.array(axes, object), (rows, 2, columns)).swapaxes(1, 2).reshape(-1, 2)
    for unused in panels[len(stats_by_method) :].flat:
        unused.remove()
    for i, ((upper, lower), (method, stats)) in enumerate(zip(panels, stats_by_method.items())):
        upper.set_title(method, pad=72 * 2 * layout.line_height(layout.SMALL_SIZE) + 8)
        place: dict[str, Any] = {"xycoords": "axes fraction", "xytext": (0, 5), "textcoords": "offset points"}
        look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": layout.SMALL_SIZE, "linespacing": 1.2}
        words = f"pooled ECE {ece(stats):.3f},\nn = {stats.n_voxels:,} voxels" if stats.n_voxels else "no voxel"
        upper.annotate(words, (0.5, 1), **place, **look)
        _draw_accuracy(upper, stats, ends.get(method))
        _draw_histogram(lower, stats)
        if i % columns == 0:
            upper.set_ylabel("accuracy")
            lower.set_ylabel("voxels")
        lower.set_xlabel("confidence")
        lower.tick_params(labelbottom=True)
    legend = _legend(stats_by_method, any(np.isfinite(band).any() for band in ends.values()))
    return layout.write_figure(body, path, legend=legend, **frame)


def _draw_accuracy(axes: Axes, stats: BinStats, band: np.ndarray | None) -> None:
    count, correct, confidence = (sums.sum(axis=0) for sums in (stats.count, stats.correct, stats.confidence))
    axes.plot((0, 1), (0, 1), color=layout.GREY, lw=1, ls="--", zorder=2.2)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), yticks=_TICKS, yticklabels=_TICK_LABELS)
    width = 1 / stats.n_bins
    for side, gap in _GAPS.items():
        shown = (count > 0) & ((confidence > correct) == (side == "over"))
        accuracy, mean, left = correct[shown] / count[shown], confidence[shown] / count[shown], stats.edges[:-1][shown]
        alphas = np.where(count[shown] < FEW_VOXELS, _FEW_OPACITY, 1.0)
        pale = {key: [to_rgba(gap[key], alpha) for alpha in alphas] for key in ("facecolor", "edgecolor")}
        color = [to_rgba(_ACCURACY, alpha) for alpha in alphas]
        axes.bar(left, accuracy, width, align="edge", gid="accuracy", color=color, edgecolor="white", lw=0.5)
        axes.bar(left, abs(mean - accuracy), width, np.minimum(mean, accuracy), align="edge", gid=side, **gap | pale)
        look: dict[str, Any] = {"color": [to_rgba(_ACCURACY_EDGE, alpha) for alpha in alphas], "lw": 1.6, "zorder": 2.3}
        axes.hlines(accuracy, left + 0.1 * width, left + 0.9 * width, gid="top", **look)
    if band is not None:
        middle = stats.edges[:-1] + width / 2
        layout.draw_interval(
            axes, middle, *np.where(count > 0, band, np.nan), vertical=True, color=layout.INK, gid="band"
        )


def _draw_histogram(axes: Axes, stats: BinStats) -> None:
    count = stats.count.sum(axis=0)
    look: dict[str, Any] = {"color": "#7F7F7F", "edgecolor": "white", "lw": 0.5}
    axes.bar(stats.edges[:-1], count / max(count.sum(), 1), 1 / stats.n_bins, align="edge", gid="share", **look)
    axes.set(xlim=(0, 1), ylim=(0, 1.05), xticks=_TICKS, xticklabels=_TICK_LABELS)
    axes.set_yticks((0, 0.5, 1), ("0", "50 %", "100 %"))


def _legend(stats_by_method: Mapping[str, BinStats], banded: bool) -> list:
    handles: list = [Patch(facecolor=_ACCURACY, label="accuracy (dark edge)")]
    handles += [Patch(label=f"{side}confident by this much", **gap) for side, gap in _GAPS.items()]
    handles.append(Line2D([], [], color=layout.GREY, lw=1, ls="--", label="accuracy = confidence"))
    if banded:
        look: dict[str, Any] = {"color": layout.INK, "lw": 0, "marker": "|", "markersize": 11, "markeredgewidth": 1.3}
        handles.append(Line2D([], [], label="95 % interval over cases", **look))
    counts = np.concatenate([stats.count.sum(axis=0) for stats in stats_by_method.values()])
    if ((counts > 0) & (counts < FEW_VOXELS)).any():
        few = f"pale: fewer than {FEW_VOXELS} voxels in the bin"
        handles.append(Patch(facecolor=to_rgba(_ACCURACY, _FEW_OPACITY), label=few))
    return handles


@layout.figure_settings()
def draw_predicted_dice(
    table: pd.DataFrame, names: Mapping[str, str], path: str | os.PathLike, **frame: Unpack[layout.Frame]
) -> Path:
    """Draw a panel per structure and a point per case on or off the line where the prediction is true.

    A bar shows in which interval the true Dice was expected. Cases whose true Dice lies outside differ in marker and
    colour, and the heading of each panel counts them. A case without predicted or true Dice is left out and counted at
    the foot.

    Args:
        table: Cases, with the columns of :data:`~nnunet_nacl.numbers.learned_quality.DICE`.
        names: Name of each structure by nnU-Net's key.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
    """
    shown = {key: table[table.key == key].dropna(subset=[DICE[0], "Dice"])[[*DICE, "Dice"]] for key in names}
    total = table.case.nunique()
    lost = {names[key]: total - len(rows) for key, rows in shown.items() if len(rows) < total}
    gone = ", ".join(f"{name} ({n} of {total})" for name, n in lost.items())
    left_out = [f"Cases without a predicted or a true Dice are left out: {gone}."] if gone else []
    low_end = min(np.fmin.reduce(rows.to_numpy(), axis=None, initial=1) for rows in shown.values())
    limits = (low_end - 0.04 * (1.02 - low_end), 1.02)
    body, axes = layout.new_panels(len(names), (3.9, 4.0) if len(names) < 3 else (3.0, 3.3), sharex=True, sharey=True)
    for panel, (key, name) in zip(axes, names.items()):
        _draw_cases(panel, *shown[key].to_numpy().T)
        inside, covered = count_covered(table, key)
        counted = f"{inside} of {covered} ({100 * inside / covered:.0f} %) within" if covered else "no intervals"
        panel.set_title(f"{name}\n{counted}")
        panel.set(xlabel="predicted Dice", ylabel="true Dice", xlim=limits, ylim=limits)
        panel.tick_params(labelbottom=True)
    return layout.write_figure(body, path, legend=_legend_of_cases(1 - DEFAULT_ALPHA), remarks=left_out, **frame)


def count_covered(table: pd.DataFrame, key: str) -> tuple[int, int]:
    """How many cases have the true Dice of a structure within the interval, and how many have both."""
    rows = table[table.key == key]
    found = coverage(*(rows[column] for column in (*DICE[1:], "Dice")))
    return round(found.share * found.n) if found.n else 0, found.n


def _draw_cases(axes: Axes, predicted: np.ndarray, low: np.ndarray, high: np.ndarray, true: np.ndarray) -> None:
    axes.grid(True)
    axes.set_box_aspect(1)
    axes.axline((0, 0), slope=1, color=layout.INK, linewidth=1, linestyle="--", gid="identity")
    if not len(predicted):
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center")
    inside, alone = (low <= true) & (true <= high), np.isnan(low)
    for look, cases in ((_INSIDE, inside), (_OUTSIDE, ~inside & ~alone), (_ALONE, alone)):
        ends: Any = predicted[cases], low[cases], high[cases]
        layout.draw_interval(axes, *ends, vertical=True, color=look["color"], alpha=0.35, gid="interval")
        axes.plot(predicted[cases], true[cases], linestyle="none", zorder=3, **look)


def _legend_of_cases(level: float) -> list[Line2D]:
    interval = f"the {100 * level:g} % interval around the prediction"
    return [
        Line2D([], [], linestyle="none", label=f"true Dice within {interval} (bar)", **_INSIDE),
        Line2D([], [], linestyle="none", label=f"outside {interval}", **_OUTSIDE),
        Line2D([], [], color=layout.INK, linewidth=1, linestyle="--", label="true = predicted"),
    ]
