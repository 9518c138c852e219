"""Figures of models as they are deployed.

    python docs/results/deployed_figures.py FOLDER study/DATASET/deployed_LOSS ...

Writes into FOLDER, from the values that deployed.py and map_forms.py measured, a panel for each data set:

    deployed_forms.png     what each form of the map changes in NLL over the image, averages of five networks
    deployed_promises.png  Dice as predicted, with its interval, against the true one
    deployed_list.png      share of the bad scans that are found when looking at the first of the list
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from deployed_tables import BAD, ORDERS, SETS, draws_of, listed, rows_of
from map_forms import AS_TRAINED

from nnunet_nacl.calibration.quality_report import workload
from nnunet_nacl.show.style import GREY, INK, PALE, figure_settings, legend_handles, method_styles, save_figure


def _name(folder: Path) -> str:
    return folder.parent.name.partition("_")[2]


def _panels(rows: int, folders: list[Path], height: float):
    figure, axes = plt.subplots(
        rows, len(folders), figsize=(3.4 * len(folders) + 0.6, height * rows), squeeze=False, layout="constrained"
    )
    return figure, axes


def forms(folders: list[Path], path: Path) -> None:
    """Relative change of the mean NLL, with intervals over patients."""
    figure, axes = _panels(1, folders, 2.9)
    for axis, folder in zip(axes[0], folders):
        values = rows_of(folder, "average", "forms")
        wide = values.pivot_table("NLL all", ["patient", "case"], "form", sort=False)
        for i, form in enumerate(name for name in wide if name != AS_TRAINED):
            both = wide[[form, AS_TRAINED]].reset_index("patient")
            middle, low, high = (
                100 * x for x in draws_of(both, lambda own, form=form: own[form].mean() / own[AS_TRAINED].mean() - 1)
            )
            axis.plot([low, high], [i, i], color=GREY, linewidth=1.6)
            axis.plot([middle], [i], "o", color=INK)
        names = [name for name in wide if name != AS_TRAINED]
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.axvline(0, color=GREY, linewidth=0.8)
        axis.grid(axis="x")
        axis.set_title(_name(folder))
        axis.set_xlabel("NLL over the image, change in %")
    save_figure(figure, path)


def promises(folders: list[Path], path: Path) -> None:
    """A point each structure of a case, with the interval of its Dice."""
    figure, axes = _panels(1, folders, 3.4)
    for axis, folder in zip(axes[0], folders):
        rows = rows_of(folder, "average", "structures").dropna(subset=["Dice", "predicted Dice"])
        styles = method_styles(rows["structure"].unique())
        for structure, own in rows.groupby("structure", sort=False):
            style = styles[structure]
            bars = [own["predicted Dice"] - own["Dice low"], own["Dice high"] - own["predicted Dice"]]
            axis.errorbar(
                own["Dice"], own["predicted Dice"], np.clip(bars, 0, None), fmt="none", ecolor=PALE, elinewidth=1.2
            )
            axis.plot(own["Dice"], own["predicted Dice"], linestyle="none", **{**style.markers, "markersize": 4})
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="true Dice", ylabel="predicted Dice, 90 % interval")
        axis.set_title(_name(folder))
        axis.legend(handles=legend_handles(styles, lines=False), frameon=False, loc="upper left", fontsize=7)
    save_figure(figure, path)


def lists(folders: list[Path], path: Path) -> None:
    """Cumulative share of the bad scans, single networks on folds above, averages on outer cases below."""
    kinds = ("folds", "average")
    figure, axes = _panels(len(kinds), folders, 3.1)
    styles = method_styles([*ORDERS, "random"])
    shares = np.linspace(0, 1, 41)
    for kind, row in zip(kinds, axes):
        for axis, folder in zip(row, folders):
            rows = listed(folder, kind)
            threshold = BAD[folder.parent.name]
            for order, (column, sign) in ORDERS.items():
                if column not in rows or rows[column].isna().all():
                    continue
                keys = (sign * rows[column]).fillna(math.inf)
                caught = [one.caught for one in workload(-keys, rows["true"], threshold, shares)]
                axis.plot(shares, caught, **styles[order].line)
            axis.plot([0, 1], [0, 1], **styles["random"].line)
            bad = int((rows["true"] < threshold).sum())
            axis.set_title(f"{_name(folder)}, {SETS[kind][2]}\n{bad} of {len(rows)} scans bad", fontsize=8)
            axis.set(xlabel="share of the scans looked at", ylabel="share of the bad ones found")
            axis.grid()
    handles = legend_handles(styles)
    for handle in handles:
        handle.set_marker("")
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(folders) + 1), frameon=False)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    folders = [folder.resolve() for folder in arguments.folders]
    arguments.output.mkdir(parents=True, exist_ok=True)
    with figure_settings():
        forms(folders, arguments.output / "deployed_forms.png")
        promises(folders, arguments.output / "deployed_promises.png")
        lists(folders, arguments.output / "deployed_list.png")


if __name__ == "__main__":
    main()
