"""Tables of models as they are deployed, from the values that deployed.py and map_forms.py measured.

Each takes the folders of some models, study/DATASET/deployed_LOSS, which hold `folds/` (validation cases, each by the
network and the map that have not seen it) and `outer/` (cases in no fold). `losses` compares models of one data set
with the first, on what all have; `shifts` takes folders study/DATASET/shift/CONDITION of deployed_shift.sh. Intervals
are 95 %, by drawing patients.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from crossed import crossed_mean
from study_tables import GROUPS, labels_of, table

from nnunet_nacl.calibration.quality_report import workload
from nnunet_nacl.cases.held_out_presence import alarms_by_sensitivity
from nnunet_nacl.documents.patient_groups import read_groups
from nnunet_nacl.metrics.detection import auroc, binary_brier

STUDY = Path(__file__).resolve().parent / "study"
DRAWS = 1000
SETS = {
    "folds": ("folds", "fold_", "folds"),
    "single": ("outer", "single_", "single, outer"),
    "average": ("outer", "average", "average, outer"),
}
"""Name of a set of predictions: its folder, what its networks' names begin with, and its title."""

SHOWN = ("folds", "average")
"""Sets in the tables."""

BAD = {"Dataset004_Hippocampus": 0.8, "Dataset027_ACDC": 0.8, "Dataset028_EMIDEC": 0.3}
"""A scan is bad where the true Dice of a structure is below; a structure that is missed or invented has 0."""

NOT_JUDGED = ("no-reflow",)
"""Structures that make no scan bad: these networks hardly ever find them."""

NON_INFERIOR = 0.005
"""A loss keeps the Dice of another where it loses less; named before any was trained at this length."""

ORDERS = {
    "expected Dice (the list)": ("expected Dice", -1),
    "entropy": ("entropy", 1),
    "confidence": ("confidence", -1),
    "disagreement": ("disagreement", 1),
    "unusual volume": ("unusual volume", 1),
}
"""Order of the review list: column, and its sign where high values come first."""
SHIFTED = ("ECE predicted", "NLL all")
SHARES = (0.1, 0.2, 0.3)


def _dataset(path: Path) -> str:
    return path.relative_to(STUDY).parts[0]


@cache
def _read(path: Path) -> pd.DataFrame:
    found = pd.read_csv(path, dtype={"case": str, "network": str, "overlaps": str})
    dataset = _dataset(path)
    return found.assign(patient=found["case"].map(read_groups(GROUPS.get(dataset), sorted(found["case"].unique()))))


def rows_of(folder: Path, kind: str, name: str) -> pd.DataFrame:
    """Rows of NAME.csv of one set; empty where that was not measured."""
    place, begins, _ = SETS[kind]
    path = folder / place / f"{name}.csv"
    found = _read(path) if path.is_file() and path.stat().st_size > 1 else pd.DataFrame({"network": []})
    return found[found["network"].astype(str).str.startswith(begins)]


def draws_of(rows: pd.DataFrame, statistic: Callable[[pd.DataFrame], float]) -> tuple[float, float, float]:
    """The statistic, and the ends of its interval, patients drawn with replacement; NaN where it is not defined."""
    middle = statistic(rows)
    if math.isnan(middle):
        return (math.nan,) * 3
    places = list(rows.reset_index(drop=True).groupby("patient").indices.values())
    rng = np.random.default_rng(0)
    chosen = (rng.integers(0, len(places), len(places)) for _ in range(DRAWS))
    drawn = [statistic(rows.iloc[np.concatenate([places[i] for i in one])]) for one in chosen]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return middle, low, high


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
                yield f"{folder.parent.name.partition('_')[2]}, {title}", kind, folder, rows


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


def listed(folder: Path, kind: str) -> pd.DataFrame:
    """Rows of cases.csv with the lowest true Dice of a structure in ``true``."""
    rows = rows_of(folder, kind, "cases")
    structures = rows_of(folder, kind, "structures")
    truth = structures[~structures["structure"].isin(NOT_JUDGED)].groupby(["network", "case"])["Dice"].min()
    return rows.assign(true=[truth[place] for place in zip(rows["network"], rows["case"])])


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


def case_dice(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice of each case by the rule of its labels; a structure that was invented has none once it is gone."""
    keys = ["network", "case", "patient", "labels"]
    return rows.groupby(keys)["Dice"].mean().unstack().reset_index("patient")


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
            lines.append([f"{title}, {rule}", f"{own['Dice'].mean():.4f}", change, f"{own['HD95'].mean():.2f}"])
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
            name = folder.parent.name.partition("_")[2]
            lines.append([f"{name}, {form}", *(cells.get(n, "") for n in sizes)])
    return table(["patients", *map(str, sizes)], lines)


def _mean(column: str) -> Callable[[pd.DataFrame], float]:
    return lambda rows: float(rows[column].mean())


def compared(folders: Sequence[Path]) -> Iterator[tuple[str, list[tuple[str, pd.DataFrame]]]]:
    """Models of one data set on what all have, folds first: the title of a set, and each loss with its values.

    Averages of networks are compared where all have as many folds, else their single networks. The values have Dice
    and NLL less those of the first loss: `Dice change` of nnU-Net's labels, and `NLL change as trained` and `NLL
    change`, with the own map, to the first loss with its map.
    """
    labels_shown = labels_of([folder.name.removeprefix("deployed_") for folder in folders])
    all_folds = {frozenset(rows_of(folder, "folds", "cases")["network"]) for folder in folders}
    for kind in ("folds", "average" if len(all_folds) == 1 else "single"):
        measured = []
        for folder in folders:
            dice = rows_of(folder, kind, "structures").groupby(["network", "case"])["Dice"].mean()
            measured.append(rows_of(folder, kind, "cases").set_index(["network", "case"]).assign(Dice=dice))
        places = measured[0].index
        shared = places[[all(place in one.index for one in measured) for place in places]]
        first = measured[0].loc[shared]
        found = []
        for label, values in zip(labels_shown, measured):
            own = values.loc[shared]
            change = {"Dice change": own["Dice"] - first["Dice"]}
            change |= {f"NLL change{when}": own[f"NLL all{when}"] - first["NLL all"] for when in (" as trained", "")}
            found.append((label, own.assign(**change)))
        networks = len(set(shared.get_level_values("network")))
        yield f"{SETS[kind][2]}: {networks} network{'s' * (networks > 1)}, {len(shared)} predictions", found


def losses(folders: Sequence[Path]) -> str:
    """What a loss changes, as trained and with its own map: Dice, and NLL against the first loss with its map."""
    lines = []
    for title, found in compared(folders):
        lines.append([f"**{title}**", *[""] * 6])
        for i, (label, own) in enumerate(found):
            lines.append([label, f"{own['Dice'].mean():.3f}"])
            lines[-1].append(interval(own, _mean("Dice change"), 3, "+") if i else "")
            lines[-1] += [f"{own[f'ECE predicted{when}'].mean():.3f}" for when in (" as trained", "")]
            lines[-1].append(interval(own, _mean("NLL change as trained"), 4, "+"))
            lines[-1].append(interval(own, _mean("NLL change"), 4, "+") if i else "")
    header = ["loss", "Dice", "change", "ECE predicted as trained", "with its map"]
    return table([*header, "NLL all as trained, to the first with its map", "with its map"], lines)


def changes(folders: Sequence[Path]) -> str:
    """What the map changes on cases in no fold. Single networks: intervals over patients and trainings (crossed)."""
    lines = []
    for folder in folders:
        for kind in ("single", "average"):
            cases, structures = (rows_of(folder, kind, name) for name in ("cases", "structures"))
            networks = len(set(cases["network"]))
            lines.append([f"{_dataset(folder).partition('_')[2]}, {SETS[kind][2]} ({networks})"])
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
            lines.append([f"{_dataset(folder).partition('_')[2]}, {SETS[kind][2]}: {chosen}"])
            for other in others:
                change = wide.assign(change=wide[chosen] - wide[other]) if other in wide and other != chosen else None
                lines[-1].append("" if change is None else interval(change, _mean("change"), 4, "+"))
    return table(["NLL all, chosen form less", *others], lines)


def shifted(folders: Sequence[Path]) -> pd.DataFrame:
    """A row for each condition: calibration, promises and the list on other images than the map was learned from."""
    rows = []
    for folder in folders:
        cases, structures = (_read(folder / f"{name}.csv") for name in ("cases", "structures"))
        dice, volume = structures.dropna(subset=["Dice", "Dice low"]), structures.dropna(subset=["volume low"])
        row = {"images": f"{_dataset(folder).partition('_')[2]}, {folder.name.replace('_', ' ')}", "n": len(cases)}
        row["Dice"] = structures["Dice"].mean()
        row |= {f"{score}{when}": cases[f"{score}{when}"].mean() for score in SHIFTED for when in (" as trained", "")}
        row["predicted Dice off by"] = (dice["predicted Dice"] - dice["Dice"]).abs().mean()
        row["Dice inside"] = dice["Dice"].between(dice["Dice low"], dice["Dice high"]).mean()
        row["volume inside"] = volume["true volume"].between(volume["volume low"], volume["volume high"]).mean()
        lowest = structures.groupby("case")["Dice"].min()
        row["list, Spearman's rho"] = cases["expected Dice"].corr(cases["case"].map(lowest), method="spearman")
        rows.append(row)
    return pd.DataFrame(rows)


def shifts(folders: Sequence[Path]) -> str:
    """The rows of ``shifted``."""
    found = shifted(folders)
    digits = {"NLL all as trained": 4, "NLL all": 4, "Dice inside": 2, "volume inside": 2, "list, Spearman's rho": 2}
    cells = [
        [
            value if isinstance(value, str) else f"{value}" if name == "n" else f"{value:.{digits.get(name, 3)}f}"
            for name, value in row.items()
        ]
        for _, row in found.iterrows()
    ]
    titles = {"images": "", "ECE predicted": "ECE with the map", "NLL all": "NLL with the map"}
    return table([titles.get(name, name) for name in found], cells)


TABLES: dict[str, Callable[[Sequence[Path]], str]] = {
    one.__name__: one
    for one in (promises, presence, findings, orders, labels, slopes, needed, changes, peers, losses, shifts)
}
