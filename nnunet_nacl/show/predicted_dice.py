"""Predicted against true Dice of every case: can the quality that is promised be trusted?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nnunet_nacl.show.layout import Frame, draw_interval, new_panels, write_figure
from nnunet_nacl.show.style import BLUE, GREY, INK, SMALL_SIZE, VERMILLION, check_path, figure_settings
from nnunet_nacl.show.values import as_interval, as_values

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["covered_cases", "draw_predicted_dice"]

_INSIDE: dict[str, Any] = {"marker": "o", "color": BLUE, "markersize": 4.5}
_OUTSIDE: dict[str, Any] = {
    "marker": "s",
    "color": VERMILLION,
    "markerfacecolor": "white",
    "markersize": 5.5,
    "markeredgewidth": 1.4,
}
_ALONE: dict[str, Any] = {
    "marker": "D",
    "color": GREY,
    "markerfacecolor": "white",
    "markersize": 4.5,
}  # without an interval


def covered_cases(true: Sequence[float], low: Sequence[float], high: Sequence[float]) -> tuple[int, int]:
    """How many cases have their true Dice within the interval, and how many have both; ends belong to it."""
    dice, lower, upper = (as_values(values, "Dice") for values in (true, low, high))
    return int(((lower <= dice) & (dice <= upper)).sum()), int((~np.isnan(dice + lower + upper)).sum())


def draw_predicted_dice(
    structures: Sequence[str],
    predicted: Sequence[Sequence[float]],
    true: Sequence[Sequence[float]],
    low: Sequence[Sequence[float]],
    high: Sequence[Sequence[float]],
    path: str | os.PathLike,
    *,
    level: float = 0.9,
    **frame: Unpack[Frame],
) -> Path:
    """Draw a panel per structure and a point per case on or off the line where the prediction is true.

    A bar shows in which interval the true Dice was expected. Cases whose true Dice lies outside differ in marker and
    colour; the heading of each panel counts them, as :func:`covered_cases` does.

    Args:
        structures: S names.
        predicted: For each structure the predicted Dice of each of its cases, in 0..1. A case without predicted or
            true Dice (NaN or None) is left out and counted at the foot.
        true: The Dice that the truth gave, in the same order.
        low: Lower ends of the intervals of the true Dice; NaN or None where there is none.
        high: Upper ends.
        path: Where to write; the suffix chooses PNG, SVG or PDF. Written atomically.
        level: Share of the cases that the intervals are meant to cover.
        frame: ``title``, ``subtitle``, ``notes`` and ``dpi``, as in :class:`~nnunet_nacl.show.layout.Frame`.

    Returns:
        The path.

    Raises:
        ValueError: No structure is given, lengths do not agree, a Dice lies outside 0..1, an interval is upside down,
            the level is no share, or the suffix is not one of these.
        OSError: The file cannot be written.
    """
    path = check_path(path)
    if not len(structures):
        raise ValueError("draw_predicted_dice needs at least one structure, got none.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}.")
    given = {"predicted": predicted, "true": true, "low": low, "high": high}
    for name, values in given.items():
        if len(values) != len(structures):
            raise ValueError(f"{name} must have an entry per structure, {len(structures)}, got {len(values)}.")
    panels = [_check(name, {key: values[i] for key, values in given.items()}) for i, name in enumerate(structures)]
    gaps = [(name, len(true[i]), len(true[i]) - panels[i].shape[1]) for i, name in enumerate(structures)]
    gone = ", ".join(f"{name} ({count} of {total})" for name, total, count in gaps if count)
    left_out = [f"Cases without a predicted or a true Dice are left out: {gone}."] if gone else []
    low_end = min(np.fmin.reduce(cases, axis=None, initial=1) for cases in panels)
    limits = (low_end - 0.04 * (1.02 - low_end), 1.02)
    with figure_settings():
        body, axes = new_panels(len(structures), sharex=True, sharey=True)
        for panel, name, cases in zip(axes, structures, panels):
            _draw(panel, *cases)
            inside, total = covered_cases(*cases[1:])
            counted = f"{inside} of {total} ({100 * inside / total:.0f} %) within" if total else "no intervals"
            panel.set_title(f"{name}\n{counted}")
            panel.set(xlabel="predicted Dice", ylabel="true Dice", xlim=limits, ylim=limits)
            panel.tick_params(labelbottom=True)
        size = (4.2 if len(structures) == 1 else 3.2, None)
        return write_figure(body, path, size, legend=_legend(level), told=left_out, **frame)


def _check(structure: str, given: Mapping[str, Sequence[float]]) -> np.ndarray:
    """(4, N) predicted, true, low and high Dice of the cases of a structure that have the first two."""
    length = len(given["predicted"])
    arrays = [as_values(values, f"{name} Dice of {structure}", length) for name, values in given.items()]
    for name, array in zip(given, arrays):
        if (array < 0).any() or (array > 1).any():
            raise ValueError(f"{name} Dice of {structure} must lie in 0..1, got {array.tolist()}.")
    for case, interval in enumerate(zip(*arrays[2:])):
        as_interval(interval, f"case {case} of {structure}")
    cases = np.stack(arrays)
    return cases[:, ~np.isnan(cases[:2]).any(axis=0)]


def _draw(axes: Axes, predicted: np.ndarray, true: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    axes.grid(True)
    axes.axline((0, 0), slope=1, color=INK, linewidth=1, linestyle="--", gid="identity")
    if not len(predicted):
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center", fontsize=SMALL_SIZE, color=GREY)
    for x, y, *ends in zip(predicted, true, low, high):
        interval = as_interval(ends, "a case")
        look = _ALONE if interval is None else _INSIDE if ends[0] <= y <= ends[1] else _OUTSIDE
        draw_interval(axes, x, interval, vertical=True, color=look["color"], alpha=0.35, gid="interval")
        axes.plot([x], [y], linestyle="none", zorder=3, **look)


def _legend(level: float) -> list[Line2D]:
    interval = f"the {100 * level:g} % interval around the prediction"
    return [
        Line2D([], [], linestyle="none", label=f"true Dice within {interval} (bar)", **_INSIDE),
        Line2D([], [], linestyle="none", label=f"outside {interval}", **_OUTSIDE),
        Line2D([], [], color=INK, linewidth=1, linestyle="--", label="true = predicted"),
    ]
