"""What is promised of segmentations beside what is true: intervals, volumes, findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import beta
from values import rows_of

from nnunet_nacl.calibration.dice_estimate import StructureEstimate


def clopper_pearson(share: float, n: int) -> tuple[float, float]:
    """Ends of the 95 % interval of a share of n independent patients (Clopper and Pearson 1934).

    The number of successes, share times n, need not be whole: where patients have several scans, those of one count as
    one observation, their mean. That is exact where they agree, and wider than needed where they do not.
    """
    k = share * n
    return float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0, float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0


def crps(values: np.ndarray, weight: np.ndarray, true: float) -> float:
    """Continuous ranked probability score of a distribution with masses at some values, lower is better.

        E|X - true| - E|X - X'| / 2  =  integral of (F(x) - [x >= true])^2 dx

    with X and X' independent (Gneiting and Raftery 2007). That of a single value is its absolute error.

    Args:
        values: (n,)
        weight: (n,) their masses, which sum to 1.
        true: What came.

    Returns:
        NaN without a value.
    """
    if not len(values):
        return np.nan
    between = weight @ np.abs(np.subtract.outer(values, values)) @ weight
    return float(weight @ np.abs(values - true) - between / 2)


def volume_rows(folder: Path, kind: str) -> pd.DataFrame:
    """Rows of structures.csv with errors of the volume.

    ``CRPS`` is of the predicted volume with the errors of the fold cases around it, each patient with the same mass;
    for fold cases, of those of the other networks. Errors are relative to the predicted volume plus a voxel, as in the
    product's intervals (StructureEstimate), and no volume is below 0. ``off``: |volume - true|, of the volume as
    segmented, which is its CRPS; ``predicted relative`` and ``relative``: |v - true| / true of the predicted volume and
    of that as segmented, empty where the structure is not there.
    """
    folds, parts = rows_of(folder, "folds", "structures"), []
    voxel = float(folds["voxel"].median())
    rows = rows_of(folder, kind, "structures").dropna(subset=["predicted volume"])
    for (structure, network), here in rows.groupby(["structure", "network"], sort=False):
        taught = folds[(folds["structure"] == structure) & (folds["network"] != network)]
        pairs = (taught[name].to_numpy() for name in ("predicted volume", "true volume"))
        learned = StructureEstimate.fit(*pairs, taught["patient"].tolist(), voxel=voxel)
        weight = 1 / np.bincount(learned.patient)[learned.patient] / max(learned.n_patients, 1)
        scores = [
            crps(np.maximum(x + learned.difference * (x + voxel), 0), weight, y)
            for x, y in zip(here["predicted volume"], here["true volume"])
        ]
        parts.append(here.assign(CRPS=scores))
    rows = pd.concat(parts).sort_index()
    there = rows["true volume"].where(rows["true volume"] > 0)
    off, predicted = ((rows[name] - rows["true volume"]).abs() for name in ("volume", "predicted volume"))
    return rows.assign(off=off, **{"relative": off / there, "predicted relative": predicted / there})


def covered(rows: pd.DataFrame, name: str) -> tuple[pd.Series, pd.DataFrame]:
    """Whether each true ``Dice`` or ``volume`` lies in its interval, and the rows that have one."""
    true = "Dice" if name == "Dice" else f"true {name}"
    rows = rows.dropna(subset=[true, f"{name} low"])
    return rows[true].between(rows[f"{name} low"], rows[f"{name} high"]), rows


def may_be_absent(folder: Path) -> list[str]:
    """Structures that some fold cases lack."""
    volumes = rows_of(folder, "folds", "structures").groupby("structure", sort=False)["true volume"].min()
    return volumes[volumes == 0].index.tolist()


def searched(structures: pd.DataFrame, findings: pd.DataFrame, probability: str) -> pd.DataFrame:
    """A row for each scan that was searched for a structure: what `false_alarms` counts.

    Args:
        structures: Its rows in structures.csv.
        findings: Its rows in findings.csv.
        probability: Column of these by which they are ordered.

    Returns:
        ``patient``; ``best``: by true part the highest probability of a finding that overlaps it, NaN where none does;
        ``false``: probability of each finding that overlaps none.
    """
    rows = []
    by_case = dict(list(findings.groupby(["network", "case"])))
    for scan in structures.to_dict("records"):
        best, false = np.full(int(scan["true parts"]), np.nan), []
        own = by_case.get((scan["network"], scan["case"]))
        for chance, overlaps in [] if own is None else zip(own[probability], own["overlaps"]):
            if not isinstance(overlaps, str):
                false.append(chance)
                continue
            for part in overlaps.split(";"):
                best[int(float(part)) - 1] = np.fmax(best[int(float(part)) - 1], chance)
        rows.append({"patient": scan["patient"], "best": best, "false": np.array(false)})
    return pd.DataFrame(rows)
