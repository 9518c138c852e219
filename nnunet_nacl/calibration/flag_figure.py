"""Draws what flags cost and what sensitive labels find, beside what there is to look at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nnunet_nacl.estimators.flags import LIMITS
from nnunet_nacl.estimators.recall import RECALLS, LearnedRecall
from nnunet_nacl.estimators.scan_scores import ScanScores
from nnunet_nacl.utilities import layout

_FLAG_COLORS = (layout.INK, layout.BLUE, layout.VERMILLION, layout.GREEN)
_RECALL_COLORS = ("#CC79A7", "#56B4E9", "#E69F00")  # of Okabe and Ito, as those of flags
_LINE_WIDTH = 1.6
_PALE_LINE_WIDTH = 0.8
_PALE_OPACITY = 0.45
_PANEL_SIZE = (4.8, 4.0)  # inches


@layout.figure_settings()
def draw_flags(
    scores: ScanScores,
    recall: Mapping[str, LearnedRecall],
    path: str | os.PathLike,
    bad: Mapping[str, Mapping[str, float]] | None = None,
) -> Path:
    """Draw the bad scans found by the scans looked at, and the voxels found by the labels' size.

    Args:
        scores: Of the calibration scans; patients weigh the same among those with a bad scan.
        recall: By name of the structure; those that labels of some scans have are drawn.
        bad: Of each curve its name, and by key of each structure that counts the Dice below which
            it is bad; None: all structures count, and there is a curve for each of ``LIMITS``.
        path: As in :func:`~nnunet_nacl.utilities.layout.write_figure`, as are the path returned and
            its errors.
    """
    limits_by_curve = bad or _make_default_curves(scores)
    learned_recall = _keep_labelled_structures(recall)
    n_panels = 1
    title = "Lowest score first"
    if learned_recall:
        n_panels = 2
        title += ", and sensitive labels"
    body, panels = layout.new_panels(n_panels, _PANEL_SIZE)
    legend = _draw_costs(scores, limits_by_curve, panels[0])
    if learned_recall:
        _draw_recall(learned_recall, panels[1])
    n_patients = len(set(scores.patient.tolist()))
    subtitle = (
        f"{len(scores.patient)} calibration scans of {n_patients} patients, each under a map"
        " without its patient"
    )
    return layout.write_figure(body, path, legend=legend, title=title, subtitle=subtitle)


def _make_default_curves(scores: ScanScores) -> dict[str, dict[str, float]]:
    """A curve for each of ``LIMITS``, which is that of all structures."""
    curves = {}
    for limit in LIMITS:
        curves[f"a Dice below {limit:g}"] = dict.fromkeys(scores.score, limit)
    return curves


def _keep_labelled_structures(recall: Mapping[str, LearnedRecall]) -> dict[str, LearnedRecall]:
    """Those structures that nnU-Net's labels of some calibration scan have."""
    labelled = {}
    for name, learned in recall.items():
        if learned.times_larger and not np.isnan(learned.times_larger[0]):
            labelled[name] = learned
    return labelled


def _draw_costs(
    scores: ScanScores, limits_by_curve: Mapping[str, Mapping[str, float]], axes: Axes
) -> list[Line2D]:
    """Share of the bad scans found by that of the scans looked at; handles of the legend."""
    legend = []
    highest_entropy_first = -np.array(scores.entropy, float)
    for (name, limits), color in zip(limits_by_curve.items(), _FLAG_COLORS):
        are_bad = scores.are_bad(limits)
        if not are_bad.any():
            continue
        label = f"bad: {name} ({are_bad.sum()} scans)"
        legend.append(Line2D([], [], color=color, linewidth=_LINE_WIDTH, label=label))
        looked_at, found = _share_found(scores.score_scans(limits), are_bad, scores.patient)
        axes.step(
            looked_at,
            found,
            where="post",
            gid=f"found {name}",
            color=color,
            linewidth=_LINE_WIDTH,
        )
        looked_at, found = _share_found(highest_entropy_first, are_bad, scores.patient)
        axes.step(
            looked_at,
            found,
            where="post",
            gid=f"entropy {name}",
            color=color,
            linewidth=_PALE_LINE_WIDTH,
            alpha=_PALE_OPACITY,
        )
    axes.axline((0, 0), slope=1, color=layout.INK, linewidth=1, linestyle="--")
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        xlabel="share of the scans looked at",
        ylabel="share of the bad ones found",
    )
    axes.grid(True)
    return legend + _legend_of_other_orders()


def _legend_of_other_orders() -> list[Line2D]:
    """Handles of the orders that scans are not flagged by: by entropy, and at random."""
    pale = Line2D(
        [], [], color=layout.GREY, linewidth=_PALE_LINE_WIDTH, label="pale: highest entropy first"
    )
    random_order = Line2D(
        [], [], color=layout.INK, linewidth=1, linestyle="--", label="random order"
    )
    return [pale, random_order]


def _draw_recall(recall: Mapping[str, LearnedRecall], axes: Axes) -> None:
    """Share of a structure's voxels found by the size of its labels, of the three missed most."""
    most_missed_first = sorted(recall, key=lambda name: -recall[name].missed[-1])
    largest = 2.0
    for name, color in zip(most_missed_first, _RECALL_COLORS):
        learned = recall[name]
        size = np.array(learned.times_larger)
        found = 1 - np.array(learned.missed)
        label = f"{name}, {learned.n_patients} patients"
        axes.plot(size, found, color=color, linewidth=_LINE_WIDTH, label=label)
        indices = _indices_of_recalls(learned)
        axes.plot(size[indices], found[indices], "o", color=color, markersize=5)
        largest = max([largest, *size[indices]])
    axes.plot(
        [], [], "o", color=layout.INK, label=f"share to be found {', '.join(map(str, RECALLS))}"
    )
    axes.legend(loc="best", frameon=False)
    axes.set(
        xlim=(1, 1.1 * largest),
        ylim=(0, 1.02),
        xlabel="times as large as nnU-Net's label",
        ylabel="share of the structure's voxels found",
    )
    axes.grid(True)


def _indices_of_recalls(learned: LearnedRecall) -> Sequence[int]:
    """Where on its curve those of ``RECALLS`` are that can be had."""
    indices = [learned.threshold_index(recall) for recall in RECALLS]
    return [index for index in indices if index is not None]


def _share_found(
    score: np.ndarray, are_bad: np.ndarray, patient: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the scans looked at, and of the bad scans found, the lowest score first.

    Each patient with a bad scan weighs the same. Both begin with 0.

    Args:
        score: (n,) of scans; those without one, NaN, come first.
        are_bad: (n,) whether they are bad; at least one is.
        patient: (n,) number of each scan's patient.
    """
    order = np.argsort(np.where(np.isnan(score), -np.inf, score), kind="stable")
    n_bad_of_patient = np.bincount(patient, are_bad)
    weight = are_bad / np.maximum(n_bad_of_patient[patient], 1)
    looked_at = np.arange(1, len(order) + 1) / len(order)
    found = np.cumsum(weight[order]) / weight.sum()
    return np.append(0, looked_at), np.append(0, found)
