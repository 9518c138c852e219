"""Figures of what a map changes in the probabilities.

    python docs/results/figures_calibration.py FOLDER study/DATASET/TRAINER ...

Writes into FOLDER, a column for each data set:

    results_reliability.png  accuracy against confidence of segmented voxels, pooled, before and after the map, with
                             the voxels of each bin, each curve's by a scale of its own; validation cases above,
                             averages on other cases below
    results_raters.png       of data sets with raters.csv: the share of two raters who labelled a voxel, against the
                             calibrated probability and that as trained
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from values import SETS, SHOWN, name_of, resamples

from nnunet_nacl.show.layout import GREY, INK, figure_settings, save_figure

COLOURS = {"as trained": "#d1651a", "map": INK}
TITLES = {"as trained": "as trained", "map": "with the map"}


def _points(sums: pd.DataFrame, total: str, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of the first and share of the second by bin, and the share of all voxels that the bin holds."""
    of_bin = sums.groupby("bin")[["count", total, part]].sum()
    some = of_bin[of_bin["count"] > 0]
    return (
        (some[total] / some["count"]).to_numpy(),
        (some[part] / some["count"]).to_numpy(),
        (of_bin["count"] / of_bin["count"].sum()).to_numpy(),
    )


def _axis(axis: plt.Axes) -> None:
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_aspect("equal")


def reliability(folders: list[Path], path: Path) -> None:
    """Two rows of panels."""
    figure, axes = plt.subplots(
        2, len(folders), figsize=(2.5 * len(folders) + 0.6, 5.2), squeeze=False, layout="constrained"
    )
    for column, folder in enumerate(folders):
        for axis, kind in zip(axes[:, column], SHOWN):
            place, begins, title = SETS[kind]
            bins = folder / place / "bins.csv"
            if not bins.is_file():
                axis.set_axis_off()
                continue
            rows = pd.read_csv(bins)
            rows = rows[rows["network"].str.startswith(begins)]
            _axis(axis)
            for form, colour in COLOURS.items():
                x, y, share = _points(rows[rows["form"] == form], "confidence", "correct")
                axis.plot(x, y, "o-", color=colour, markersize=3, linewidth=1.2, label=TITLES[form])
                edges = np.arange(len(share) + 1) / len(share)
                axis.stairs(0.25 * share / share.max(), edges, color=colour, linewidth=0.8, alpha=0.7)
            axis.set_title(f"{name_of(folder)}, {title}", fontsize=8)
    axes[0, 0].legend(loc="upper left", fontsize=7)
    figure.supxlabel("confidence of segmented voxels (steps: where voxels lie)", fontsize=9)
    figure.supylabel("accuracy", fontsize=9)
    save_figure(figure, path)


def raters(folders: list[Path], path: Path) -> None:
    """Share of raters, with intervals over patients."""
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.3), layout="constrained")
    for folder in folders:
        rows = pd.read_csv(folder / "raters.csv", dtype={"case": str})
        rows = rows.assign(patient=rows["case"].str.extract(r"(\d+)")[0], raters=(rows["first"] + rows["second"]) / 2)
        for axis, form in zip(axes, COLOURS):
            own = rows[rows["form"] == form]
            x, y, _ = _points(own, "probability", "raters")
            _axis(axis)
            drawn = []
            for places in resamples(own["patient"]):
                of_bin = own.iloc[places].groupby("bin")[["count", "raters"]].sum()
                drawn.append((of_bin["raters"] / of_bin["count"]).to_numpy())
            low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
            axis.fill_between(x, low, high, color=COLOURS[form], alpha=0.2, linewidth=0)
            axis.plot(x, y, "o-", color=COLOURS[form], markersize=3, linewidth=1.2, label="mean of both raters")
            for name, line in (("first", ":"), ("both", "--")):
                axis.plot(
                    x,
                    _points(own, "probability", name)[1],
                    line,
                    color=GREY,
                    label=f"{name} rater{'s' * (name == 'both')}",
                )
            axis.set_title(TITLES[form], fontsize=9)
            axis.set_xlabel("probability of vessel")
    axes[0].set_ylabel("share of raters who labelled vessel")
    axes[0].legend(loc="upper left", fontsize=7)
    save_figure(figure, path)


def main(output: Path, folders: list[Path]) -> None:
    with figure_settings():
        reliability(folders, output / "results_reliability.png")
        if several := [folder for folder in folders if (folder / "raters.csv").is_file()]:
            raters(several, output / "results_raters.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
