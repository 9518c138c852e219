"""Values that measure.py wrote of trained models, and the statistics and Markdown that all tables share.

A folder study/DATASET/TRAINER holds `folds/` (validation cases, each by the network, the map and the estimates that
have not seen it) and `outer/` (cases in no fold), see protocol.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.comparison.entries import STOCK_LABEL
from nnunet_nacl.documents.patient_groups import read_groups

STUDY = Path(__file__).resolve().parent / "study"

DRAWS = 1000

SETS = {
    "folds": ("folds", "fold_", "folds"),
    "single": ("outer", "single_", "single, outer"),
    "average": ("outer", "average", "average, outer"),
    "ensemble": ("outer", "ensemble", "average of probabilities, outer"),
}
"""Name of a set of predictions: its folder, what its networks' names begin with, and its title."""

SHOWN = ("folds", "average")
"""Sets in most tables."""

BAD = {
    "Dataset004_Hippocampus": 0.8,
    "Dataset027_ACDC": 0.8,
    "Dataset028_EMIDEC": 0.3,
    "Dataset030_DRIVE": 0.75,
}
"""A scan is bad where the true Dice of a structure is below; a structure that is missed or invented has 0."""

NOT_JUDGED = ("no-reflow",)
"""Structures that make no scan bad: these networks hardly ever find them."""

SPLITS = Path(__file__).resolve().parent / "splits"
"""By data set nnU-Net's folds, the cases in none, and, where a patient has several cases, patients.json."""


def dataset_of(folder: Path) -> str:
    """Name of the data set that a folder DATASET/TRAINER is of."""
    return folder.parent.name


def name_of(folder: Path) -> str:
    """The same without its number, for people, and with the configuration where that is in 3D."""
    name = dataset_of(folder).partition("_")[2]
    return f"{name} in 3D" if "_3d_" in folder.name else name


def title_of(folder: Path, kind: str) -> str:
    """Data set and set, for people."""
    return f"{name_of(folder)}, {SETS[kind][2]}"


def patients_file(dataset: str) -> Path:
    """Where a data set whose patients have several cases has the patient of each."""
    return SPLITS / dataset / "patients.json"


def with_patients(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The rows with the ``patient`` of each case."""
    known = patients_file(dataset)
    patients = read_groups(str(known) if known.is_file() else None, sorted(rows["case"].unique()))
    return rows.assign(patient=rows["case"].map(patients))


@cache
def _fold_of(dataset: str) -> pd.DataFrame:
    """Fold and patient of each case that is in a fold."""
    splits = json.loads((SPLITS / dataset / "splits_final.json").read_text(encoding="utf-8"))
    rows = [{"case": case, "fold": fold} for fold, split in enumerate(splits) for case in split["val"]]
    return with_patients(pd.DataFrame(rows), dataset)


def unseen(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The rows without those of scans whose patient has another scan in a fold that their network was trained on.

    Args:
        rows: With ``case`` and ``patient``; fold cases by the network that was trained on the other folds.
        dataset: Whose.
    """
    if rows.empty or not patients_file(dataset).is_file():
        return rows
    known = _fold_of(dataset)
    own, folds = rows["case"].map(known.set_index("case")["fold"]), known.groupby("patient")["fold"].agg(set)
    others = [folds.get(patient, set()) - {fold} for patient, fold in zip(rows["patient"], own)]
    return rows[[not other for other in others]]


@cache
def _read(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path, dtype={"case": str, "network": str, "overlaps": str})
    dataset = dataset_of(path.parents[1])
    return unseen(with_patients(rows, dataset), dataset)


def rows_of(folder: Path, kind: str, name: str) -> pd.DataFrame:
    """Rows of NAME.csv of one set; empty where that was not measured.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no {folder}")
    place, begins, _ = SETS[kind]
    path = folder / place / f"{name}.csv"
    rows = _read(path) if path.is_file() and path.stat().st_size > 1 else pd.DataFrame({"network": []})
    return rows[rows["network"].astype(str).str.startswith(begins)]


def each_set(folders: Sequence[Path], name: str) -> Iterator[tuple[Path, str, pd.DataFrame]]:
    """Folder, set and rows of NAME.csv, of what was measured of ``SHOWN``."""
    for folder in folders:
        for kind in SHOWN:
            if len(rows := rows_of(folder, kind, name)):
                yield folder, kind, rows


def resamples(patient: Sequence[str] | pd.Series) -> Iterator[np.ndarray]:
    """``DRAWS`` times the places of the rows of as many patients as there are, drawn with replacement (seed 0)."""
    places = list(pd.Series(np.asarray(patient)).groupby(np.asarray(patient)).indices.values())
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        yield np.concatenate([places[i] for i in rng.integers(0, len(places), len(places))])


def draws_of(rows: pd.DataFrame, statistic: Callable[[dict[str, np.ndarray]], Any]) -> tuple[Any, Any, Any]:
    """The statistic, and the ends of its 95 % interval, patients drawn with replacement.

    Args:
        rows: With the ``patient`` of each.
        statistic: Gives a number or (m,) numbers of the columns, (n,) by name; draws in which one is not defined (NaN)
            are left out of its interval.

    Returns:
        Three numbers or three arrays (m,); NaN where nothing is defined.
    """
    columns = {name: rows[name].to_numpy() for name in rows}
    middle = statistic(columns)
    if np.isnan(middle).all():
        return middle, middle, middle
    drawn = [statistic({name: of[places] for name, of in columns.items()}) for places in resamples(rows["patient"])]
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return middle, low, high


def mean_of(*names: str) -> Callable[[dict[str, np.ndarray]], Any]:
    """Statistic for ``draws_of``: the mean of a column where it is defined, or (m,) means of several."""

    def means(columns: dict[str, np.ndarray]) -> Any:
        found = [columns[name][~np.isnan(columns[name])] for name in names]
        found = [values.mean() if len(values) else np.nan for values in found]
        return found[0] if len(names) == 1 else found

    return means


def shown(middle: float, low: float, high: float, digits: int = 3, sign: str = "") -> str:
    """A number with its interval; empty where it is not defined."""
    numbers = (f"{value:{sign}.{digits}f}" for value in (middle, low, high))
    return "" if np.isnan(middle) else "{} [{}, {}]".format(*numbers)


def interval(rows: pd.DataFrame, statistic: Callable[..., float], digits: int = 3, sign: str = "") -> str:
    """The statistic of ``draws_of`` with its interval; empty where it is not defined."""
    return shown(*draws_of(rows, statistic), digits, sign)


def labels_of(trainers: Sequence[str]) -> list[str]:
    """Name of each trainer for people: the loss, and the tokens that not all share; ``anneal`` belongs to the loss."""
    split = [name.split("_") for name in trainers]
    shared = set.intersection(*({*tokens} - {"anneal"} for _, *tokens in split))
    labels = []
    for loss, *tokens in split:
        own = " ".join(token for token in tokens if token not in shared)
        own = re.sub("anneal$", "annealed", own.replace("anneal ", "annealed, "))
        label = STOCK_LABEL if loss == "DiceCE" and not own else loss.replace("Dice", "Dice + ")
        labels.append(f"{label}, {own}" if own else label)
    return labels


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, numbers to the right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("  ", " ") for line in lines)
