"""Which scans are unlike the calibration scans: candidates for the score, and what the chosen one sees.

    python docs/results/unlike.py scores     # candidates; chosen on the hippocampus' noise and blur, and DRIVE's folds
    python docs/results/unlike.py shifts     # every shift by the score of the product, once

Reads study/unlike/DATASET.csv, which unlike_scans.py wrote, and prints Markdown. A scan is marked at p <= 0.05. The
values there have volumes and the number of parts, too, which profiles had until this choice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf
from study_tables import GROUPS, table

from nnunet_nacl.calibration import unlike
from nnunet_nacl.calibration.unlike import CalibrationProfiles
from nnunet_nacl.documents.patient_groups import read_groups

STUDY = Path(__file__).resolve().parent / "study"
LEVEL = 0.05
HIPPOCAMPUS, TWO_FOLDS, ACDC, EMIDEC, DRIVE = (
    "Dataset004_Hippocampus",
    "Dataset004_Hippocampus_two_folds",
    "Dataset027_ACDC",
    "Dataset028_EMIDEC",
    "Dataset030_DRIVE",
)
SAME = {"cineMRI": "MRI", "LVC": "LV cavity", "MLV": "normal myocardium"}
"""Channel and structures of ACDC, and what EMIDEC has in their place."""
TITLES = {HIPPOCAMPUS: "Hippocampus fold 0", TWO_FOLDS: "Hippocampus"}
CLIPPED = 5.0
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def read(dataset: str) -> pd.DataFrame:
    """Rows of a data set, with their patients."""
    rows = pd.read_csv(STUDY / "unlike" / f"{dataset}.csv")
    return rows.assign(patient=rows["case"].map(read_groups(GROUPS.get(dataset), sorted(rows["case"].unique()))))


def numbers_of(rows: pd.DataFrame, kind: str = "image and geometry") -> list[str]:
    """Columns of the profile; ``all``: with those of the answer, volumes and the number of parts."""
    names = list(rows.columns[3 : rows.columns.get_loc(next(c for c in rows if c.startswith("Dice ")))])
    geometry = [name for name in names if name.startswith(("log spacing along", "log size along"))]
    answer = [name for name in names if name.startswith(("log volume", "log number"))]
    left_out = {"all": [], "all but parts": answer[-1:], "image and geometry": answer, "image": answer + geometry}[kind]
    return [name for name in names if name not in left_out]


def learn(rows: pd.DataFrame, names: list[str]) -> CalibrationProfiles:
    """The calibration scans."""
    return CalibrationProfiles.learn(names, rows[names].to_numpy(float), rows["patient"].tolist())


def p_values(known: CalibrationProfiles, rows: pd.DataFrame) -> np.ndarray:
    """(n,) of new scans."""
    return np.array([known.p_value(row) for row in rows.reindex(columns=known.names).to_numpy(float)])


# --- candidates ---


def scaled(profiles: np.ndarray, others: np.ndarray, clip: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
    """Both as the product scales them, clipped."""
    middle, spread = unlike._scale(others)
    first, second = (np.nan_to_num((values - middle) / spread) for values in (profiles, others))
    return np.clip(first, -clip, clip), np.clip(second, -clip, clip)


def neighbours(clip: float, k: int = unlike.NEIGHBOURS) -> Score:
    """Mean distance to the k nearest."""
    return lambda a, b: np.sort(cdist(*scaled(a, b, clip)), 1)[:, :k].mean(1)


def mahalanobis(clip: float) -> Score:
    """By a shrunken covariance."""

    def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        first, second = scaled(a, b, clip)
        return LedoitWolf().fit(second).mahalanobis(first)

    return score


SCORES: dict[str, Score] = {
    "5 neighbours": neighbours(np.inf),
    "5 neighbours, clipped": neighbours(CLIPPED),
    "1 neighbour": neighbours(np.inf, 1),
    "Mahalanobis": mahalanobis(np.inf),
    "Mahalanobis, clipped": mahalanobis(CLIPPED),
}


def print_scores() -> None:
    """Share of clean and corrupted scans that each candidate marks, and the AUROC of its score."""
    rows, retina = read(HIPPOCAMPUS), read(DRIVE)
    chosen = [f"{kind}_{severity}" for kind in ("noise", "blur") for severity in (1, 2, 3)]
    of_folds = retina[retina["set"] == "folds"]
    body = []
    for label, score in SCORES.items():
        for kind in ("image", "image and geometry", "all but parts", "all"):
            with patch.object(unlike, "_distances", score):
                known, cells, areas = learn(rows[rows["set"] == "folds"], numbers_of(rows, kind)), [], []
                clean = rows[rows["set"] == "clean"]
                for name in ("clean", *chosen):
                    there = rows[rows["set"] == name]
                    cells.append(f"{np.mean(p_values(known, there) <= LEVEL + 1e-9):.2f}")
                    ours, theirs = ([known.score(x) for x in part[known.names].to_numpy()] for part in (there, clean))
                    areas.append(np.mean(np.subtract.outer(ours, theirs) > 0))
                alarms = []
                for seed in range(10):  # two thirds of DRIVE's fold cases, and the others
                    order = np.random.default_rng(seed).permutation(len(of_folds))
                    part = learn(of_folds.iloc[order[:20]], numbers_of(retina, kind))
                    alarms.append(np.mean(p_values(part, of_folds.iloc[order[20:]]) <= LEVEL + 1e-9))
            body.append([label, kind, *cells, f"{np.mean(areas[1:]):.3f}", f"{np.mean(alarms):.2f}"])
    print(table(["score", "numbers", "clean", *chosen, "AUROC", "DRIVE, others"], body))


# --- shifts ---


def covered(rows: pd.DataFrame) -> np.ndarray:
    """Whether each true Dice of these scans lies in its interval, where there is one."""
    inside = []
    for name in (column.removeprefix("Dice low ") for column in rows if column.startswith("Dice low ")):
        low, true, high = (rows[f"{column} {name}"] for column in ("Dice low", "Dice", "Dice high"))
        inside.append(((low - 1e-6 <= true) & (true <= high + 1e-6))[low.notna() & true.notna()])
    return np.concatenate(inside)


def first_frames(rows: pd.DataFrame) -> np.ndarray:
    """Whether each scan is the first of its patient: end diastole."""
    return (rows["case"] == rows.groupby("patient")["case"].transform("min")).to_numpy()


def of_frames(first: bool, rows: pd.DataFrame) -> pd.DataFrame:
    """Scans of the other phase with the intervals of networks of one phase, which deployed_shift.sh measured."""
    name = "first_frames_on_last" if first else "last_frames_on_first"
    measured = pd.read_csv(STUDY / ACDC / "shift" / name / "structures.csv")
    wide = measured.pivot(index="case", columns="structure", values=["Dice", "Dice low", "Dice high"])
    wide.columns = [" ".join(column) for column in wide.columns]
    keep = [column for column in rows if column not in wide]
    return rows[keep].merge(wide.reset_index(), on="case")


def conditions() -> Iterator[tuple[str, CalibrationProfiles, pd.DataFrame, bool]]:
    """Condition, calibration scans, new scans, and whether intervals are judged."""
    every = {name: read(name) for name in (HIPPOCAMPUS, TWO_FOLDS, ACDC, EMIDEC, DRIVE)}
    folds = {name: rows[rows["set"] == "folds"] for name, rows in every.items()}
    known = {name: learn(folds[name], numbers_of(rows)) for name, rows in every.items()}
    for name in (HIPPOCAMPUS, TWO_FOLDS, ACDC, EMIDEC):
        title, rows = TITLES.get(name, name.partition("_")[2]), every[name]
        for kind, clean in rows[rows["set"] == "clean"].groupby("network"):
            yield f"{title}, not shifted, {kind.partition('_')[0]}", known[name], clean, True
        for kind in dict.fromkeys(rows["set"]):
            if kind not in ("folds", "clean"):
                yield f"{title}, {kind.replace('_', ' ')}", known[name], rows[rows["set"] == kind], True
    yield "DRIVE -> CHASE", known[DRIVE], every[DRIVE][every[DRIVE]["set"] == "chase"], True
    rows = every[ACDC]
    outer = rows[(rows["set"] == "clean") & (rows["network"] == "average")]
    for first, label in ((True, "end diastole -> end systole"), (False, "end systole -> end diastole")):
        other = outer[first_frames(outer) != first]
        part = folds[ACDC][first_frames(folds[ACDC]) == first]
        yield f"ACDC, {label}", learn(part, numbers_of(rows)), of_frames(first, other), True
    emidec = {name: reduce(lambda text, pair: text.replace(*pair), SAME.items(), name) for name in known[ACDC].names}
    yield "EMIDEC -> ACDC", known[EMIDEC], outer.rename(columns=emidec), False
    others = every[EMIDEC][(every[EMIDEC]["set"] == "clean") & (every[EMIDEC]["network"] == "average")]
    yield "ACDC -> EMIDEC", known[ACDC], others.rename(columns={new: old for old, new in emidec.items()}), False


def shifts() -> tuple[str, list[tuple[str, np.ndarray]]]:
    """A row for each condition; and by kind of network which scans without a shift are marked."""
    body, alarms = [], []
    for label, known, rows, judged in conditions():
        marked = p_values(known, rows) <= LEVEL + 1e-9
        inside = covered(rows) if judged else np.array([])
        left = covered(rows[~marked]) if judged and not marked.all() else np.array([])
        cells = [f"{part.mean():.2f} ({len(part)})" if len(part) else "" for part in (inside, left)]
        batch = unlike.UnlikeScans.of(known, list(rows.reindex(columns=known.names).to_numpy(float)), LEVEL)
        tests = ["" if np.isnan(p) else f"{p:.2g}" for p in (batch.probability, batch.two_sample)]
        body.append([label, str(known.n_patients), str(len(rows)), f"{marked.mean():.2f}", *tests, *cells])
        if "not shifted" in label:
            alarms.append((label.rpartition(", ")[2], marked))
    header = ["condition", "patients", "scans", "marked", "so many by chance", "two-sample p"]
    return table([*header, "in the interval", "of those not marked"], body), alarms


def print_shifts() -> None:
    """The table, and the false alarms pooled."""
    text, alarms = shifts()
    print(text)
    for kind in ("single", "average"):
        pooled = np.concatenate([marked for which, marked in alarms if which == kind])
        print(f"\nfalse alarms, {kind}: {pooled.sum()} of {len(pooled)}, {pooled.mean():.3f}")


TABLES = {"unlike": lambda folders: shifts()[0]}

if __name__ == "__main__":
    {"scores": print_scores, "shifts": print_shifts}[sys.argv[1]]()
