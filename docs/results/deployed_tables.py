"""Tables of models as they are deployed, from deployed_values.py.

Each takes the folders of some models, study/DATASET/deployed_LOSS. `losses` and `structures` compare models with the
first of their data set, on what all have; `shifts` takes folders study/DATASET/shift/CONDITION. Intervals are 95 %, by
drawing patients.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from crossed import crossed_mean
from deployed_values import (
    BAD,
    COMPARED,
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
from study_tables import table

from nnunet_nacl.calibration.quality_report import workload
from nnunet_nacl.metrics.detection import auroc, binary_brier
from nnunet_nacl.runs.held_out_presence import alarms_by_sensitivity

SHARES = (0.1, 0.2, 0.3)


def interval(rows: pd.DataFrame, statistic: Callable[[pd.DataFrame], float], digits: int = 3, sign: str = "") -> str:
    """The statistic with its interval; empty where it is not defined."""
    middle, low, high = (f"{value:{sign}.{digits}f}" for value in draws_of(rows, statistic))
    return "" if middle.endswith("nan") else f"{middle} [{low}, {high}]"


def share(inside: pd.Series) -> str:
    """Of trues, and how many there are; empty where there is nothing."""
    return f"{inside.mean():.2f} ({len(inside)})" if len(inside) else ""


def _each(folders: Sequence[Path], name: str) -> Iterator[tuple[str, str, Path, pd.DataFrame]]:
    for folder in folders:
        for kind in SHOWN:
            title = SETS[kind][2]
            if len(rows := rows_of(folder, kind, name)):
                yield f"{name_of(folder)}, {title}", kind, folder, rows


def promises(folders: Sequence[Path]) -> str:
    """Error of the predicted Dice, and what 90 % intervals of Dice and volume cover: all, and thirds by true volume."""
    lines = []
    for title, _, folder, rows in _each(folders, "structures"):
        dice = rows.dropna(subset=["Dice", "Dice low"])
        constant = rows_of(folder, "folds", "structures").groupby("structure")["Dice"].mean()
        off = {name: (dice[f"{name} Dice"] - dice["Dice"]).abs().mean() for name in ("expected", "predicted")}
        flat = (dice["structure"].map(constant) - dice["Dice"]).abs().mean()
        inside = (dice["Dice low"] <= dice["Dice"]) & (dice["Dice"] <= dice["Dice high"])
        volume = rows.dropna(subset=["volume low"])
        covered = (volume["volume low"] <= volume["true volume"]) & (volume["true volume"] <= volume["volume high"])
        there = volume["true volume"] > 0
        third = volume["true volume"].where(there).groupby(volume["structure"]).rank(pct=True)
        by_size = [covered[(third > low / 3) & (third <= (low + 1) / 3)] for low in range(3)]
        width = (dice["Dice high"] - dice["Dice low"]).mean()
        lines.append(
            [title, f"{off['expected']:.3f}", f"{off['predicted']:.3f}", f"{flat:.3f}", share(inside), f"{width:.2f}"]
            + [share(covered), *(f"{part.mean():.2f}" if len(part) else "" for part in by_size)]
            + [share(covered[~there])]
        )
    header = ["", "expected Dice off by", "predicted", "a constant", "Dice inside (n)", "mean width"]
    return table([*header, "volume inside (n)", "small", "middle", "large", "absent (n)"], lines)


def presence(folders: Sequence[Path]) -> str:
    """Whether a structure is in the scan: Brier score and AUROC."""
    lines = []
    for title, _, _, rows in _each(folders, "structures"):
        for structure, own in rows.dropna(subset=["present probability"]).groupby("structure", sort=False):
            true = own["true volume"] > 0
            kinds = (own["present probability"], own["largest probability"], (own["volume"] > 0).astype(float))
            numbers = [f"{binary_brier(p, true):.3f} / {auroc(p, true):.2f}" for p in kinds]
            lines.append([f"{title}, {structure}", f"{int(true.sum())} of {len(true)}", *numbers])
    return table(["Brier / AUROC", "present", "learned", "largest probability", "any voxel predicted"], lines)


def findings(folders: Sequence[Path]) -> str:
    """Whether a finding is real: Brier score, AUROC, and false alarms a scan at given shares of the true parts."""
    lines = []
    for title, kind, folder, rows in _each(folders, "findings"):
        cases = rows_of(folder, kind, "structures")
        for structure, own in rows.dropna(subset=["real probability"]).groupby("structure", sort=False):
            real = own["overlaps"].notna()
            parts = cases[cases["structure"] == structure].set_index(["network", "case"])["true parts"]
            place = {one: i for i, one in enumerate(parts.index)}
            case_of = [place[one] for one in zip(own["network"], own["case"])]
            overlaps = [
                [int(float(x)) for x in one.split(";")] if isinstance(one, str) else [] for one in own["overlaps"]
            ]
            for name in ("real probability", "mean probability"):
                found = own[name].to_numpy(), real.to_numpy(), case_of, overlaps, parts.astype(int).tolist()
                alarms = alarms_by_sensitivity(*found)
                reached = ["" if math.isnan(alarms[one]) else f"{alarms[one]:.2f}" for one in ("0.5", "0.7", "0.8")]
                brier, area = binary_brier(own[name], real), auroc(own[name], real)
                what = "learned" if name == "real probability" else name
                count = f"{int(real.sum())} of {len(real)}"
                lines.append([f"{title}, {structure}, {what}", count, f"{brier:.3f}", f"{area:.2f}", *reached])
    return table(["", "real", "Brier", "AUROC", "false alarms a scan at 0.5", "at 0.7", "at 0.8"], lines)


def orders(folders: Sequence[Path]) -> str:
    """Share of the bad scans among the first 10, 20 and 30 % of the list; AUROC of bad against others."""
    lines = []
    for title, kind, folder, _ in _each(folders, "cases"):
        rows, threshold = listed(folder, kind), BAD[folder.parent.name]
        bad = int((rows["true"] < threshold).sum())
        lines.append([f"**{title}**: {bad} of {len(rows)} below {threshold}", *[""] * (len(SHARES) + 1)])
        for order, (column, sign) in ORDERS.items():
            if column not in rows or rows[column].isna().all():
                continue
            # a scan without any structure is looked at first
            keys = (sign * rows[column]).fillna(math.inf)
            caught = [row.caught for row in workload(-keys, rows["true"], threshold, SHARES)]
            compared = rows.assign(key=keys.replace(math.inf, 1e9), bad=rows["true"] < threshold)
            area = interval(compared, lambda own: auroc(own["key"], own["bad"]), 2)
            lines.append([order, *("" if math.isnan(x) else f"{x:.2f}" for x in caught), area])
        lines.append(["random", *(f"{x:.2f}" for x in SHARES), "0.50"])
    return table(["bad scans found when looking at", *(f"{x:.0%}".replace("%", " %") for x in SHARES), "AUROC"], lines)


def labels(folders: Sequence[Path]) -> str:
    """What a decision changes: Dice, HD95, structures that are missed or invented."""
    lines = []
    for title, _, _, rows in _each(folders, "labels"):
        wide = case_dice(rows)
        for rule, own in rows.groupby("labels", sort=False):
            there, found = own["true volume"] > 0, own["volume"] > 0
            change = (
                ""
                if rule == "nnU-Net"
                else interval(
                    wide.assign(change=wide[rule] - wide["nnU-Net"]), lambda part: part["change"].mean(), 4, "+"
                )
            )
            counts = [f"{int((there & ~found).sum())}", f"{int((~there & found).sum())}"]
            absent = f"{int((~there).sum())}"
            lines.append([f"{title}, {rule}", f"{wide[rule].mean():.4f}", change, f"{own['HD95'].mean():.2f}"])
            lines[-1] += [counts[0], f"{counts[1]} of {absent}"]
    return table(["labels", "Dice", "change", "HD95 (mm)", "missed", "invented, of absent"], lines)


def slopes(folders: Sequence[Path]) -> str:
    """The best further slope on top of the map: 1 where the map fits."""
    lines = []
    for title, _, _, rows in _each(folders, "cases"):
        columns = [name for name in rows if name.startswith("NLL at ")]
        at = np.array([float(name.removeprefix("NLL at ")) for name in columns])

        def best(own: pd.DataFrame, at=at, columns=columns) -> float:
            means = own[columns].mean().to_numpy()
            i = int(np.clip(means.argmin(), 1, len(at) - 2))
            curve = np.polyfit(at[i - 1 : i + 2], means[i - 1 : i + 2], 2)  # the least of a parabola through three
            return float(np.clip(-curve[1] / (2 * curve[0]), at[0], at[-1]))

        gain = rows["NLL at 1"].mean() - rows[columns].mean().min()
        lines.append([title, interval(rows, best, 2), f"{rows['NLL at 1'].mean():.4f}", f"{gain:.5f}"])
    return table(["", "best further slope", "NLL all with the map", "less with that slope, at most"], lines)


def needed(folders: Sequence[Path]) -> str:
    """NLL of maps that were fitted to few patients, against none: mean change in %, and draws in which it is higher."""
    lines = []
    found = {folder: pd.read_csv(folder / "folds" / "needed.csv") for folder in folders}
    sizes = sorted(set().union(*(set(one["patients"]) for one in found.values())))
    for folder, values in found.items():
        change = values.assign(change=values["NLL"] / values["NLL as trained"] - 1)
        for form, own in change.groupby("form", sort=False):
            by_size = own.groupby("patients")["change"]
            cells = {}
            for n, part in by_size:
                worse = "" if (part < 0).all() else f" ({int((part >= 0).sum())} of {len(part)} higher)"
                cells[n] = f"{100 * part.mean():+.1f}{worse}"
            lines.append([f"{name_of(folder)}, {form}", *(cells.get(n, "") for n in sizes)])
    return table(["patients", *map(str, sizes)], lines)


def losses(folders: Sequence[Path]) -> str:
    """What a loss changes, as trained and with its own map: Dice, and NLL against the first loss with its map."""
    lines = []
    for _, title, found in compared(folders):
        lines.append([f"**{title}**", *[""] * (4 + 2 * len(COMPARED))])
        for i, own in enumerate(found.values()):
            lines.append([own["loss"].iloc[0], f"{own['Dice'].mean():.3f}"])
            lines[-1].append(interval(own, mean_of("Dice change"), 3, "+") if i else "")
            lines[-1] += [f"{own[f'ECE predicted{when}'].mean():.3f}" for when in (" as trained", "")]
            for score in COMPARED:
                digits = 4 if score.endswith("all") else 3
                lines[-1].append(interval(own, mean_of(f"{score} change as trained"), digits, "+"))
                lines[-1].append(interval(own, mean_of(f"{score} change"), digits, "+") if i else "")
    header = ["loss", "Dice", "change", "ECE predicted, as trained", "ECE predicted, with its map"]
    return table(
        [*header, *(f"{score}, {when}" for score in COMPARED for when in ("as trained", "with its map"))], lines
    )


def structures(folders: Sequence[Path]) -> str:
    """What a loss changes in the Dice of the structures that are there, which of them it misses, what it invents."""
    lines = []
    for kind, title, found in compared(folders):
        rows = structures_compared(kind, found)
        lines.append([f"**{title}**", *[""] * 4])
        first = rows["loss"].iloc[0]
        rows = rows.sort_values("structure", kind="stable", key=lambda names: pd.factorize(names)[0])
        for (structure, loss), own in rows.groupby(["structure", "loss"], sort=False):
            there, predicted = own["true volume"] > 0, own["volume"] > 0
            lines.append([f"{structure}, {loss}", f"{own['Dice'].mean():.3f}"])
            lines[-1].append("" if loss == first else interval(own, mean_of("change"), 3, "+"))
            lines[-1].append(f"{int((there & ~predicted).sum())} of {int(there.sum())}")
            lines[-1].append(f"{int((~there & predicted).sum())} of {int((~there).sum())}")
    return table(["structure, loss", "Dice", "change", "missed", "invented"], lines)


def changes(folders: Sequence[Path]) -> str:
    """What the map changes on cases in no fold. Single networks: intervals over patients and trainings (crossed)."""
    lines = []
    for folder in folders:
        for kind in ("single", "average"):
            cases = rows_of(folder, kind, "cases")
            networks = cases["network"].nunique()
            lines.append([f"{name_of(folder)}, {SETS[kind][2]} ({networks})"])
            for score in ("NLL all", "Brier all", "ECE predicted"):
                change = cases.assign(change=cases[score] - cases[f"{score} as trained"])
                wide = change.pivot_table("change", "network", "patient")
                found = crossed_mean(wide.to_numpy())
                digits = 3 if score.startswith("ECE") else 4
                numbers = (f"{value:+.{digits}f}" for value in (found.mean, found.low, found.high))
                lines[-1].append("{} [{}, {}]".format(*numbers))
    return table(["", "NLL all", "Brier all", "ECE predicted"], lines)


def peers(folders: Sequence[Path]) -> str:
    """NLL over the image with the form that `calibrate` chose, less that of other calibrators, on the same cases."""
    lines, others = [], ("as trained", "temperature", "CMSop", "CDC", "matrix")
    for folder in folders:
        chosen = json.loads((folder / "calibration_map.json").read_text(encoding="utf-8"))["form"]
        for kind in SHOWN:
            if (rows := rows_of(folder, kind, "forms")).empty:
                continue
            wide = rows.pivot_table("NLL all", ["network", "case", "patient"], "form").reset_index("patient")
            lines.append([f"{name_of(folder)}, {SETS[kind][2]}: {chosen}"])
            for other in others:
                change = wide.assign(change=wide[chosen] - wide[other]) if other in wide and other != chosen else None
                lines[-1].append("" if change is None else interval(change, mean_of("change"), 4, "+"))
    return table(["NLL all, chosen form less", *others], lines)


def shifts(folders: Sequence[Path]) -> str:
    """The rows of ``shifted``."""
    found = shifted(folders)
    two = ("Dice inside", "volume inside", "list, Spearman's rho")
    for name in found.columns.drop(["images", "n"]):
        digits = 4 if name.startswith("NLL") else 2 if name in two else 3
        found[name] = found[name].map(f"{{:.{digits}f}}".format)
    titles = {"images": "", "ECE predicted": "ECE with the map", "NLL all": "NLL with the map"}
    return table([titles.get(name, name) for name in found], found.astype(str).to_numpy().tolist())


TABLES: dict[str, Callable[[Sequence[Path]], str]] = {
    one.__name__: one
    for one in (
        promises,
        presence,
        findings,
        orders,
        labels,
        slopes,
        needed,
        changes,
        peers,
        losses,
        structures,
        shifts,
    )
}
