"""Calibration before and after, and of peers (part `calibration`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from cases import Cases
from rows import (
    DRAWS,
    Row,
    mean_row,
    number_patients,
    pooled_gap_row,
    put,
    statistic_row,
    write_csv,
)
from study import MAP, RAW, Part, Study

from nnunet_nacl.cases.measure import under
from nnunet_nacl.cases.record import CaseRecord, scores
from nnunet_nacl.metrics.statistics import bin_accuracy_bands

PEERS = ("CDC", "CMSop")
"""Calibrators of the package fiducio."""
PROPER_SCORES = ("NLL:predicted", "NLL:all", "Brier:predicted", "Brier:all")
SCORES = (*PROPER_SCORES, "ECE:predicted")


class Fiducio:
    """A calibrator of the package fiducio, fitted to voxels drawn evenly from cases; it does what
    `under` needs.

    Args:
        name: Of the calibrator.
        cases: That it is fitted to some of.
        names: Of these.
        n_voxels: Drawn from each case.
    """

    def __init__(self, name: str, cases: Cases, names: Sequence[str], n_voxels: int = 4000) -> None:
        import fiducio

        rng = np.random.default_rng(0)
        log_probs = []
        target = []
        for case in names:
            voxels = cases.voxels[case]
            weights = voxels.all_weights.numpy()
            drawn = torch.from_numpy(rng.choice(len(weights), n_voxels, p=weights / weights.sum()))
            log_probs.append(log_probabilities(voxels.log_odds[:, drawn]))
            target.append(voxels.target[drawn])
        calibrator = getattr(fiducio, name)(optimizer="lbfgs")
        self._fitted = calibrator.fit(torch.cat(log_probs), torch.cat(target))

    def to_probabilities(self, odds: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(K, n) calibrated; it takes the label from the log-odds."""
        return self._fitted.transform(log_probabilities(odds)).T.double()


def log_probabilities(odds: torch.Tensor) -> torch.Tensor:
    """(n, K) log probabilities of (K - 1, n) log-odds."""
    return torch.cat([torch.zeros_like(odds[:1]), odds]).log_softmax(0).T.float()


def methods_of(cases: Cases, part: Part, peers: Sequence[str]) -> dict[str, Any]:
    """By method a map, or a peer that does what `under` needs of one, all fitted to the same cases;
    None: no map."""
    maps = {
        RAW: None,
        "temperature": part.learned.maps["temperature"],
        MAP: part.learned.map,
    }
    return {**maps, **{name: Fiducio(name, cases, part.learning_cases) for name in peers}}


def calibration_rows(study: Study) -> None:
    """Part `calibration`: scores and pooled errors under each map, and the reliability curve."""
    curves = []
    for case_set in study.case_sets():
        by_method: dict[str, list[CaseRecord]] = {}
        for part in case_set.parts:
            records = [case_set.cases.records[name] for name in part.names]
            for method, calibration in methods_of(study.folds, part, study.peers).items():
                calibrated = (
                    [under(record, calibration) for record in records]
                    if calibration is not None
                    else records
                )
                by_method.setdefault(method, []).extend(calibrated)
        patient = case_set.cases.patient
        rows: list[Row] = []
        for method, records in by_method.items():
            rows += effect_rows(method, records, patient)
            curves.append(reliability_curve(records, patient, case_set.kind, method))
        rows += difference_rows(
            {method: scores(records) for method, records in by_method.items()}, patient
        )
        put(rows, **study.common, cases=case_set.kind)
    write_csv(study.file("curve_reliability"), pd.concat(curves), 4)


def effect_rows(
    method: str, records: Sequence[CaseRecord], patient: Mapping[str, str]
) -> list[Row]:
    """Means over cases of scores, and pooled over their voxels the error and mean confidence and
    accuracy."""
    patients = [patient[record.name] for record in records]
    values = scores(records)
    rows = [
        mean_row(values[name], patients, method=method, quantity=name.replace(":", " "))
        for name in SCORES
    ]
    count, confidence, correct = predicted_bins(records)
    rows.append(
        pooled_gap_row(
            count, confidence, correct, patients, method=method, quantity="pooled ECE predicted"
        )
    )
    voxels = count.sum(1)
    for name, total in (("confidence predicted", confidence), ("accuracy predicted", correct)):
        rows.append(
            statistic_row(
                ratio_of_sums, patients, total.sum(1), voxels, method=method, quantity=name
            )
        )
    return rows


def ratio_of_sums(weights: np.ndarray, total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(draws,) sum of the (n,) totals by that of the counts, cases weighted by (draws, n)."""
    return weights @ total / (weights @ count)


def predicted_bins(records: Sequence[CaseRecord]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(cases, bins) voxels that were segmented, sum of their confidences and how many are right."""
    bins = [record.bins["predicted"] for record in records]
    return (
        np.stack([stats.count[0] for stats in bins]),
        np.stack([stats.confidence[0] for stats in bins]),
        np.stack([stats.correct[0] for stats in bins]),
    )


def difference_rows(
    values: Mapping[str, pd.DataFrame], patient: Mapping[str, str]
) -> Iterator[Row]:
    """Of the map less each other method, paired by case."""
    of_map = values[MAP]
    patients = [patient[case] for case in of_map.index]
    for method, of_method in values.items():
        if method == MAP:
            continue
        for name in PROPER_SCORES:
            difference = of_map[name] - of_method.loc[of_map.index, name]
            keys = {"method": f"{MAP} less {method}", "quantity": name.replace(":", " ")}
            yield mean_row(difference, patients, exact=False, **keys)


def reliability_curve(
    records: Sequence[CaseRecord], patient: Mapping[str, str], kind: str, method: str
) -> pd.DataFrame:
    """Accuracy by bin of confidence over the segmented voxels, with 95 % bands over patients."""
    count, confidence, correct = predicted_bins(records)
    patients = [patient[record.name] for record in records]
    curve = curve_with_bands(count, confidence, correct, patients, "accuracy")
    curve.insert(0, "method", method)
    curve.insert(0, "cases", kind)
    return curve


def curve_with_bands(
    count: np.ndarray,
    confidence: np.ndarray,
    right: np.ndarray,
    patients: Sequence[str],
    share: str,
) -> pd.DataFrame:
    """A row for each bin that has voxels.

    Args:
        count, confidence, right: (n, bins) of each case the voxels of each bin, and sums of their
            confidence and of what it is compared with.
        patients: (n,) of each case.
        share: Name of the column of what confidence is compared with.

    Returns:
        Columns ``confidence`` and ``share``, means of the voxels; ``low`` and ``high``, a 95 %
        interval of the share over patients; and ``voxels``.
    """
    patient_of_case = number_patients(patients)
    count_by_patient = pd.DataFrame(count).groupby(patient_of_case).sum().to_numpy()
    right_by_patient = pd.DataFrame(right).groupby(patient_of_case).sum().to_numpy()
    low, high = bin_accuracy_bands(count_by_patient, right_by_patient, n_bootstrap=DRAWS, seed=0)
    voxels = count.sum(0)
    with np.errstate(invalid="ignore"):  # of bins without a voxel, which are left out
        mean_confidence = confidence.sum(0) / voxels
        mean_share = right.sum(0) / voxels
    columns = {
        "confidence": mean_confidence,
        share: mean_share,
        "low": low,
        "high": high,
        "voxels": voxels,
    }
    return pd.DataFrame(columns).dropna(subset=["confidence"])
