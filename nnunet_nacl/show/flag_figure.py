"""What `calibrate` promises, as a picture: bad scans found by scans looked at, and how wide the intervals are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from nnunet_nacl.calibration.flag_cost import LIMITS
from nnunet_nacl.calibration.learned_quality import EstimateCheck
from nnunet_nacl.calibration.scan_score import ScanScores
from nnunet_nacl.show import layout

_NAMED = 10  # structures


@layout.figure_settings()
def draw_flags(
    scores: ScanScores, checks: Mapping[str, EstimateCheck], names: Mapping[str, str], path: str | os.PathLike
) -> Path:
    """Draw the share of bad scans found by the share of scans looked at, and each structure's intervals.

    Args:
        scores: Of the calibration scans; all structures count, patients weigh the same among those with a bad scan.
        checks: Of the predicted Dice of each structure on left-out patients, by nnU-Net's key.
        names: Name of each structure by key.
        path: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
    """
    body, (curves, intervals) = layout.new_panels(2, (4.2, 3.8))
    legend = []
    for i, limit in enumerate(LIMITS):
        by_structure = dict.fromkeys(scores.score, limit)
        are_bad, look = scores.are_bad(by_structure), layout.line_look(i)
        if not are_bad.any():
            continue
        label = f"bad: a Dice below {limit:g} ({are_bad.sum()} scans)"
        legend.append(Line2D([], [], label=label, **look))
        looked, found = _found(scores.of_scans(by_structure), are_bad, scores.patient)
        curves.step(looked, found, where="post", gid=f"found {limit:g}", **look)
        looked, found = _found(-np.array(scores.entropy, float), are_bad, scores.patient)
        curves.step(looked, found, where="post", gid=f"entropy {limit:g}", **look | {"linewidth": 0.8, "alpha": 0.45})
    curves.axline((0, 0), slope=1, color=layout.INK, linewidth=1, linestyle="--")
    curves.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="share of the scans looked at", ylabel="share of the bad ones found")
    curves.set_title("Lowest score first", loc="left")
    legend.append(Line2D([], [], color=layout.GREY, linewidth=0.8, label="pale: highest entropy first"))
    legend.append(Line2D([], [], color=layout.INK, linewidth=1, linestyle="--", label="random order"))
    known = {key: check for key, check in checks.items() if not np.isnan(check.width)}
    for i, (key, check) in enumerate(known.items()):
        covered = check.coverage
        colour = layout.PALETTE[i % len(layout.PALETTE)]
        layout.draw_interval(intervals, check.width, covered.low, covered.high, vertical=True, color=colour, alpha=0.5)
        intervals.plot(check.width, covered.share, marker="o", linestyle="none", color=colour, gid=f"width {key}")
        if len(known) <= _NAMED:
            place: dict[str, Any] = {
                "xytext": (5, -11 if i % 2 else 5),
                "textcoords": "offset points",
                "fontsize": layout.SMALL_SIZE,
            }
            intervals.annotate(names[key], (check.width, covered.share), **place)
    intervals.axhline(0.9, color=layout.INK, linewidth=1, linestyle="--")
    intervals.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="mean width of the interval", ylabel="true Dice inside")
    intervals.set_title("90 % intervals of Dice, by structure", loc="left")
    for axes in (curves, intervals):
        axes.grid(True)
    n_patients = len(set(scores.patient.tolist()))
    subtitle = f"{len(scores.patient)} calibration scans of {n_patients} patients, each under a map without its patient"
    remark = (
        "An interval is of use where it is narrow. Bars: 95 % intervals of the share, as if scans were independent."
    )
    return layout.write_figure(
        body, path, legend=legend, remarks=[remark], title="What is promised of new scans", subtitle=subtitle, dpi=110
    )


def _found(score: np.ndarray, bad: np.ndarray, patient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the scans looked at, and of the bad scans found, where each patient with a bad one weighs the same."""
    order = np.argsort(np.where(np.isnan(score), -np.inf, score), kind="stable")
    weight = bad / np.maximum(np.bincount(patient, bad)[patient], 1)
    found = np.cumsum(weight[order]) / weight.sum()
    return np.append(0, np.arange(1, len(order) + 1) / len(order)), np.append(0, found)
