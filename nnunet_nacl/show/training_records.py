"""Calibration and maximum logit of several trainings over the epochs, in one figure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from nnunet_nacl.show.layout import new_panels, write_figure
from nnunet_nacl.show.style import GREY, figure_settings, method_styles

__all__ = ["draw_training_records"]

_LAST = 5  # epochs whose histograms are added up on the right
_DASHES = ("-", "--", "-.", ":")  # for those who do not see the colours
_WIDTH, _HEIGHT = 2.35, 2.5  # inches


def draw_training_records(records: Mapping[str, dict], path: str | os.PathLike) -> Path:
    """Draw what happens to confidence while networks train, a line per training (as fig. 5 of the NACL paper).

    Left: expected calibration error in the foreground. Middle: mean maximum logit of the foreground, and between which
    values 80 % of its voxels lie. Right: the distribution of the maximum logit in the last epochs.

    Args:
        records: What :func:`~nnunet_nacl.training_record.read_training_record` gives, with at least one epoch each, by
            the name that the legend shall show.
        path: Where to write; the suffix chooses PNG, SVG or PDF. Written atomically.
    """
    lines = {
        name: {**style.line, "linestyle": _DASHES[i % len(_DASHES)]}
        for i, (name, style) in enumerate(method_styles(records).items())
    }
    first = next(iter(records.values()))
    with figure_settings():
        body, axes = new_panels(3)
        for name, record in records.items():
            line, bins, epochs = lines[name], record["max_logit_bins"], record["epochs"]
            x = [entry["epoch"] for entry in epochs]
            errors = [entry["calibration"]["foreground"]["ECE"] for entry in epochs]
            means = [entry["max_logit"]["foreground"]["mean"] for entry in epochs]
            low, high = ([_quantile(_histogram(entry, bins), share, bins) for entry in epochs] for share in (0.1, 0.9))
            axes[0].plot(x, np.array(errors, dtype=float), **line)
            axes[1].plot(x, np.array(means, dtype=float), **line)
            axes[1].fill_between(x, low, high, color=line["color"], alpha=0.15, linewidth=0)
            counts = np.sum([_histogram(entry, bins) for entry in epochs[-_LAST:]], axis=0)
            centers = bins["low"] + bins["width"] * (np.arange(bins["number"]) - 0.5)
            if counts.any():
                used = slice(*np.flatnonzero(counts)[[0, -1]] + [0, 1])
                axes[2].plot(centers[used], 100 * counts[used] / counts.sum(), **line)
        share = f"% of voxels per {first['max_logit_bins']['width']:g}"
        for axis, title, x_label, y_label in zip(
            axes,
            ("ECE (lower is better)", "Maximum logit, middle 80 %", f"Maximum logit, last {_LAST} epochs"),
            ("epoch", "epoch", "maximum logit"),
            ("ECE", "maximum logit", share),
        ):
            axis.set_title(title, loc="left")
            axis.set_xlabel(x_label)
            axis.set_ylabel(y_label)
            axis.grid(True)
        axes[0].set_ylim(bottom=0)
        axes[2].set_ylim(bottom=0)
        axes[1].axhline(0, color=GREY, linewidth=0.8)
        return write_figure(
            body,
            path,
            (_WIDTH, _HEIGHT),
            title="Calibration while training, foreground",
            subtitle=f"{first['dataset']}, {first['configuration']}, validation patches of nnU-Net",
            legend=[Line2D([], [], label=name, **lines[name]) for name in records],
        )


def _histogram(entry: dict, bins: dict) -> np.ndarray:
    """Foreground voxels of an epoch in all the bins of the maximum logit."""
    of_mask, counts = entry["max_logit"]["foreground"], np.zeros(bins["number"])
    counts[of_mask["first_bin"] : of_mask["first_bin"] + len(of_mask["counts"])] = of_mask["counts"]
    return counts


def _quantile(counts: np.ndarray, share: float, bins: dict) -> float:
    """Maximum logit below which that share of the voxels lies, to within a bin; NaN without voxels."""
    upper_edges = bins["low"] + bins["width"] * np.arange(bins["number"])
    return np.interp(share * counts.sum(), np.cumsum(counts), upper_edges) if counts.any() else np.nan
