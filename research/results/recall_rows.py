"""Sensitive labels (part `recall`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from cases import Cases
from rows import Row, mean_row, put
from study import Study

from nnunet_nacl.estimators.recall import RECALLS, THRESHOLDS, LearnedRecall, learn_recall

NNUNET = "nnU-Net's labels"


def recall_rows(study: Study) -> None:
    """Part `recall`: what labels miss of the structure, the mean over patients who have it, and
    what they cost."""
    for case_set in study.case_sets():
        by_method: dict[str, list[pd.DataFrame]] = {}
        for part in case_set.parts:
            learned = learned_recall(study.folds, part.learning_cases)
            for method, place in places_of(learned).items():
                by_method.setdefault(method, []).append(
                    sensitive(case_set.cases, part.names, place)
                )
        for method, tables in by_method.items():
            put(method_rows(method, pd.concat(tables)), **study.common, cases=case_set.kind)


def learned_recall(cases: Cases, names: Sequence[str]) -> LearnedRecall:
    """What some cases teach of what labels miss of the one structure."""
    counts = [addable_of(cases, name) for name in names]
    (learned,) = learn_recall(cases.table.loc[list(names)], counts, cases.patient).values()
    return learned


def addable_of(cases: Cases, name: str) -> np.ndarray:
    """(2, 1, thresholds) voxels that could be added to a case's labels, right ones and all: see the
    package."""
    counts = cases.records[name].addable
    if counts is None:
        raise ValueError(f"{name}: its record was made without a truth; measure it again.")
    return counts


def places_of(learned: LearnedRecall) -> dict[str, int]:
    """By method the place of its threshold; methods with too few patients are left out."""
    places = {NNUNET: len(THRESHOLDS)}
    for recall in RECALLS:
        place = learned.threshold_index(recall)
        if place is not None:
            places[f"-recall {recall}"] = place
    return places


def sensitive(cases: Cases, names: Sequence[str], place: int) -> pd.DataFrame:
    """A row a case under a threshold: patient, share missed, times larger, false voxels."""
    counts = np.stack([addable_of(cases, name)[:, 0] for name in names])  # one structure
    found, added = counts[..., place:].sum(2).T
    rows = cases.table.loc[list(names)]
    labelled = (rows.TP + rows.FP).to_numpy()
    true = (rows.TP + rows.FN).to_numpy()
    # of cases without the structure, which are NaN
    with np.errstate(invalid="ignore", divide="ignore"):
        missed = (rows.FN.to_numpy() - found) / true
        larger = np.where(labelled > 0, 1 + added / labelled, np.nan)
    columns = {
        "patient": cases.patients(names),
        "missed": np.where(np.isfinite(missed), missed, np.nan),
        "times larger": larger,
        "false voxels": added - found,
    }
    return pd.DataFrame(columns)


def method_rows(method: str, cases: pd.DataFrame) -> Iterator[Row]:
    """Of the cases under one method, as :func:`sensitive` gives them."""
    missed = cases.missed.groupby(cases.patient).mean()
    yield mean_row(missed, missed.index, method=method, quantity="missed")
    for name in ("times larger", "false voxels"):
        values = cases[name].dropna()
        yield {
            "method": method,
            "quantity": f"{name}, median",
            "value": values.median(),
            "n_cases": len(values),
        }
