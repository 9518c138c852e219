"""Which shifted scans `nnunet_nacl predict` marks as unlike the calibration scans: the table `unlike`.

A scan is marked at p <= 0.05. Values are those that unlike_scans.py wrote into study/unlike/DATASET.csv.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
from values import table, with_patients

from nnunet_nacl.calibration.unlike import CalibrationProfiles, UnlikeScans

LEVEL = 0.05
HIPPOCAMPUS = "Dataset004_Hippocampus"
ACDC, EMIDEC, DRIVE = "Dataset027_ACDC", "Dataset028_EMIDEC", "Dataset030_DRIVE"
TITLES = {HIPPOCAMPUS: "Hippocampus", ACDC: "ACDC", EMIDEC: "EMIDEC", DRIVE: "DRIVE"}
CAMERA = "another camera"
"""Of DRIVE, the set that its folder has as a shift."""
SAME = {"cineMRI": "MRI", "LVC": "LV cavity", "MLV": "normal myocardium"}
"""Channel and structures of ACDC, and what EMIDEC has in their place."""
NOT_SHIFTED = "not shifted"


def numbers_of(rows: pd.DataFrame) -> list[str]:
    """Columns of the profile."""
    return list(rows.columns[3 : rows.columns.get_loc(next(c for c in rows if c.startswith("Dice ")))])


def learn(rows: pd.DataFrame) -> CalibrationProfiles:
    """The calibration scans."""
    names = numbers_of(rows)
    return CalibrationProfiles.learn(names, rows[names].to_numpy(float), rows["patient"].tolist())


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


def conditions(folder: Path) -> Iterator[tuple[str, CalibrationProfiles, pd.DataFrame, bool]]:
    """Condition, calibration scans, new scans, and whether there are intervals by a map of these calibration scans."""
    every = {name: with_patients(pd.read_csv(folder / f"{name}.csv"), name) for name in TITLES}
    folds = {name: rows[rows["set"] == "folds"] for name, rows in every.items()}
    every = {name: rows[~rows["patient"].isin(folds[name]["patient"])] for name, rows in every.items()}
    known = {name: learn(rows) for name, rows in folds.items()}
    for name, title in TITLES.items():
        rows = every[name]
        for network, clean in rows[rows["set"] == "clean"].groupby("network"):
            yield f"{title}, {NOT_SHIFTED}, {network.partition('_')[0]}", known[name], clean, True
        for shift in dict.fromkeys(rows["set"]):
            if shift not in ("folds", "clean"):
                label = CAMERA if shift == "shift" else shift.replace("_", " ")
                yield f"{title}, {label}", known[name], rows[rows["set"] == shift], True
    outer = {
        name: every[name][(every[name]["set"] == "clean") & (every[name]["network"] == "average")]
        for name in (ACDC, EMIDEC)
    }
    for first, label in ((True, "end diastole -> end systole"), (False, "end systole -> end diastole")):
        taught = folds[ACDC][first_frames(folds[ACDC]) == first]
        yield f"ACDC, {label}", learn(taught), outer[ACDC][first_frames(outer[ACDC]) != first], False
    emidec = {name: reduce(lambda text, pair: text.replace(*pair), SAME.items(), name) for name in known[ACDC].names}
    yield "EMIDEC -> ACDC", known[EMIDEC], outer[ACDC].rename(columns=emidec), False
    acdc = {new: old for old, new in emidec.items()}
    yield "ACDC -> EMIDEC", known[ACDC], outer[EMIDEC].rename(columns=acdc), False


def unlike(folders: Sequence[Path]) -> str:
    """What is marked of each condition, and how many 90 % intervals of Dice hold, of all and of those not marked.

    Args:
        folders: study/unlike alone.
    """
    body = []
    for label, known, rows, has_intervals in conditions(folders[0]):
        profiles = rows.reindex(columns=known.names).to_numpy(float)
        marked = np.array([known.p_value(row) for row in profiles]) <= LEVEL + 1e-9
        inside = [covered(part) if has_intervals and len(part) else [] for part in (rows, rows[~marked])]
        batch = UnlikeScans.of(known, list(profiles), LEVEL)
        tests = ["" if np.isnan(p) else f"{p:.2g}" for p in (batch.probability, batch.two_sample)]
        cells = [f"{np.mean(part):.2f} ({len(part)})" if len(part) else "" for part in inside]
        body.append([label, str(known.n_patients), str(len(rows)), f"{marked.mean():.2f}", *tests, *cells])
    header = ["condition", "patients", "scans", "marked", "so many by chance", "two-sample p"]
    return table([*header, "in the interval", "of those not marked"], body)


TABLES = {"unlike": unlike}
