"""Figures of the review list.

    python docs/results/figures_list.py FOLDER study/DATASET/TRAINER ...

Writes into FOLDER, a panel for each data set, averages of the folds on outer cases:

    results_list.png      mean risk of the scans that are kept, the most trusted first
    results_promises.png  Dice as predicted, with its interval, against the true one
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from list_scores import ORACLE, RANDOM, SCORE, risk_coverage, scans, trusts
from values import name_of, rows_of

from nnunet_nacl.show.layout import GREY, PALE, figure_settings, line_look, save_figure

KIND = "average"
MARKERS = "os^Dv"
DRAWN = (SCORE, "entropy", "members' Dice", RANDOM, ORACLE)


def _panels(folders: list[Path], height: float):
    size = 3.0 * len(folders) + 0.6, height
    figure, axes = plt.subplots(1, len(folders), figsize=size, squeeze=False, layout="constrained")
    for axis, folder in zip(axes[0], folders):
        axis.set_title(name_of(folder))
    return figure, list(zip(axes[0], folders))


def lists(folders: list[Path], path: Path) -> None:
    """Risk-coverage curves; a scan's risk is 1 - the lowest true Dice of its structures."""
    figure, panels = _panels(folders, 3.4)
    for axis, folder in panels:
        rows, known = scans(folder, KIND), trusts(folder, KIND)
        usable = rows["Dice"].notna().to_numpy()
        risk = 1 - rows["Dice"].to_numpy()[usable]
        for i, order in enumerate(DRAWN):
            if order in known:
                curve = risk_coverage(known[order][usable], risk)
                axis.plot(np.arange(1, len(curve) + 1) / len(curve), curve, label=order, **line_look(i))
        axis.set(xlim=(0, 1), ylim=(0, None), xlabel="share of the scans that are kept")
        axis.grid()
    panels[0][0].set_ylabel("mean of 1 - lowest Dice of these")
    handles = panels[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(DRAWN), frameon=False)
    save_figure(figure, path)


def promises(folders: list[Path], path: Path) -> None:
    """A point each structure of a case, with the 90 % interval of its Dice."""
    figure, panels = _panels(folders, 3.4)
    for axis, folder in panels:
        rows = rows_of(folder, KIND, "structures").dropna(subset=["Dice", "predicted Dice"])
        for i, (structure, own) in enumerate(rows.groupby("structure", sort=False)):
            x, y, colour = own["Dice"], own["predicted Dice"], line_look(i)["color"]
            axis.vlines(x, own["Dice low"], own["Dice high"], color=PALE, linewidth=1.2, zorder=1)
            axis.plot(x, y, MARKERS[i % len(MARKERS)], color=colour, markersize=4, label=structure)
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        least = rows[["Dice", "predicted Dice", "Dice low"]].min().min()
        limits = (np.floor(10 * least) / 10 - 0.02, 1.02)
        axis.set(xlim=limits, ylim=limits, xlabel="true Dice")
        axis.legend(frameon=False, loc="lower right", fontsize=7)
    panels[0][0].set_ylabel("predicted Dice, 90 % interval")
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    folders = [folder.resolve() for folder in arguments.folders]
    with figure_settings():
        lists(folders, arguments.output / "results_list.png")
        promises(folders, arguments.output / "results_promises.png")


if __name__ == "__main__":
    main()
