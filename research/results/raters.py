"""Confidence against four raters (part `raters`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from calibration_rows import curve_with_bands
from cases import GRID, N_RATERS, STEP, Cases
from rows import Row, mean_row, pooled_gap_row, put, statistic_row, write_csv
from scipy.stats import rankdata
from study import MAP, RAW, CaseSet, Study

from nnunet_nacl.estimators.log_odds_map import LogOddsMap

N_BINS = 15


def raters_rows(study: Study) -> None:
    """Part `raters`: confidence against the share of raters, and Dice between raters."""
    curves = []
    for case_set in study.case_sets():
        if case_set.kind in study.scanners:
            continue  # they have no votes
        votes = read_votes(study, case_set)
        between_raters = pd.Series(
            {name: dice_between_raters(counts) for name, counts in votes.items()}
        )
        rows: list[Row] = []
        for method in (RAW, MAP):
            bins = bins_of_cases(case_set, votes, method)
            patients = case_set.cases.patients(votes)
            rows += gap_rows(method, bins, patients)
            rows += agreement_rows(
                method, predicted_dice(case_set, method), between_raters, case_set.cases
            )
            curve = curve_with_bands(*bins, patients, "raters")
            curve.insert(0, "method", method)
            curve.insert(0, "cases", case_set.kind)
            curves.append(curve)
        put(rows, **study.common, cases=case_set.kind)
    write_csv(study.file("curve_raters"), pd.concat(curves), 4)


def read_votes(study: Study, case_set: CaseSet) -> dict[str, np.ndarray]:
    """By case, part after part, the (grid, label, votes) counts of its voxels."""
    folder = study.records(f"votes_{case_set.kind}")
    votes = {}
    for part in case_set.parts:
        for name in part.names:
            votes[name] = np.load(folder / f"{name}.npz")["counts"]
    return votes


def bins_of_cases(
    case_set: CaseSet, votes: Mapping[str, np.ndarray], method: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of :func:`vote_bins`, (n, bins) each, of the cases in the order of the votes."""
    bins = []
    for part in case_set.parts:
        calibration = part.learned.map if method == MAP else None
        bins += [vote_bins(votes[name], calibration) for name in part.names]
    count, confidence, marked = np.stack(bins, 1)
    return count, confidence, marked


def vote_bins(counts: np.ndarray, calibration: LogOddsMap | None) -> np.ndarray:
    """Sums of the segmented voxels, (3, bins): their number, probabilities and shares of raters."""
    odds = torch.arange(len(counts), dtype=torch.float64)[None] * STEP - GRID
    if calibration is None:
        probs = torch.sigmoid(odds[0]).numpy()
    else:
        label = torch.ones(odds.shape[1], dtype=torch.int64)
        probs = calibration.to_probabilities(odds, label)[1].numpy()
    place = np.clip(np.ceil(probs * N_BINS) - 1, 0, N_BINS - 1).astype(int)
    segmented = counts[:, 1]
    voxels = segmented.sum(1)
    marked = segmented @ np.arange(N_RATERS + 1) / N_RATERS
    sums = [np.bincount(place, values, N_BINS) for values in (voxels, voxels * probs, marked)]
    return np.stack(sums)


def gap_rows(
    method: str, bins: tuple[np.ndarray, np.ndarray, np.ndarray], patients: Sequence[str]
) -> Iterator[Row]:
    """The pooled gap between confidence and share of raters, and the means of both."""
    count, confidence, marked = bins
    yield pooled_gap_row(
        count, confidence, marked, patients, method=method, quantity="gap to share of raters"
    )
    for quantity, total in (("confidence", confidence), ("share of raters", marked)):
        mean = total.sum() / count.sum()
        yield {"method": method, "quantity": f"{quantity}, segmented voxels", "value": mean}


def predicted_dice(case_set: CaseSet, method: str) -> pd.Series:
    """By case, as the networks left it or under the map that has not seen its patient."""
    if method == RAW:
        return case_set.cases.table.predicted_dice
    of_parts = []
    for part in case_set.parts:
        calibrated = case_set.cases.under(part.learned.map, part.names)
        of_parts.append(calibrated.predicted_dice)
    return pd.concat(of_parts)


def dice_between_raters(counts: np.ndarray) -> float:
    """2 x shared voxels / sizes, both summed over the six pairs of raters.

    Votes do not tell those of a single pair.
    """
    marked = counts.sum((0, 1)).astype(float)
    if not marked[1:].any():
        return np.nan
    votes = np.arange(N_RATERS + 1)
    shared = marked @ (votes * (votes - 1) / 2)
    in_pairs = N_RATERS - 1  # that a rater's voxels are in
    return float(2 * shared / (in_pairs * (marked @ votes)))


def agreement_rows(
    method: str, predicted: pd.Series, between: pd.Series, cases: Cases
) -> Iterator[Row]:
    """Rank correlation of predicted Dice with Dice between raters, over segmented scans; means."""
    scans = pd.DataFrame(
        {"predicted": predicted, "between": between, "dice": cases.table.Dice}
    ).dropna()
    patients = cases.patients(scans.index)
    ranks = {name: rankdata(scans[name]) for name in scans}
    quantity = "rank correlation with Dice between raters"
    yield statistic_row(
        correlation,
        patients,
        ranks["predicted"],
        ranks["between"],
        method=method,
        quantity=quantity,
    )
    yield mean_row(scans.predicted, patients, method=method, quantity="predicted Dice")
    if method == RAW:
        yield statistic_row(
            correlation,
            patients,
            ranks["dice"],
            ranks["between"],
            method="true Dice",
            quantity=quantity,
        )
        yield mean_row(scans.between, patients, method="", quantity="Dice between raters")


def correlation(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(draws,) Pearson's correlation of (n,) values, cases weighted by (draws, n)."""
    first = first - first.mean()
    second = second - second.mean()
    n = weights.sum(1)
    mean_first = weights @ first / n
    mean_second = weights @ second / n
    variance_first = weights @ first**2 / n - mean_first**2
    variance_second = weights @ second**2 / n - mean_second**2
    covariance = weights @ (first * second) / n - mean_first * mean_second
    return covariance / np.sqrt(variance_first * variance_second)
