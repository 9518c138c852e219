"""Whether scans of another scanner are recognised (part `unlike`)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from cases import Cases
from rows import Row, mean_row, put
from scipy.stats import mannwhitneyu
from study import CV, Study

from nnunet_nacl.estimators.unlike import DEFAULT_UNLIKE, ROUNDING, CalibrationProfiles
from nnunet_nacl.estimators.unlike_batch import batch_p_value, find_stand_outs
from nnunet_nacl.nnunet.held_out import learn_profiles
from nnunet_nacl.nnunet.trained_model import TrainedModel

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
    is_unlike = [profiles.p_value(profile) <= DEFAULT_UNLIKE + ROUNDING for profile in values]
    is_different = [bool(record.differences) for record in records]
    yield mean_row(is_unlike, patients, method=UNLIKE, quantity="scans marked unlike")
    yield mean_row(is_different, patients, method=UNLIKE, quantity="scans that differ in geometry")

    batch = np.array(values)
    stand_outs = find_stand_outs(profiles.names, batch, list(cases.records), patients)
    stands_out = [name in stand_outs for name in cases.records]
    yield mean_row(
        stands_out, patients, method=UNLIKE, quantity="scans that stand out of the batch"
    )

    counts = {"n_patients": len(set(patients)), "n_cases": len(records)}
    p_of_scans = p_by_scans(profiles, batch)
    yield {"method": UNLIKE, "quantity": "p of the batch, by scans", "value": p_of_scans, **counts}
    p_of_patients = batch_p_value(profiles, batch, patients)
    yield {
        "method": UNLIKE,
        "quantity": "p of the batch, by patients",
        "value": p_of_patients,
        **counts,
    }


def p_by_scans(profiles: CalibrationProfiles, batch: np.ndarray) -> float:
    """One-sided p-value of larger scores of a batch, as if each scan were of a patient of its own
    (Mann-Whitney)."""
    scores = [profiles.score(profile) for profile in batch]
    return float(mannwhitneyu(scores, profiles.scores, alternative="greater").pvalue)
