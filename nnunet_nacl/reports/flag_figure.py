"""Draws what flags cost, and labels that miss less: what is found by what is looked at, or by the
labels' size."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nnunet_nacl.quality.flag_costs import LIMITS
from nnunet_nacl.quality.recall import RECALLS, LearnedRecall
from nnunet_nacl.quality.scan_scores import ScanScores
from nnunet_nacl.reports import layout


@layout.figure_settings()
def draw_flags(
    scores: ScanScores,
    recall: Mapping[str, LearnedRecall],
    path: str | os.PathLike,
    bad: Mapping[str, Mapping[str, float]] | None = None,
) -> Path:
    """Draw the share of bad scans found by that of scans looked at, and the share of voxels found
    by the labels' size.

    Args:
        scores: Of the calibration scans; patients weigh the same among those with a bad scan.
        recall: By name of the structure; those that labels of some scans have are drawn.
        bad: Of each curve its name, and by key of each structure that counts the Dice below which
            it is bad; None: all structures count, and there is a curve for each of ``LIMITS``.
        path: As in :func:`~nnunet_nacl.reports.layout.write_figure`, as are the path returned and
            its errors.
    """
    bad = bad or {f"a Dice below {limit:g}": dict.fromkeys(scores.score, limit) for limit in LIMITS}
    drawn = {
        name: its for name, its in recall.items() if not np.isnan(its.times_larger or [np.nan])[0]
    }
    body, [axes, *others] = layout.new_panels(2 if drawn else 1, (4.8, 4.0))
    legend = []
    for (name, by_structure), color in zip(
        bad.items(), (layout.INK, layout.BLUE, layout.VERMILLION, layout.GREEN)
    ):
        are_bad, look = scores.are_bad(by_structure), dict[str, Any](color=color, linewidth=1.6)
        if not are_bad.any():
            continue
        label = f"bad: {name} ({are_bad.sum()} scans)"
        legend.append(Line2D([], [], label=label, **look))
        looked, found = _found(scores.of_scans(by_structure), are_bad, scores.patient)
        axes.step(looked, found, where="post", gid=f"found {name}", **look)
        looked, found = _found(-np.array(scores.entropy, float), are_bad, scores.patient)
        axes.step(
            looked,
            found,
            where="post",
            gid=f"entropy {name}",
            **look | {"linewidth": 0.8, "alpha": 0.45},
        )
    axes.axline((0, 0), slope=1, color=layout.INK, linewidth=1, linestyle="--")
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        xlabel="share of the scans looked at",
        ylabel="share of the bad ones found",
    )
    axes.grid(True)
    legend.append(
        Line2D([], [], color=layout.GREY, linewidth=0.8, label="pale: highest entropy first")
    )
    legend.append(
        Line2D([], [], color=layout.INK, linewidth=1, linestyle="--", label="random order")
    )
    if others:
        _draw_recall(drawn, others[0])
    n_patients = len(set(scores.patient.tolist()))
    subtitle = (
        f"{len(scores.patient)} calibration scans of {n_patients} patients, each under a map"
        " without its patient"
    )
    title = "Lowest score first" + ", and labels that miss less" * bool(others)
    return layout.write_figure(body, path, legend=legend, title=title, subtitle=subtitle)


def _draw_recall(recall: Mapping[str, LearnedRecall], axes: Axes) -> None:
    """Share of each structure's voxels that is found, by the size of its labels: of the three that
    are missed most."""
    worst, widest = sorted(recall, key=lambda name: -recall[name].missed[-1]), 2.0
    # of Okabe and Ito, as those of flags
    for name, color in zip(worst, ("#CC79A7", "#56B4E9", "#E69F00")):
        its = recall[name]
        size, found = np.array(its.times_larger), 1 - np.array(its.missed)
        axes.plot(
            size, found, color=color, linewidth=1.6, label=f"{name}, {its.n_patients} patients"
        )
        places = [place for share in RECALLS if (place := its.place(share)) is not None]
        axes.plot(size[places], found[places], "o", color=color, markersize=5)
        widest = max([widest, *size[places]])
    axes.plot([], [], "o", color=layout.INK, label=f"-recall {', '.join(map(str, RECALLS))}")
    axes.legend(loc="best", frameon=False)
    axes.set(xlim=(1, 1.1 * widest), ylim=(0, 1.02), xlabel="times as large as nnU-Net's label")
    axes.set_ylabel("share of the structure's voxels found")
    axes.grid(True)


def _found(
    score: np.ndarray, bad: np.ndarray, patient: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the scans looked at, and of the bad scans found, where each patient with a bad one
    weighs the same."""
    order = np.argsort(np.where(np.isnan(score), -np.inf, score), kind="stable")
    weight = bad / np.maximum(np.bincount(patient, bad)[patient], 1)
    found = np.cumsum(weight[order]) / weight.sum()
    return np.append(0, np.arange(1, len(order) + 1) / len(order)), np.append(0, found)
