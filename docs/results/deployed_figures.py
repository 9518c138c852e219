"""Figures of models as they are deployed.

    python docs/results/deployed_figures.py FOLDER study/DATASET/deployed_LOSS ...

Writes into FOLDER, from the values that deployed.py and map_forms.py measured, a panel for each data set:

    deployed_forms.png     what each form of the map changes in NLL over the image, averages of five networks
    deployed_promises.png  Dice as predicted, with its interval, against the true one
    deployed_list.png      share of the bad scans that are found when looking at the first of the list
    deployed_labels.png    what labels that are decided for Dice or F2 change in Dice
    deployed_losses.png    with --losses: Dice of losses less a data set's first, NLL less the first with its map
    deployed_shifts.png    with --shifts, folders of deployed_shift.sh: NLL, and the intervals that hold
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from deployed_values import (
    BAD,
    NON_INFERIOR,
    ORDERS,
    SETS,
    SHOWN,
    case_dice,
    compared,
    draws_of,
    listed,
    mean_of,
    name_of,
    rows_of,
    shifted,
    structures_compared,
)
from map_forms import AS_TRAINED
from method_styles import legend_handles, method_styles

from nnunet_nacl.calibration.quality_report import workload
from nnunet_nacl.show.layout import GREY, INK, PALE, figure_settings, save_figure


def _panels(rows: int, folders: list[Path], height: float):
    figure, axes = plt.subplots(
        rows, len(folders), figsize=(3.4 * len(folders) + 0.6, height * rows), squeeze=False, layout="constrained"
    )
    return figure, axes


def _ranges(axis, rows: Mapping[str, tuple[float, float, float]]) -> None:
    """A line for each name: a value and its interval."""
    for i, (middle, low, high) in enumerate(rows.values()):
        axis.plot([low, high], [i, i], color=GREY, linewidth=1.6)
        axis.plot([middle], [i], "o", color=INK)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.grid(axis="x")
    axis.locator_params(axis="x", nbins=5)


def forms(folders: list[Path], path: Path) -> None:
    """Relative change of the mean NLL, with intervals over patients."""
    figure, axes = _panels(1, folders, 2.9)
    for axis, folder in zip(axes[0], folders):
        values = rows_of(folder, "average", "forms")
        wide = values.pivot_table("NLL all", ["patient", "case"], "form", sort=False)
        rows = {}
        for form in (name for name in wide if name not in (AS_TRAINED, "TS")):  # TS is a temperature, too
            both = wide[[form, AS_TRAINED]].reset_index("patient")
            found = draws_of(both, lambda own, form=form: own[form].mean() / own[AS_TRAINED].mean() - 1)
            rows[form] = tuple(100 * x for x in found)
        _ranges(axis, rows)
        axis.set_title(name_of(folder))
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
        axis.set_title(name_of(folder))
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
            axis.set_title(f"{name_of(folder)}, {SETS[kind][2]}\n{bad} of {len(rows)} scans bad", fontsize=8)
            axis.set(xlabel="share of the scans looked at", ylabel="share of the bad ones found")
            axis.grid()
    handles = legend_handles(styles)
    for handle in handles:
        handle.set_marker("")
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(folders) + 1), frameon=False)
    save_figure(figure, path)


def decided(folders: list[Path], path: Path) -> None:
    """Change of a case's mean Dice, with intervals over patients."""
    figure, axes = _panels(1, folders, 2.3)
    for axis, folder in zip(axes[0], folders):
        found = {}
        for kind in SHOWN:
            wide = case_dice(rows_of(folder, kind, "labels"))
            for rule in (name for name in ("Dice", "F2") if name in wide):
                change = wide.assign(change=wide[rule] - wide["nnU-Net"])
                found[f"{SETS[kind][2]}: {rule}"] = draws_of(change, mean_of("change"))
        _ranges(axis, found)
        axis.set_title(name_of(folder))
        axis.set_xlabel("Dice, change to nnU-Net's labels")
    save_figure(figure, path)


def losses(folders: list[Path], path: Path) -> None:
    """Dice of each structure and NLL of each loss less those of the first with its map, cases of folds above."""
    sets = list(compared(folders))
    figure, axes = plt.subplots(len(sets), 2, figsize=(8.4, 2.1 * len(sets)), squeeze=False, layout="constrained")
    for (kind, title, found), (dice, nll) in zip(sets, axes):
        first, *others = (own["loss"].iloc[0] for own in found.values())
        rows = {}
        for (loss, structure), own in structures_compared(kind, found).groupby(["loss", "structure"], sort=False):
            if loss != first:
                rows[f"{loss}: {structure}" if len(others) > 1 else structure] = draws_of(own, mean_of("change"))
        _ranges(dice, rows)
        dice.axvline(-NON_INFERIOR, color=INK, linewidth=0.8, linestyle=":")
        dice.set_xlabel(f"Dice, change (dotted: margin of {NON_INFERIOR})")
        dice.set_title(f"{', '.join(others)}\n{title}", fontsize=8, loc="left")
        rows = {}
        for own in found.values():
            loss = own["loss"].iloc[0]
            for column, when in (("NLL all change as trained", "as trained"), ("NLL all change", "with its map")):
                if loss != first or when == "as trained":
                    rows[f"{loss}, {when}"] = draws_of(own, mean_of(column))
        _ranges(nll, rows)
        nll.set_xlabel("NLL over the image, change")
        nll.set_title(f"less {first} with its map", fontsize=8, loc="left")
    save_figure(figure, path)


def shifts(folders: list[Path], path: Path) -> None:
    """NLL as trained and with the map, and shares of true Dice and volumes inside intervals of a nominal 90 %."""
    found = shifted(folders)
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 0.34 * len(found) + 1.2), sharey=True, layout="constrained")
    places = np.arange(len(found))
    looks = {"as trained": ("NLL all as trained", "o", GREY), "with the map": ("NLL all", "s", INK)}
    for name, (column, marker, colour) in looks.items():
        axes[0].plot(found[column], places, marker, color=colour, label=name)
    axes[0].set_xlabel("NLL over the image")
    for name, (marker, colour) in {"Dice": ("o", INK), "volume": ("s", GREY)}.items():
        axes[1].plot(found[f"{name} inside"], places, marker, color=colour, label=name)
    axes[1].axvline(0.9, color=GREY, linewidth=0.8)
    axes[1].set(xlim=(-0.03, 1.03), xlabel="share inside intervals of 90 %")
    axes[0].set_yticks(places, found["images"])
    axes[0].set_ylim(len(found) - 0.5, -0.5)
    for axis in axes:
        axis.grid(axis="x")
        axis.legend(frameon=False, fontsize=7)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--losses", type=Path, nargs="+", metavar="FOLDER", help="study/DATASET/deployed_LOSS")
    parser.add_argument("--shifts", type=Path, nargs="+", metavar="FOLDER", help="study/DATASET/shift/CONDITION")
    arguments = parser.parse_args()
    folders, of_losses, of_shifts = (
        [folder.resolve() for folder in given or ()]
        for given in (arguments.folders, arguments.losses, arguments.shifts)
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    with figure_settings():
        forms(folders, arguments.output / "deployed_forms.png")
        promises(folders, arguments.output / "deployed_promises.png")
        lists(folders, arguments.output / "deployed_list.png")
        decided(folders, arguments.output / "deployed_labels.png")
        if of_losses:
            losses(of_losses, arguments.output / "deployed_losses.png")
        if of_shifts:
            shifts(of_shifts, arguments.output / "deployed_shifts.png")


if __name__ == "__main__":
    main()
