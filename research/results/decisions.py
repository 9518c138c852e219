"""Losses with nnU-Net's argmax and with a bias of each structure (`nnunet_nacl tune`), which was
chosen without the patients that it is measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd
from losses import REFERENCE, finished
from rows import DRAWS, Row, mean_row, put
from study import RAW, Study

from nnunet_nacl.calibration.tune import DecidedWork, choose
from nnunet_nacl.cases.record import CaseRecord, scores, table
from nnunet_nacl.metrics.statistics import difference_of_means
from nnunet_nacl.nnunet.held_out import HeldOut, measure_folders
from nnunet_nacl.nnunet.prediction_folder import find_fold_folders
from nnunet_nacl.nnunet.records import Work

TUNED = "tuned"
"""A method, as results.csv calls it."""
LEFT_OUT = "left-out parts"
"""Cases, as results.csv calls them: validation cases of all folds that every loss has, each with
biases that were chosen without its patient's part."""
OWN_CHANGE = f"{TUNED} less own {RAW}"
"""A method: what the bias changes of a loss."""
LOSSES = (REFERENCE, "DiceCE_anneal", "DiceACE", "NACL", "CE")
OF_STRUCTURE = ("Dice", "Dice where present", "HD95", "missed", "invented", "volume / true")
OF_CASE = ("NLL all", "NLL predicted", "Brier all")
BIAS = "bias"


def decision_rows(study: Study, *, schedule: str, losses: Sequence[str] = LOSSES) -> None:
    """Part `decisions`: each structure of the study's data set.

    Args:
        study: Whose networks.
        schedule: Behind the loss in the trainers' names.
        losses: The losses that are compared; nnU-Net's own is the reference.
    """
    folds = common_folds(study, schedule, losses)
    values: dict[tuple[str, str], pd.DataFrame] = {}
    biases: dict[str, pd.Series] = {}
    for loss in losses:
        before, after, biases[loss] = measure_loss(study, f"{loss}_{schedule}", folds)
        values[loss, RAW] = case_values(before)
        values[loss, TUNED] = case_values(after)
    for loss in losses:
        keys = {
            "dataset": study.name,
            "configuration": study.configuration,
            "training": ", ".join(f"fold {fold}" for fold in folds),
            "cases": LEFT_OUT,
            "trainer": f"{loss}_{schedule}",
        }
        for name, bias in biases[loss].items():
            row = {"quantity": BIAS, "structure": name, "value": bias}
            put([row], **keys, method=TUNED)
        for method in (RAW, TUNED):
            put(value_rows(values[loss, method], study), **keys, method=method)
        changes = difference_rows(values[loss, TUNED], values[loss, RAW], study)
        put(changes, **keys, method=OWN_CHANGE)
        if loss == REFERENCE:
            continue
        for method, other in ((RAW, RAW), (TUNED, RAW), (TUNED, TUNED)):
            changes = difference_rows(values[loss, method], values[REFERENCE, other], study)
            put(changes, **keys, method=f"{method} less {REFERENCE} {other}")


def common_folds(study: Study, schedule: str, losses: Sequence[str]) -> list[str]:
    """The folds that have validated with every loss."""
    folds_of_loss: dict[str, set[str]] = {loss: set() for loss in losses}
    for training in finished(study, schedule, losses):
        if not training.seed:
            folds_of_loss[training.loss].add(training.fold)
    return sorted(set.intersection(*folds_of_loss.values()))


def measure_loss(
    study: Study, trainer: str, folds: Sequence[str]
) -> tuple[list[CaseRecord], list[CaseRecord], pd.Series]:
    """The records of all cases as trained and with biases; the biases of all cases together."""
    folders = find_fold_folders(study.model(trainer), folds)
    work = Work(settings=next(iter(folders.values())).dataset.settings, with_sample=True)
    before = measure_folders(folders, work, title=trainer)
    names = list(before.records)
    patients = dict(zip(names, study.patients_or_scans(names)))
    candidates = list(range(len(before.labels.structures)))
    chosen = choose(before, patients, candidates)
    decided = DecidedWork(settings=work.settings, biases=chosen.of_case)
    after = measure_folders(folders, decided, title=f"{trainer}, tuned")
    biases = pd.Series(chosen.of_all, list(before.labels.structures.values()))
    return in_order(before, names), in_order(after, names), biases


def in_order(held_out: HeldOut, names: Sequence[str]) -> list[CaseRecord]:
    """The records of cases; ValueError where one is missing."""
    missing = [name for name in names if name not in held_out.records]
    if missing:
        raise ValueError(f"{len(missing)} cases were not measured: {held_out.problems}")
    return [replace(held_out.records[name], sample=None) for name in names]


def case_values(records: Sequence[CaseRecord]) -> pd.DataFrame:
    """A row a case and structure: ``OF_STRUCTURE``, and ``OF_CASE`` in each of its rows."""
    rows = table(records)
    present = rows.true_volume > 0
    segmented = rows.volume > 0
    values = pd.DataFrame(
        {
            "case": rows.case,
            "structure": rows.name,
            "Dice": rows.Dice,
            "Dice where present": rows.Dice.where(present),
            "HD95": rows.HD95_mm,
            "missed": (~segmented).astype(float).where(present),
            "invented": segmented.astype(float).where(~present),
            "volume / true": (rows.volume / rows.true_volume).where(present),
        }
    )
    of_case = scores(records)
    of_case.columns = [name.replace(":", " ") for name in of_case.columns]
    return values.join(of_case[list(OF_CASE)], on="case")


def value_rows(values: pd.DataFrame, study: Study) -> Iterator[Row]:
    """Means over cases."""
    for structure, of_structure in values.groupby("structure", sort=False):
        patients = study.patients_or_scans(of_structure.case)
        for name in (*OF_STRUCTURE, *OF_CASE):
            yield mean_row(of_structure[name], patients, quantity=name, structure=str(structure))


def difference_rows(values: pd.DataFrame, reference: pd.DataFrame, study: Study) -> Iterator[Row]:
    """Differences of the means, of the same cases in the same order."""
    for structure, of_structure in values.groupby("structure", sort=False):
        of_reference = reference[reference.structure == structure]
        patients = study.patients_or_scans(of_structure.case)
        for name in (*OF_STRUCTURE, *OF_CASE):
            interval = difference_of_means(
                of_reference[name], of_structure[name], n_bootstrap=DRAWS, seed=0, groups=patients
            )
            yield {
                "quantity": name,
                "structure": str(structure),
                "value": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "n_patients": len(set(patients)),
                "n_cases": len(patients),
            }
