"""Values of models as they are deployed, as deployed.py and map_forms.py measured them, for tables and figures.

A folder study/DATASET/deployed_LOSS holds `folds/` (validation cases, each by the network and the map that have not
seen it) and `outer/` (cases in no fold), study/DATASET/shift/CONDITION what deployed_shift.sh measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pandas as pd
from study_tables import GROUPS, labels_of

from nnunet_nacl.documents.patient_groups import read_groups

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

COMPARED = ("NLL all", "NLL dilated")
"""Scores of a loss, as trained and with its own map, less those of the first loss with its map."""


def dataset_of(path: Path) -> str:
    """Name of the data set that a file or folder of study/ is of."""
    return path.relative_to(STUDY).parts[0]


def name_of(path: Path) -> str:
    """The same without its number, for people."""
    return dataset_of(path).partition("_")[2]


@cache
def _read(path: Path) -> pd.DataFrame:
    found = pd.read_csv(path, dtype={"case": str, "network": str, "overlaps": str})
    dataset = dataset_of(path)
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


def mean_of(column: str) -> Callable[[pd.DataFrame], float]:
    """Statistic for ``draws_of``."""
    return lambda rows: float(rows[column].mean())


def listed(folder: Path, kind: str) -> pd.DataFrame:
    """Rows of cases.csv with the lowest true Dice of a structure in ``true``."""
    rows = rows_of(folder, kind, "cases")
    structures = rows_of(folder, kind, "structures")
    truth = structures[~structures["structure"].isin(NOT_JUDGED)].groupby(["network", "case"])["Dice"].min()
    return rows.assign(true=[truth[place] for place in zip(rows["network"], rows["case"])])


def case_dice(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice of each case by the rule of its labels; a structure that was invented has none once it is gone."""
    keys = ["network", "case", "patient", "labels"]
    return rows.groupby(keys)["Dice"].mean().unstack().reset_index("patient")


def compared(folders: Sequence[Path]) -> Iterator[tuple[str, str, dict[Path, pd.DataFrame]]]:
    """Models of each data set on what all have, folds first: the set, its title, and the values of each model.

    Averages of networks are compared where all have as many folds, else their single networks. The values have the
    `loss`, and what differs from the first of the data set: `Dice change` of nnU-Net's labels, and for each score of
    ``COMPARED`` `change as trained` and `change`, with the own map, to the first with its map.

    Raises:
        FileNotFoundError: A folder is not there. A set that one of the models lacks is left out.
    """
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise FileNotFoundError(f"there is no {', '.join(missing)}")
    for _, found in groupby(sorted(folders, key=dataset_of), dataset_of):
        models = list(found)
        if len(models) == 1:
            continue
        names = labels_of([folder.name.removeprefix("deployed_") for folder in models])
        all_folds = {frozenset(rows_of(folder, "folds", "cases")["network"]) for folder in models}
        for kind in ("folds", "average" if len(all_folds) == 1 else "single"):
            measured = {}
            for folder in models:
                cases, parts = (rows_of(folder, kind, name) for name in ("cases", "structures"))
                if len(cases):
                    dice = parts.groupby(["network", "case"])["Dice"].mean()
                    measured[folder] = cases.set_index(["network", "case"]).assign(Dice=dice)
            if len(measured) < len(models):
                continue
            places = measured[models[0]].index
            shared = places[[all(place in one.index for one in measured.values()) for place in places]]
            first = measured[models[0]].loc[shared]
            for folder, name in zip(models, names):
                own = measured[folder].loc[shared]
                change = {"loss": name, "Dice change": own["Dice"] - first["Dice"]}
                for score, when in product(COMPARED, (" as trained", "")):
                    change[f"{score} change{when}"] = own[score + when] - first[score]
                measured[folder] = own.assign(**change)
            yield kind, f"{name_of(models[0])}, {SETS[kind][2]} ({len(shared)})", measured


def structures_compared(kind: str, found: dict[Path, pd.DataFrame]) -> pd.DataFrame:
    """A set of ``compared``: a row for each structure of a prediction by each loss, `change` to the first's Dice.

    Dice and change are of the structures that are there; others are invented or rightly absent.
    """
    tables = []
    for folder, own in found.items():
        values = rows_of(folder, kind, "structures").set_index(["network", "case"]).loc[own.index]
        values = values.set_index("structure", append=True).assign(loss=own["loss"].iloc[0])
        tables.append(values.assign(Dice=values["Dice"].where(values["true volume"] > 0)))
        tables[-1]["change"] = tables[-1]["Dice"] - tables[0]["Dice"]
    return pd.concat(tables).reset_index()


def shifted(folders: Sequence[Path]) -> pd.DataFrame:
    """A row for each condition: calibration, promises and the list on other images than the map was learned from."""
    rows = []
    for folder in folders:
        cases, structures = (_read(folder / f"{name}.csv") for name in ("cases", "structures"))
        dice, volume = structures.dropna(subset=["Dice", "Dice low"]), structures.dropna(subset=["volume low"])
        row = {"images": f"{name_of(folder)}, {folder.name.replace('_', ' ')}", "n": len(cases)}
        row["Dice"] = structures["Dice"].mean()
        row |= {f"{score}{when}": cases[f"{score}{when}"].mean() for score in SHIFTED for when in (" as trained", "")}
        row["predicted Dice off by"] = (dice["predicted Dice"] - dice["Dice"]).abs().mean()
        row["Dice inside"] = dice["Dice"].between(dice["Dice low"], dice["Dice high"]).mean()
        row["volume inside"] = volume["true volume"].between(volume["volume low"], volume["volume high"]).mean()
        lowest = structures.groupby("case")["Dice"].min()
        row["list, Spearman's rho"] = cases["expected Dice"].corr(cases["case"].map(lowest), method="spearman")
        rows.append(row)
    return pd.DataFrame(rows)
