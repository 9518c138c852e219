"""Losses as in the NACL paper, as trained and with a map: values and paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from calibration_rows import predicted_bins
from cases import Cases, measure, quick_cross_fit, read_cases
from rows import Row, mean_row, pooled_gap_row, put
from study import CV, MAP, RAW, Study

from nnunet_nacl.cases.measure import under
from nnunet_nacl.cases.record import CaseRecord, scores
from nnunet_nacl.estimators.crossfit import choose
from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from nnunet_nacl.nnunet.prediction_folder import find_fold_folders
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.utilities.errors import UserError

REFERENCE = "DiceCE"
"""nnU-Net's own loss."""
LOSSES = (REFERENCE, "CE", "NACL", "MbLS", "SVLS", "Focal", "ACE")
SCHEDULE = "25epochs_100iters_adam_noda"
"""The schedule and the losses that are compared where the command names no others."""
SEEDS = ("", "_seed2")
METRICS = ("ECE:foreground", "ECE:predicted", "NLL:all", "NLL:predicted", "Brier:all")
SUMS = ("bins count", "bins confidence", "bins correct")
"""Columns of the sums over the segmented voxels of a case, by bin of confidence."""
EACH_FOLD = "each fold"
"""Cases, as results.csv calls them, of other schedules than ``SCHEDULE``: validation cases with a
map of their own fold. ``CV`` is the validation cases of all folds together, of which other parts
have rows of the same networks."""


class Training(NamedTuple):
    """One trained network; ``seed`` is the token of the trainer's name, empty for the first."""

    loss: str
    schedule: str
    seed: str
    fold: str

    @property
    def trainer(self) -> str:
        """Behind nnUNetTrainer."""
        return f"{self.loss}_{self.schedule}{self.seed}"

    @property
    def twin(self) -> Training:
        """nnU-Net's loss with the same seed and fold."""
        return self._replace(loss=REFERENCE)


def losses_rows(study: Study, *, schedule: str = SCHEDULE, losses: Sequence[str] = LOSSES) -> None:
    """Part `losses`: every training that is finished; differences are to nnU-Net's loss in the same
    folds and seeds, and nnU-Net's loss itself is measured where another one was trained.

    Args:
        study: Whose networks.
        schedule: Behind the loss in the trainers' names.
        losses: The losses that are compared.
    """
    trainings = compared(list(finished(study, schedule, losses)))
    values = {training: values_of(training, study) for training in trainings}
    for loss in losses:
        own = [training for training in trainings if training.loss == loss]
        if not own:
            continue
        keys = {
            "dataset": study.name,
            "configuration": study.configuration,
            "cases": CV if schedule == SCHEDULE else EACH_FOLD,
            "structure": study.structure,
            "trainer": f"{loss}_{schedule}",
        }
        paired = [training for training in own if training.twin in values and loss != REFERENCE]
        for method in (RAW, MAP):
            cases = pd.concat([values[training][method] for training in own])
            put(value_rows(cases), **keys, training=describe(own), method=method)
            if not paired:
                continue
            of_loss = pd.concat([values[training][method] for training in paired])
            for other in (RAW, MAP):
                of_reference = pd.concat([values[training.twin][other] for training in paired])
                title = f"{method} less {REFERENCE} {other}"
                put(
                    difference_rows(of_loss, of_reference),
                    **keys,
                    training=describe(paired),
                    method=title,
                )


def finished(study: Study, schedule: str, losses: Sequence[str]) -> Iterator[Training]:
    """The trainings that have validated."""
    for loss in losses:
        for seed in SEEDS:
            try:
                model = study.model(f"{loss}_{schedule}{seed}")
            except UserError:  # there is no such model: it has no row
                continue
            for summary in sorted(model.glob("fold_*/validation/summary.json")):
                fold = summary.parent.parent.name.removeprefix("fold_")
                yield Training(loss, schedule, seed, fold)


def compared(trainings: Sequence[Training]) -> list[Training]:
    """Those of the trainings that another one is compared with, or that are compared: of nnU-Net's
    loss only the folds and seeds that another loss was trained with."""
    twins = {training.twin for training in trainings if training.loss != REFERENCE}
    return [training for training in trainings if training.loss != REFERENCE or training in twins]


def describe(trainings: Sequence[Training]) -> str:
    """Folds, each with its seeds."""
    in_order = sorted(trainings, key=lambda training: (training.fold, training.seed))
    return ", ".join(
        f"fold {training.fold}{training.seed.replace('_', ' ')}" for training in in_order
    )


def values_of(training: Training, study: Study) -> dict[str, pd.DataFrame]:
    """By method a row a case: see :func:`case_values`."""
    model = study.model(training.trainer)
    records = study.work / "losses" / training.trainer / f"fold_{training.fold}"
    validation = find_fold_folders(model, [training.fold])[training.fold]
    measure(validation, Work(with_sample=True), records, training.trainer)
    names = list(validation.names)
    cases = read_cases(records, dict(zip(names, study.patients_or_scans(names))))
    return {
        RAW: case_values(cases, cases.records, study.structure),
        MAP: case_values(cases, cross_fitted(cases), study.structure),
    }


def cross_fitted(cases: Cases) -> dict[str, CaseRecord]:
    """Each case under a map that was fitted to the other parts of the fold, by patient."""
    names = list(cases.records)
    patients = cases.patients()
    folds = assign_cross_fit_folds(patients)
    voxels = [cases.voxels[name] for name in names]
    chosen = choose(quick_cross_fit(voxels, folds, patients))
    records = {}
    for name, fold in zip(names, folds):
        records[name] = under(cases.records[name], chosen.fold_maps[fold])
    return records


def case_values(cases: Cases, records: Mapping[str, CaseRecord], structure: str) -> pd.DataFrame:
    """A row a case: what came of its segmentation and probabilities.

    Args:
        cases: As trained.
        records: The same, as trained or under a map.
        structure: Name of the structure of Dice; the metrics are of all together.

    Returns:
        ``patient``; Dice and whether the structure was missed, where it is present; whether it was
        invented, where it is absent; the ``METRICS``; and the ``SUMS`` of its segmented voxels.
    """
    table = cases.table
    table = table[table.name == structure]
    metrics = scores(records.values())
    present = table.true_volume > 0
    segmented = table.volume > 0
    columns = {
        "patient": cases.patients(),
        "Dice where present": table.Dice.where(present),
        "missed": (~segmented).astype(float).where(present),
        "invented": segmented.astype(float).where(~present),
    }
    for name in METRICS:
        columns[name.replace(":", " ")] = metrics[name]
    sums = predicted_bins([records[name] for name in table.index])
    for name, of_cases in zip(SUMS, sums):
        columns[name] = pd.Series(list(of_cases), table.index)
    return pd.DataFrame(columns)


def quantities_of(values: pd.DataFrame) -> list[str]:
    """Columns that a mean is taken of."""
    return [name for name in values if name not in ("patient", *SUMS)]


def value_rows(values: pd.DataFrame) -> Iterator[Row]:
    """Means over cases and trainings, and the pooled error.

    Patients are drawn with all their cases and trainings.
    """
    for name in quantities_of(values):
        yield mean_row(values[name], values.patient, quantity=name)
    count, confidence, correct = (np.stack(values[name].tolist()) for name in SUMS)
    yield pooled_gap_row(
        count, confidence, correct, values.patient, quantity="pooled ECE predicted"
    )


def difference_rows(values: pd.DataFrame, reference: pd.DataFrame) -> Iterator[Row]:
    """Of the same cases in the same order."""
    for name in quantities_of(values):
        difference = values[name].to_numpy() - reference[name].to_numpy()
        yield mean_row(difference, values.patient, exact=False, quantity=name)
