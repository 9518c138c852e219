"""Tables of the review list: what it finds, what it promises, what it costs.

Each takes folders study/DATASET/TRAINER. Intervals are 95 %; where nothing else is said, by drawing patients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import unlike
from list_promises import clopper_pearson, covered, may_be_absent, searched, volume_rows
from list_scores import ORACLE, SCORE, STATISTICS, order_draws, scans, trusts
from values import BAD, STUDY, dataset_of, draws_of, each_set, mean_of, rows_of, shown, table, title_of

from nnunet_nacl.calibration.quality_report import workload
from nnunet_nacl.calibration.risk_control import smallest_threshold
from nnunet_nacl.metrics.detection import auroc, binary_brier, false_alarms

SHARES = (0.1, 0.2, 0.3)
AIMS = (("find", 0.9), ("find", 0.95), ("miss", 0.05), ("miss", 0.1))
SENSITIVITIES = (0.5, 0.7, 0.8)


def orders(folders: Sequence[Path]) -> str:
    """AURC and AUGRC of the risk, AUROC of the bad scans, and share of these among the first of the list."""
    lines = []
    for folder, kind, _ in each_set(folders, "scans"):
        rows, bad = scans(folder, kind), BAD[dataset_of(folder)]
        for order, drawn in order_draws(folder, kind).items():
            low, high = np.nanpercentile(drawn[1:], [2.5, 97.5], axis=0)
            caught = [row.caught for row in workload(trusts(folder, kind)[order], rows["Dice"], bad, SHARES)]
            lines.append([f"{title_of(folder, kind)}: {order}", f"{int(rows['bad'].sum())} of {len(rows)}"])
            lines[-1] += [shown(*value) for value in zip(drawn[0], low, high)]
            lines[-1] += ["" if math.isnan(share) else f"{share:.2f}" for share in caught]
    found = (f"{share:.0%}".replace("%", " %") for share in SHARES)
    return table(["", "bad", *STATISTICS, *(f"found at {share}" for share in found)], lines)


def order_differences(folders: Sequence[Path]) -> str:
    """AURC of the list less that of each peer; below 0 the list is better."""
    lines, peers = [], []
    for folder, kind, _ in each_set(folders, "scans"):
        drawn = order_draws(folder, kind)
        peers += [name for name in drawn if name not in (SCORE, ORACLE, *peers)]
        change = {name: drawn[SCORE][:, 0] - of[:, 0] for name, of in drawn.items()}
        cells = {name: shown(of[0], *np.percentile(of[1:], [2.5, 97.5]), 3, "+") for name, of in change.items()}
        lines.append((title_of(folder, kind), cells))
    body = [[title, *(cells.get(name, "") for name in peers)] for title, cells in lines]
    return table([f"AURC, {SCORE} less", *peers], body)


# --- flags ---


def threshold(rows: pd.DataFrame, flag: str, share: float) -> float:
    """Score up to which scans are flagged; NaN where there are too few patients."""
    rate = 1 - Fraction(str(share)) if flag == "find" else Fraction(str(share))
    patient = np.unique(rows["patient"], return_inverse=True)[1]
    values = rows["score"].to_numpy(float), rows["bad"].to_numpy(bool)
    return smallest_threshold(*values, patient, rate, of_bad=flag == "find")


def flagged(rows: pd.DataFrame, limit: float) -> pd.Series:
    """Whether each scan is flagged; NaN without a threshold."""
    return ~(rows["score"] > limit) if not math.isnan(limit) else pd.Series(np.nan, rows.index)


def flagged_by_others(rows: pd.DataFrame, by: str, flag: str, share: float) -> pd.Series:
    """Whether each scan is flagged by what those teach that differ from it in the column ``by``."""
    parts = rows.groupby(by, sort=False)
    return pd.concat([flagged(own, threshold(rows[rows[by] != part], flag, share)) for part, own in parts])


def flag_sets(folder: Path, flag: str, share: float) -> Iterator[tuple[str, pd.DataFrame]]:
    """Title of a set, and its scans with ``flagged``, NaN where there are too few patients for a threshold."""
    folds = scans(folder, "folds")
    yield title_of(folder, "folds"), folds.assign(flagged=flagged_by_others(folds, "network", flag, share))
    if rows_of(folder, "average", "scans").empty:
        return
    rows, title = scans(folder, "average"), title_of(folder, "average")
    yield title, rows.assign(flagged=flagged(rows, threshold(folds, flag, share)))
    yield f"{title}, own threshold", rows.assign(flagged=flagged_by_others(rows, "patient", flag, share))


def mean_of_patients(values: pd.Series, patient: pd.Series) -> float:
    """Mean over patients of the means of their scans; NaN without any."""
    return float(values.groupby(patient).mean().mean())


def _share(values: pd.Series, patient: pd.Series) -> str:
    """The same with its interval (Clopper-Pearson)."""
    mean = mean_of_patients(values, patient)
    return shown(mean, *clopper_pearson(mean, patient.nunique()), 2)


def flags(folders: Sequence[Path]) -> str:
    """Share of the scans that is flagged; means over patients: of the bad ones that are, of all that are bad and not.

    Thresholds come from the fold cases: for these from those of the other networks. ``own threshold`` comes from the
    outer cases of the average, each patient left out: what a site with cases of its own has. Empty: too few patients.
    """
    lines = []
    for folder in folders:
        for flag, share in AIMS:
            for title, rows in flag_sets(folder, flag, share):
                cells, bad, patient = [""] * 3, rows["bad"], rows["patient"]
                if rows["flagged"].notna().all():
                    is_flagged = rows["flagged"].astype(bool)
                    of_bad = _share(is_flagged[bad], patient[bad]) if bad.any() else ""
                    cells = [f"{is_flagged.mean():.2f}", of_bad, _share(bad & ~is_flagged, patient)]
                lines.append([f"{title}, -{flag} {share:g}", f"{bad.mean():.2f}", *cells])
    return table(["", "bad", "flagged", "found of the bad", "bad and not flagged"], lines)


# --- promises ---


def held(folder: str) -> float:
    """Share of the intervals of Dice that hold, of averages on outer cases: of all structures of study/FOLDER."""
    inside, _ = covered(rows_of(STUDY / folder, "average", "structures"), "Dice")
    return float(inside.mean())


def coverage(folders: Sequence[Path]) -> str:
    """Share of true Dice and volumes inside 90 % intervals (Clopper-Pearson over patients), and how wide these are.

    Width of volumes: mean width by mean predicted volume. Structures that were not segmented have no interval of Dice.
    """
    lines = []
    for folder, kind, rows in each_set(folders, "structures"):
        for structure, own in rows.groupby("structure", sort=False):
            lines.append([f"{title_of(folder, kind)}, {structure}"])
            for name in ("Dice", "volume"):
                inside, has = covered(own, name)
                n = has["patient"].nunique()
                width = (has[f"{name} high"] - has[f"{name} low"]).mean()
                width /= has["predicted volume"].mean() if name == "volume" else 1
                cells = [shown(inside.mean(), *clopper_pearson(inside.mean(), n), 2), f"{width:.2f}"] if n else ["", ""]
                lines[-1] += [f"{len(has)} ({n})", *cells]
    names = ["Dice inside", "mean width", "volume inside", "width by volume"]
    return table(["", "Dice of (patients)", *names[:2], "volumes of (patients)", *names[2:]], lines)


def volumes(folders: Sequence[Path]) -> str:
    """CRPS of the predicted volume, and relative error, against the volume as segmented.

    CRPS is in % of the structure's mean true volume, the relative error (of structures that are there) in %.
    """
    lines = []
    for folder, kind, _ in each_set(folders, "structures"):
        for structure, own in volume_rows(folder, kind).groupby("structure", sort=False):
            lines.append([f"{title_of(folder, kind)}, {structure}"])
            whole = own[["CRPS", "off"]] / own["true volume"].mean()
            relative = own[["predicted relative", "relative"]]
            for found in (whole, relative):
                predicted, plain = 100 * found.set_axis(["predicted", "plain"], axis=1).to_numpy().T
                values = pd.DataFrame({"predicted": predicted, "plain": plain, "change": predicted - plain})
                values = values.assign(patient=own["patient"].to_numpy()).dropna()
                drawn = zip(*draws_of(values, mean_of("predicted", "plain", "change")))
                cells = [shown(*each, 1, sign) for each, sign in zip(drawn, ("", "", "+"))]
                lines[-1] += [f"{len(values)}", *cells]
    names = ["predicted", "as segmented", "difference"]
    header = ["n", *(f"CRPS, {name}" for name in names), "there", *(f"error, {name}" for name in names)]
    return table(["", *header], lines)


# --- structures that may be absent ---


def _brier_and_auroc(rows: pd.DataFrame, probability: str) -> list[str]:
    def statistic(own: dict[str, np.ndarray]) -> list[float]:
        return [score(own[probability], own["true"]) for score in (binary_brier, auroc)]

    return [shown(*each) for each in zip(*draws_of(rows[["patient", probability, "true"]], statistic))]


def presence(folders: Sequence[Path]) -> str:
    """Whether a structure is in the scan, as it is learned, by its largest probability and by the segmentation."""
    lines = []
    for folder, kind, rows in each_set(folders, "structures"):
        for structure in may_be_absent(folder):
            own = rows[rows["structure"] == structure]
            own = own.assign(true=own["true volume"] > 0, segmented=own["volume"] > 0)
            if (learned := own["present probability"].notna()).any():
                own = own[learned]
            kinds = {"present probability": "learned", "largest probability": "largest probability"}
            for column, name in (kinds | {"segmented": "segmentation"}).items():
                cells = _brier_and_auroc(own, column) if own[column].notna().any() else ["", ""]
                count = f"{int(own['true'].sum())} of {len(own)}"
                lines.append([f"{title_of(folder, kind)}, {structure}: {name}", count, *cells])
    return table(["", "present", "Brier", "AUROC"], lines)


def findings(folders: Sequence[Path]) -> str:
    """Whether a finding is real, and false alarms a scan at which shares of the true parts are found.

    Of the networks whose other cases taught it; empty where none did.
    """
    lines = []
    for folder, kind, rows in each_set(folders, "findings"):
        cases = rows_of(folder, kind, "structures")
        for structure in rows["structure"].unique():
            own, of_cases = (of[of["structure"] == structure] for of in (rows, cases))
            learned = own["network"][own["real probability"].notna()].unique()
            if len(learned):
                own, of_cases = (of[of["network"].isin(learned)] for of in (own, of_cases))
            own = own.assign(true=own["overlaps"].notna())
            for column, name in (("real probability", "learned"), ("mean probability", "mean probability")):
                count = f"{int(own['true'].sum())} of {len(own)}"
                lines.append([f"{title_of(folder, kind)}, {structure}: {name}", count])
                if own[column].isna().any():
                    lines[-1] += [""] * (2 + len(SENSITIVITIES))
                    continue
                alarms = draws_of(searched(of_cases, own, column), _alarms)
                lines[-1] += [*_brier_and_auroc(own, column), *(shown(*each, 2) for each in zip(*alarms))]
    at = [f"at {share:g}" for share in SENSITIVITIES]
    return table(["", "real", "Brier", "AUROC", f"false alarms a scan {at[0]}", *at[1:]], lines)


def _alarms(of_scans: dict[str, np.ndarray]) -> list[float]:
    best, false = (np.concatenate(of_scans[name]) for name in ("best", "false"))
    return list(false_alarms(best, false, len(of_scans["best"]), SENSITIVITIES).values())


TABLES: dict[str, Callable[[Sequence[Path]], str]] = {
    made.__name__: made for made in (orders, order_differences, flags, coverage, volumes, presence, findings)
} | unlike.TABLES
