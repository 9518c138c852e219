"""Draws what flags cost: the share of the bad scans that is found by the share of scans that is looked at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from nnunet_nacl.numbers.flags import LIMITS, ScanScores
from nnunet_nacl.show import layout


@layout.figure_settings()
def draw_flags(
    scores: ScanScores, path: str | os.PathLike, bad: Mapping[str, Mapping[str, float]] | None = None
) -> Path:
    """Draw the share of bad scans found by that of scans looked at.

    Args:
        scores: Of the calibration scans; patients weigh the same among those with a bad scan.
        bad: Of each curve its name, and by key of each structure that counts the Dice below which it is bad; None:
            all structures count, and there is a curve for each of ``LIMITS``.
        path: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
    """
    bad = bad or {f"a Dice below {limit:g}": dict.fromkeys(scores.score, limit) for limit in LIMITS}
    body, [axes] = layout.new_panels(1, (4.8, 4.0))
    legend = []
    for (name, by_structure), color in zip(bad.items(), (layout.INK, layout.BLUE, layout.VERMILLION, layout.GREEN)):
        are_bad, look = scores.are_bad(by_structure), dict[str, Any](color=color, linewidth=1.6)
        if not are_bad.any():
            continue
        label = f"bad: {name} ({are_bad.sum()} scans)"
        legend.append(Line2D([], [], label=label, **look))
        by_score = _found(scores.of_scans(by_structure), are_bad, scores.patient)
        axes.step(*by_score, where="post", gid=f"found {name}", **look)
        by_entropy = _found(-np.array(scores.entropy, float), are_bad, scores.patient)
        axes.step(*by_entropy, where="post", gid=f"entropy {name}", **look | {"linewidth": 0.8, "alpha": 0.45})
    axes.axline((0, 0), slope=1, color=layout.INK, linewidth=1, linestyle="--")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="share of the scans looked at", ylabel="share of the bad ones found")
    axes.grid(True)
    legend.append(Line2D([], [], color=layout.GREY, linewidth=0.8, label="pale: highest entropy first"))
    legend.append(Line2D([], [], color=layout.INK, linewidth=1, linestyle="--", label="random order"))
    n_patients = len(set(scores.patient.tolist()))
    subtitle = f"{len(scores.patient)} calibration scans of {n_patients} patients, each under a map without its patient"
    return layout.write_figure(body, path, legend=legend, title="Lowest score first", subtitle=subtitle)


def _found(score: np.ndarray, bad: np.ndarray, patient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the scans looked at, and of the bad scans found, where each patient with a bad one weighs the same."""
    order = np.argsort(np.where(np.isnan(score), -np.inf, score), kind="stable")
    weight = bad / np.maximum(np.bincount(patient, bad)[patient], 1)
    found = np.cumsum(weight[order]) / weight.sum()
    return np.append(0, np.arange(1, len(order) + 1) / len(order)), np.append(0, found)
