"""What a review list can be ordered by, and how good an order is: the product's score and its peers.

A scan's risk is 1 - the lowest true Dice of its structures that count; one that is missed or invented has Dice 0.
Scans of which an order knows nothing come last among those that are trusted: they are looked at first.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from values import BAD, NOT_JUDGED, dataset_of, resamples, rows_of

from nnunet_nacl.calibration.learned_quality import check_estimate
from nnunet_nacl.calibration.scan_score import structure_score

KEYS = ["network", "case", "patient"]

SCORE, RANDOM, ORACLE, REGRESSION = "the list", "random", "oracle", "regression"

ORDERS = {
    SCORE: ("score", 1),
    "predicted Dice": ("predicted", 1),
    "predicted Dice, as trained": ("as trained", 1),
    "entropy": ("entropy", -1),
    "confidence": ("confidence", 1),
    "unusual volume": ("unusual volume", -1),
    "members' Dice": ("members Dice", 1),
    REGRESSION: ("regression", 1),
    ORACLE: ("Dice", 1),
}
"""Name of an order: its column, and the sign with which high values are trusted."""

STATISTICS = ("AURC", "AUGRC", "AUROC")


@cache
def scans(folder: Path, kind: str) -> pd.DataFrame:
    """A row for each scan of a network: lowest true Dice, whether it is bad, and the columns of ``ORDERS``.

    The score is the product's (structure_score), its Dice below which a scan is bad not taken off. Which structures
    every scan has, and of which predicted Dice says no more than a constant, the fold cases tell, as in calibrate.
    """
    structures, folds = (rows_of(folder, each, "structures") for each in (kind, "folds"))
    parts = []
    for name, rows in structures[~structures["structure"].isin(NOT_JUDGED)].groupby("structure", sort=False):
        taught = folds[folds["structure"] == name]
        pairs = taught["predicted Dice"].to_numpy(), taught["Dice"].to_numpy(), taught["patient"].tolist()
        always, silent = bool((taught["true volume"] > 0).all()), check_estimate(*pairs).says_nothing
        score = structure_score(rows["predicted Dice"], rows["present probability"], always, silent)
        dice = {"predicted": rows["predicted Dice"], "as trained": rows.get("predicted Dice as trained", np.nan)}
        parts.append(rows[[*KEYS, "Dice"]].assign(score=score, **dice))
    whole = pd.concat(parts).groupby(KEYS, sort=False).min().reset_index()
    whole = whole.merge(rows_of(folder, kind, "scans").drop(columns="patient"), on=["network", "case"])
    return whole.assign(bad=whole["Dice"] < BAD[dataset_of(folder)])


def features(folder: Path, kind: str) -> np.ndarray:
    """(n, F) what the regression knows of each scan: log volumes, as segmented plus a voxel, entropy, confidence."""
    structures, rows = rows_of(folder, kind, "structures"), scans(folder, kind)
    volumes = structures.assign(log=np.log(structures["volume"] + structures["voxel"]))
    wide = volumes.pivot(index=["network", "case"], columns="structure", values="log")
    wide = wide.loc[list(zip(rows["network"], rows["case"]))]
    return np.column_stack([wide, rows[["entropy", "confidence"]]])


def regression(folder: Path, kind: str) -> np.ndarray:
    """(n,) lowest Dice of each scan as ridge regression predicts it from ``features``, standardised, penalty 1.

    Learned from the fold cases; for those, from those of the other networks. The mean stands for what is missing. NaN
    where there is nothing to learn from.
    """
    taught, known, rows = scans(folder, "folds"), features(folder, "folds"), scans(folder, kind)
    new, found = (known if kind == "folds" else features(folder, kind)), np.full(len(rows), np.nan)
    for network in rows["network"].unique():
        here = (rows["network"] == network).to_numpy()
        use = ((taught["network"] != network) & taught["Dice"].notna()).to_numpy()
        if use.any():
            model = make_pipeline(SimpleImputer(), StandardScaler(), Ridge(1.0))
            found[here] = model.fit(known[use], taught["Dice"][use]).predict(new[here])
    return found


@cache
def trusts(folder: Path, kind: str) -> dict[str, np.ndarray]:
    """By order (n,) trust in each scan, larger is better, of those that were measured; ``RANDOM`` trusts all alike."""
    rows = scans(folder, kind)
    rows = rows.assign(regression=regression(folder, kind))
    known = {name: sign * rows[column] for name, (column, sign) in ORDERS.items() if column in rows}
    known = {name: trust for name, trust in known.items() if trust.notna().any()}
    return {name: trust.fillna(-np.inf).to_numpy() for name, trust in known.items()} | {RANDOM: np.zeros(len(rows))}


def order_statistics(trust: np.ndarray, risk: np.ndarray, bad: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(D, 3) the ``STATISTICS`` of D samples of n scans.

    With R(k) the sum of the risks of the k most trusted of N scans, k = 1..N:

        AURC   the mean of R(k) / k, as in nnunet_nacl's aurc;
        AUGRC  the mean of R(k) / N, the generalised risk (Traub et al., NeurIPS 2024);
        AUROC  how often a bad scan is trusted less than another, ties a half, as in nnunet_nacl's auroc.

    Scans with equal trust are taken in random order: the mean over all orders. If all are equal, AURC is the mean risk
    and AUGRC that times (N + 1) / (2 N).

    Args:
        trust: (n,) larger is better.
        risk: (n,)
        bad: (n,) whether each scan is bad; AUROC is NaN in a sample of one kind.
        counts: (D, n) how often each scan is in a sample.
    """
    group = np.unique(-trust, return_inverse=True)[1]
    member = group[:, None] == np.arange(group.max() + 1)  # groups of equal trust, the most trusted first
    size, risks, bads = (counts * of @ member for of in (np.ones(len(risk)), risk, bad))
    before, risks_before, goods_before = (np.cumsum(of, axis=1) - of for of in (size, risks, size - bads))
    total, n_bad = size.sum(axis=1), bads.sum(axis=1)
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, total.max() + 1)))  # sum of 1 / k
    inverse_k = harmonic[(before + size).astype(int)] - harmonic[before.astype(int)]
    aurc = (risks + (risks_before - before * risks / np.maximum(size, 1)) * inverse_k).sum(axis=1) / total
    augrc = (risks * (total[:, None] - before - (size - 1) / 2)).sum(axis=1) / total**2
    pairs = n_bad * (total - n_bad)
    auroc = (bads * (goods_before + (size - bads) / 2)).sum(axis=1) / np.where(pairs, pairs, np.nan)
    return np.column_stack([aurc, augrc, auroc])


def risk_coverage(trust: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """(n,) mean risk of the k most trusted cases, k = 1..n; its mean is the AURC. Equal trust: mean over all orders."""
    kept = pd.Series(risk).groupby(-trust).transform("mean").to_numpy()[np.argsort(-trust, kind="stable")]
    return np.cumsum(kept) / np.arange(1, len(kept) + 1)


@cache
def order_draws(folder: Path, kind: str) -> dict[str, np.ndarray]:
    """By order (1 + draws, 3) the ``STATISTICS`` of its scans, and of those of patients drawn with replacement.

    AUROC is that of bad scans among all. Scans without any judged structure are left out. All orders share the draws.
    """
    rows = scans(folder, kind)
    usable = rows["Dice"].notna().to_numpy()
    rows = rows[usable]
    counts = [np.bincount(places, minlength=len(rows)) for places in resamples(rows["patient"])]
    truth = 1 - rows["Dice"].to_numpy(), rows["bad"].to_numpy(float)
    samples = np.array([np.ones(len(rows)), *counts])
    return {name: order_statistics(trust[usable], *truth, samples) for name, trust in trusts(folder, kind).items()}
