"""Draws the calibration records of several trainings into one figure.

    python docs/how-to/training_records_figure.py FOLD_FOLDER [FOLD_FOLDER ...] -o trainings.png

FOLD_FOLDER is a fold folder of nnUNet_results whose trainer is one of this package, or its calibration_progress.json.
Left: expected calibration error in the foreground. Middle: mean maximum logit of the foreground, and between which
values 80 % of its voxels lie. Right: the distribution of the maximum logit in the last epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from nnunet_nacl.errors import UserError
from nnunet_nacl.figures.layout import new_panels, write_figure
from nnunet_nacl.figures.style import GREY, figure_settings, method_styles
from nnunet_nacl.training_record import read_training_record

LAST = 5
"""Epochs whose histograms are added up on the right."""

DASHES = ("-", "--", "-.", ":")  # for those who do not see the colours
WIDTH, HEIGHT = 2.35, 2.5  # inches


def histogram(entry: dict, bins: dict) -> np.ndarray:
    """Foreground voxels of an epoch in all the bins of the maximum logit."""
    of_mask, counts = entry["max_logit"]["foreground"], np.zeros(bins["number"])
    counts[of_mask["first_bin"] : of_mask["first_bin"] + len(of_mask["counts"])] = of_mask["counts"]
    return counts


def quantile(counts: np.ndarray, share: float, bins: dict) -> float:
    """Maximum logit below which that share of the voxels lies, to within a bin; NaN without voxels."""
    upper_edges = bins["low"] + bins["width"] * np.arange(bins["number"])
    return np.interp(share * counts.sum(), np.cumsum(counts), upper_edges) if counts.any() else np.nan


def draw(records: dict[str, dict], path: Path) -> None:
    """Write the figure.

    Args:
        records: Records by the name that the legend shall show.
        path: PNG, SVG or PDF.
    """
    lines = {
        name: {**style.line, "linestyle": DASHES[i % len(DASHES)]}
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
            low, high = ([quantile(histogram(entry, bins), share, bins) for entry in epochs] for share in (0.1, 0.9))
            axes[0].plot(x, np.array(errors, dtype=float), **line)
            axes[1].plot(x, np.array(means, dtype=float), **line)
            axes[1].fill_between(x, low, high, color=line["color"], alpha=0.15, linewidth=0)
            counts = sum(histogram(entry, bins) for entry in epochs[-LAST:])
            centers = bins["low"] + bins["width"] * (np.arange(bins["number"]) - 0.5)
            if counts.any():
                used = slice(*np.flatnonzero(counts)[[0, -1]] + [0, 1])
                axes[2].plot(centers[used], 100 * counts[used] / counts.sum(), **line)
        share = f"% of voxels per {first['max_logit_bins']['width']:g}"
        for axis, title, x_label, y_label in zip(
            axes,
            ("ECE (lower is better)", "Maximum logit, middle 80 %", f"Maximum logit, last {LAST} epochs"),
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
        write_figure(
            body,
            path,
            (WIDTH, HEIGHT),
            title="Calibration while training, foreground",
            subtitle=f"{first['dataset']}, {first['configuration']}, validation patches of nnU-Net",
            legend=[Line2D([], [], label=name, **lines[name]) for name in records],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLD_FOLDER")
    parser.add_argument("-o", type=Path, required=True, help="figure: .png, .svg or .pdf")
    args = parser.parse_args()
    try:
        records = [read_training_record(folder) for folder in args.folders]
    except UserError as error:
        parser.error(str(error))
    for folder, record in zip(args.folders, records):
        if not record["epochs"]:
            parser.error(f"{folder}: its record has no epoch yet.")
    names = [f"{record['trainer']}, fold {record['fold']}" for record in records]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in args.folders]
    draw(dict(zip(names, records)), args.o)


if __name__ == "__main__":
    main()
