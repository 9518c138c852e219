"""Whether scans of another scanner are recognised (part `unlike`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from cases import Cases
from rows import Row, mean_row, put
from scipy.stats import mannwhitneyu
from study import CV, Study

from nnunet_nacl.nnunet.calibration_profiles import learn_profiles
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.quality.unlike import DEFAULT_UNLIKE, CalibrationProfiles

UNLIKE = "unlike"
"""Method of the rows that compare images with those of the validation cases."""


def unlike_rows(study: Study) -> None:
    """Part `unlike`: scans that are marked as unlike the validation cases, or as different from the
    training's, and the test of all scans of a scanner together."""
    model = TrainedModel.open(study.model(study.trainer))
    records = list(study.folds.records.values())
    profiles = learn_profiles(records, study.folds.patients(), model)
    for case_set in study.case_sets():
        if case_set.kind != CV:
            rows = rows_of_scanner(profiles, case_set.cases)
            put(rows, **study.common, cases=case_set.kind)


def rows_of_scanner(profiles: CalibrationProfiles, cases: Cases) -> Iterator[Row]:
    """The share of single scans that are marked, and p-values of the batch by scans and by
    patients."""
    records = list(cases.records.values())
    patients = cases.patients()
    values = [np.array(record.profile, float) for record in records]
    is_unlike = [profiles.p_value(profile) <= DEFAULT_UNLIKE + 1e-9 for profile in values]
    is_different = [bool(record.differences) for record in records]
    yield mean_row(is_unlike, patients, method=UNLIKE, quantity="scans marked unlike")
    yield mean_row(is_different, patients, method=UNLIKE, quantity="scans that differ in geometry")

    scores = np.array([profiles.score(profile) for profile in values])
    counts = {"n_patients": len(set(patients)), "n_cases": len(records)}
    p_of_scans = p_of_larger(scores, profiles.scores)
    yield {"method": UNLIKE, "quantity": "p of the batch, by scans", "value": p_of_scans, **counts}
    p_of_patients = p_of_larger(
        mean_by_patient(scores, patients), mean_by_patient(profiles.scores, profiles.patient)
    )
    yield {
        "method": UNLIKE,
        "quantity": "p of the batch, by patients",
        "value": p_of_patients,
        **counts,
    }


def mean_by_patient(values: np.ndarray, patients: Sequence[str] | np.ndarray) -> np.ndarray:
    """(patients,) mean of the values of each patient's scans."""
    return pd.Series(values).groupby(np.asarray(patients)).mean().to_numpy()


def p_of_larger(values: np.ndarray, others: np.ndarray) -> float:
    """One-sided p-value of Mann-Whitney's test: are values larger than others?"""
    return float(mannwhitneyu(values, others, alternative="greater").pvalue)
