"""Table of trainings that differ in the seed alone: what a map changes in each, and what a list promises."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from list_promises import covered
from list_scores import SCORE, order_draws, scans
from scipy.stats import t
from tables_calibration import AS_TRAINED, CHANGED, COLUMNS, MAP, wide
from tables_list import flag_sets, mean_of_patients
from values import SHOWN, rows_of, shown, table, title_of

PEERS = ("predicted Dice, as trained", "entropy")


def over_trainings(trainings: Sequence[pd.DataFrame]) -> tuple[float, float, float]:
    """Mean of several trainings of the same folds, and the ends of its 95 % interval over trainings.

    A value is a mean over cases, each by the network of its fold, and each network was trained T times. With the share
    w_f of the cases of fold f, and the variance v_f over its trainings, the mean over all has the variance
    e^2 = sum_f w_f^2 v_f / T; the interval is Student's with Satterthwaite's e^4 / sum_f (w_f^2 v_f / T)^2 / (T - 1)
    degrees of freedom. Patients stay the same, and folds of a training are taken as independent: that they share maps
    makes the interval too narrow.

    Args:
        trainings: Of each a row for each case, ``network`` and ``value``.

    Returns:
        NaN for the ends where there is one training, or one network.
    """
    means = pd.concat([rows.groupby("network")["value"].mean() for rows in trainings], axis=1)
    share = pd.concat([rows["network"].value_counts(normalize=True) for rows in trainings], axis=1).mean(axis=1)
    middle, n = np.mean([rows["value"].mean() for rows in trainings]), means.shape[1]
    parts = share**2 * means.var(axis=1) / n
    if n < 2 or len(means) < 2:
        return middle, math.nan, math.nan
    if not parts.any():
        return middle, middle, middle
    half = t.ppf(0.975, parts.sum() ** 2 / (parts**2 / (n - 1)).sum()) * math.sqrt(parts.sum())
    return middle, middle - half, middle + half


def _means(folder: Path, kind: str) -> Iterator[tuple[str, int, pd.DataFrame]]:
    """Values that are means over cases: their name, digits and rows."""
    forms = wide(folder, kind, CHANGED)
    for column in CHANGED:
        change = (forms[column, MAP] - forms[column, AS_TRAINED]).rename("value").reset_index("network")
        yield f"{column}, change by the map", COLUMNS[column], change
    inside, rows = covered(rows_of(folder, kind, "structures"), "Dice")
    yield "intervals of Dice that hold", 2, rows.assign(value=inside.astype(float))


def _of_all(folder: Path, kind: str) -> Iterator[tuple[str, int, float]]:
    """Values of all scans at once: their name and digits."""
    drawn = order_draws(folder, kind)
    for peer in PEERS:
        yield f"AURC, {SCORE} less {peer}", 3, drawn[SCORE][0, 0] - drawn[peer][0, 0]
    for flag, share in (("find", 0.9), ("miss", 0.05)):
        rows = next(rows for title, rows in flag_sets(folder, flag, share) if title == title_of(folder, kind))
        bad, flagged, patient = rows["bad"], rows["flagged"].astype(float), rows["patient"]
        yield f"-{flag} {share:g}, flagged", 2, flagged.mean()
        yield f"-{flag} {share:g}, found of the bad", 2, mean_of_patients(flagged[bad], patient[bad])
        yield f"-{flag} {share:g}, bad and not flagged", 2, mean_of_patients(bad * (1 - flagged), patient)
    yield "bad scans", 2, scans(folder, kind)["bad"].mean()


def trainings(folders: Sequence[Path]) -> str:
    """A column for each training; the mean with its interval over trainings where each fold tells."""
    lines = []
    for kind in (kind for kind in SHOWN if all(len(rows_of(folder, kind, "forms")) for folder in folders)):
        lines.append([f"**{title_of(folders[0], kind)}**", *[""] * (len(folders) + 1)])
        for each in zip(*(_means(folder, kind) for folder in folders), strict=True):
            (name, digits, _), sign = each[0], "+" if "change" in each[0][0] else ""
            cells = [f"{rows['value'].mean():{sign}.{digits}f}" for _, _, rows in each]
            middle, *ends = over_trainings([rows for _, _, rows in each])
            lines.append([name, *cells, "" if math.isnan(ends[0]) else shown(middle, *ends, digits, sign)])
        for each in zip(*(_of_all(folder, kind) for folder in folders), strict=True):
            (name, digits, _), sign = each[0], "+" if "less" in each[0][0] else ""
            cells = ("" if math.isnan(value) else f"{value:{sign}.{digits}f}" for _, _, value in each)
            lines.append([name, *cells, ""])
    return table(["", *(f"training {n}" for n in range(1, len(folders) + 1)), "mean over trainings"], lines)


TABLES = {"trainings": trainings}
