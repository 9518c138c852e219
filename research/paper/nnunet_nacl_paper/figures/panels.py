"""Figures 2 (ranks), 7 (relative difference), 9 (training share) and 10 (scatter)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation, Transform

from nnunet_nacl.metrics.statistics import Interval
from nnunet_nacl_paper.figures.drawing import (
    BAD,
    GOOD,
    INK,
    draw_interval,
    new_panels,
    styles,
    with_direction,
)
from nnunet_nacl_paper.figures.drawing import write_figure as write


def draw_rank_heatmap(
    methods: Sequence[str],
    metrics: Sequence[str],
    ranks: np.ndarray,
    path: Path,
    *,
    decimals: int,
    **frame: Any,
) -> list[Path]:
    """Draw (methods, metrics) ranks as a table, each column shaded from its best to its worst.

    The best is framed.
    """
    figure, (axes,) = new_panels(1, 2.0 + 0.9 * len(metrics), 0.5 + 0.34 * len(methods))
    table = pd.DataFrame(ranks, dtype=float)
    low = table.min()
    width = (table.max() - low).replace(0, 1)
    shares = ((table - low) / width).fillna(0.0)
    texts = table.map(lambda rank: "-" if np.isnan(rank) else f"{rank:.{decimals}f}")
    for j, i in itertools.product(range(len(metrics)), range(len(methods))):
        gray = str(1 - 0.55 * shares.iat[i, j])
        _draw_cell(axes, i, j, texts.iat[i, j], gray, is_best=table.iat[i, j] == low[j])
    axes.set(xlim=(0, len(metrics)), ylim=(len(methods), 0))
    axes.set_xticks(np.arange(len(metrics)) + 0.5, metrics)
    axes.set_yticks(np.arange(len(methods)) + 0.5, methods)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    return write(figure, path, **frame)


def _draw_cell(axes: Axes, row: int, column: int, text: str, gray: str, is_best: bool) -> None:
    """Draw a cell of the table of ranks; the frame of the best lies over those beside it."""
    cell = Rectangle((column, row), 1, 1, facecolor=gray)
    if is_best:
        cell.set(edgecolor=INK, linewidth=2, zorder=3)
    else:
        cell.set(edgecolor="white", linewidth=1, zorder=2)
    axes.add_patch(cell)
    weight = "bold" if is_best else "normal"
    center = (column + 0.5, row + 0.5)
    axes.text(*center, text, ha="center", va="center", zorder=4, weight=weight)


def draw_relative_difference(
    differences: Mapping[str, Interval], path: Path, *, better: Mapping[str, str], **frame: Any
) -> list[Path]:
    """Draw a bar per metric in percent, blue in the better direction, with its interval."""
    figure, (axes,) = new_panels(1, 6.0, 0.6 + 0.34 * len(differences))
    for i, (metric, difference) in enumerate(differences.items()):
        if np.isnan(difference.mean):
            axes.text(0, i, " no value", va="center", fontsize=8)
            continue
        is_higher = difference.mean > 0
        is_better = is_higher == (better[metric] == "higher")
        axes.barh(i, difference.mean, height=0.6, color=GOOD if is_better else BAD)
        draw_interval(axes, i, difference, vertical=False, color=INK)
        right = axes.get_yaxis_transform()
        axes.text(1.02, i, f"{difference.mean:+.1f} %", transform=right, va="center", fontsize=8)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(differences)), [with_direction(m, better[m]) for m in differences])
    axes.set(xlabel="difference in percent")
    axes.invert_yaxis()
    axes.grid(True, axis="x")
    return write(
        figure, path, notes=["Blue: the better direction; orange: the worse one."], **frame
    )


def draw_scatter(
    panels: Mapping[str, Mapping[str, tuple[Interval, Interval]]], path: Path, **frame: Any
) -> list[Path]:
    """Draw a point per method with its intervals, a panel per calibration measure.

    Args:
        panels: Measure, lower is better -> method -> Dice and the measure. What lacks one of the
            two is left out and named at the foot.
        path, frame: As for ``write_figure``, as in all of these.
    """
    looks = styles(dict.fromkeys(itertools.chain(*panels.values())))
    figure, all_axes = new_panels(len(panels), 3.6, 3.0)
    missing = []
    for axes, (measure, points) in zip(all_axes, panels.items()):
        for method, (dice, error) in points.items():
            if np.isnan(dice.mean + error.mean):
                missing.append(f"{measure}: no value for {method}.")
                continue
            look = looks[method] | {"linestyle": "none"}
            draw_interval(axes, error.mean, dice, vertical=False, color=look["color"])
            draw_interval(axes, dice.mean, error, vertical=True, color=look["color"])
            axes.plot([dice.mean], [error.mean], zorder=3, **look)
        axes.set(
            title=measure,
            xlabel=with_direction("DSC", "higher"),
            ylabel=with_direction(measure, "lower"),
        )
        axes.grid(True)
    return write(figure, path, notes=missing, legend=looks, **frame)


def _draw_line(
    axes: Axes, line: Mapping[float, Interval], look: dict[str, Any], moved: Transform
) -> None:
    """Draw one method's values by share with their intervals, moved a little."""
    shares = list(line)
    means = [value.mean for value in line.values()]
    lows = [value.low for value in line.values()]
    highs = [value.high for value in line.values()]
    interval: Any = {"color": look["color"], "alpha": 0.7, "linewidth": 1.2}
    axes.vlines(shares, lows, highs, transform=moved, **interval)
    axes.plot(shares, means, transform=moved, zorder=3, **look)
    drawn = np.column_stack([shares * 3, means + lows + highs])  # which matplotlib does not see
    axes.update_datalim(drawn[~np.isnan(drawn).any(axis=1)])


def draw_training_share(
    panels: Mapping[str, Mapping[str, Mapping[float, Interval]]],
    path: Path,
    *,
    better: Mapping[str, str],
    **frame: Any,
) -> list[Path]:
    """Draw a line per method over the share of training cases, a panel per metric.

    Methods at the same share stand a few points apart, so that all intervals are seen.

    Args:
        panels: Metric -> method -> share in percent, rising -> value. A value that is NaN leaves a
            gap.
        path, frame: As for ``write_figure``, as in all of these.
        better: ``higher`` or ``lower`` for each panel.
    """
    looks = styles(dict.fromkeys(itertools.chain(*panels.values())))
    figure, all_axes = new_panels(len(panels), 3.4, 2.8)
    all_lines = itertools.chain(*[lines.values() for lines in panels.values()])
    shares = sorted(set(itertools.chain(*all_lines)))
    for axes, (metric, lines) in zip(all_axes, panels.items()):
        axes.set_xscale("log" if shares[-1] >= 4 * shares[0] else "linear")
        points = min(3.0, 14.0 / len(lines))  # between methods
        for place, (method, line) in enumerate(lines.items()):
            offset = (place - (len(lines) - 1) / 2) * points
            moved = axes.transData + ScaledTranslation(offset / 72, 0, figure.dpi_scale_trans)
            _draw_line(axes, line, looks[method], moved)
        axes.autoscale_view()
        axes.set_xticks(shares, [f"{share:g}" for share in shares])
        axes.set_xticks([], minor=True)
        axes.set(
            title=metric,
            xlabel="share of the training cases (%)",
            ylabel=with_direction(metric, better[metric]),
        )
        axes.grid(True)
    return write(figure, path, legend=looks, **frame)
