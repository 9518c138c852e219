"""Do flags keep to what they aim at: on left-out fold cases, and on outer cases of single networks and averages.

The threshold is learned from the fold cases: for these from those of the other folds, for outer cases from all. `own`
learns it from the outer cases of the averages themselves, each patient left out: what a site with cases of its own has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from deployed_values import BAD, NOT_JUDGED, SETS, name_of, rows_of
from study_tables import table

from nnunet_nacl.calibration.risk_control import smallest_threshold
from nnunet_nacl.calibration.scan_score import structure_score

AIMS = (("find", 0.9), ("miss", 0.05))


def scans(folder: Path, kind: str) -> pd.DataFrame:
    """A row for each scan of a network: score, whether it is bad, and patient; empty where nothing was measured."""
    rows, folds = rows_of(folder, kind, "structures"), rows_of(folder, "folds", "structures")
    if rows.empty:
        return rows
    always = set(folds.groupby("structure")["true volume"].min().loc[lambda least: least > 0].index)
    parts = []
    for structure, of in rows[~rows["structure"].isin(NOT_JUDGED)].groupby("structure", sort=False):
        score = structure_score(of["expected Dice"], of["present probability"], structure in always, False)
        parts.append(of[["network", "case", "patient", "Dice"]].assign(score=score - BAD[folder.parent.name]))
    whole = pd.concat(parts).groupby(["network", "case", "patient"], sort=False).min().reset_index()
    return whole.assign(bad=whole["Dice"] < BAD[folder.parent.name])


def threshold(rows: pd.DataFrame, flag: str, share: float) -> float:
    """NaN where there are too few patients."""
    rate = 1 - Fraction(str(share)) if flag == "find" else Fraction(str(share))
    patient = np.unique(rows["patient"], return_inverse=True)[1]
    values = rows["score"].to_numpy(float), rows["bad"].to_numpy(bool)
    return smallest_threshold(*values, patient, rate, of_bad=flag == "find")


def flagged(rows: pd.DataFrame, limit: float) -> pd.Series:
    """Whether each scan is flagged; NaN without a threshold."""
    return ~(rows["score"] > limit) if not math.isnan(limit) else pd.Series(np.nan, rows.index)


def _left_out(rows: pd.DataFrame, by: str, flag: str, share: float) -> pd.Series:
    """Whether each scan is flagged by what the others teach."""
    return pd.concat(
        [flagged(own, threshold(rows[rows[by] != part], flag, share)) for part, own in rows.groupby(by, sort=False)]
    ).loc[rows.index]


def _each(folder: Path, flag: str, share: float) -> Iterator[tuple[str, pd.DataFrame]]:
    folds = scans(folder, "folds")
    yield "fold cases", folds.assign(flagged=_left_out(folds, "network", flag, share))
    limit = threshold(folds, flag, share)
    for kind in ("single", "average"):
        rows = scans(folder, kind)
        if len(rows):
            yield SETS[kind][2], rows.assign(flagged=flagged(rows, limit))
    if len(rows):
        yield "average, threshold from own cases", rows.assign(flagged=_left_out(rows, "patient", flag, share))


def _mean(values: pd.Series, patient: pd.Series) -> str:
    """Mean over patients with its standard error."""
    means = values.groupby(patient).mean()
    return f"{means.mean():.2f} ({means.std(ddof=1) / math.sqrt(len(means)):.2f})"


def flags(folders: Sequence[Path]) -> str:
    """Shares of the scans that are flagged, of the bad ones that are, and of all that are bad and not (s.e.)."""
    lines = []
    for folder in folders:
        for flag, share in AIMS:
            for kind, rows in _each(folder, flag, share):
                cells = [""] * 3
                if rows["flagged"].notna().all():
                    flagged_, bad = rows["flagged"].astype(bool), rows["bad"]
                    found = _mean(flagged_[bad], rows["patient"][bad])
                    cells = [f"{flagged_.mean():.2f}", found, _mean(bad & ~flagged_, rows["patient"])]
                title = f"{name_of(folder)}, below {BAD[folder.parent.name]:g}, {kind}"
                lines.append([title, f"-{flag} {share:g}", f"{rows['bad'].mean():.2f}", *cells])
    return table(["", "aim", "bad", "flagged", "found of the bad", "bad and not flagged"], lines)


TABLES = {"flags": flags}
