"""Rank heat map (fig. 2), relative difference (fig. 7), training share (fig. 9), scatter (fig.
10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation

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
    """Draw (methods, metrics) ranks as a table of colours, each column from its best to its worst,
    the best framed."""
    figure, (axes,) = new_panels(1, 2.0 + 0.9 * len(metrics), 0.5 + 0.34 * len(methods))
    for j, column in enumerate(np.asarray(ranks, float).T):
        low, high = (
            (np.nanmin(column), np.nanmax(column)) if not np.isnan(column).all() else (0.0, 0.0)
        )
        for i, value in enumerate(column):
            share = 0.0 if np.isnan(value) or high == low else (value - low) / (high - low)
            best = value == low
            frame_of: Any = (
                {"edgecolor": INK, "linewidth": 2}
                if best
                else {"edgecolor": "white", "linewidth": 1}
            )
            axes.add_patch(
                Rectangle(
                    (j, i), 1, 1, facecolor=str(1 - 0.55 * share), zorder=2 + best, **frame_of
                )
            )
            text = "-" if np.isnan(value) else f"{value:.{decimals}f}"
            axes.text(
                j + 0.5,
                i + 0.5,
                text,
                ha="center",
                va="center",
                zorder=4,
                weight="bold" if best else "normal",
            )
    axes.set(xlim=(0, len(metrics)), ylim=(len(methods), 0))
    axes.set_xticks(np.arange(len(metrics)) + 0.5, metrics)
    axes.set_yticks(np.arange(len(methods)) + 0.5, methods)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    return write(figure, path, **frame)


def draw_relative_difference(
    differences: Mapping[str, Interval], path: Path, *, better: Mapping[str, str], **frame: Any
) -> list[Path]:
    """Draw a bar per metric in percent, blue where it is the better direction, with its
    interval."""
    figure, (axes,) = new_panels(1, 6.0, 0.6 + 0.34 * len(differences))
    for i, (metric, difference) in enumerate(differences.items()):
        if np.isnan(difference.mean):
            axes.text(0, i, " no value", va="center", fontsize=8)
            continue
        good = (difference.mean > 0) == (better[metric] == "higher")
        axes.barh(i, difference.mean, height=0.6, color=GOOD if good else BAD)
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
    looks = styles(dict.fromkeys(method for points in panels.values() for method in points))
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
    looks = styles(dict.fromkeys(method for lines in panels.values() for method in lines))
    figure, all_axes = new_panels(len(panels), 3.4, 2.8)
    shares = sorted(
        {share for lines in panels.values() for line in lines.values() for share in line}
    )
    for axes, (metric, lines) in zip(all_axes, panels.items()):
        axes.set_xscale("log" if shares[-1] >= 4 * shares[0] else "linear")
        for place, (method, line) in enumerate(lines.items()):
            offset = (place - (len(lines) - 1) / 2) * min(3.0, 14.0 / len(lines))
            moved = axes.transData + ScaledTranslation(offset / 72, 0, figure.dpi_scale_trans)
            look, values = looks[method], list(line.values())
            means, ends = (
                [value.mean for value in values],
                [(value.low, value.high) for value in values],
            )
            axes.vlines(
                list(line),
                *zip(*ends),
                color=look["color"],
                alpha=0.7,
                linewidth=1.2,
                transform=moved,
            )
            axes.plot(list(line), means, transform=moved, zorder=3, **look)
            drawn = [
                (share, y)
                for share, value in line.items()
                for y in (value.mean, value.low, value.high)
            ]
            axes.update_datalim([point for point in drawn if not np.isnan(point[1])])
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
