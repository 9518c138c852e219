"""Losses as the NACL paper trains them, each as trained and with a map: values and paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from cases import Cases, measure, quick_cross_fit, read_cases
from rows import mean_row, pooled_gap_row, put, remove

from nnunet_nacl.calibration.crossfit import choose
from nnunet_nacl.cases.measure import under
from nnunet_nacl.cases.record import CaseRecord, scores
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from nnunet_nacl.nnunet.prediction_folder import find_fold_folders
from nnunet_nacl.nnunet.records import Work

if TYPE_CHECKING:
    from measure import Study

LOSSES = ("DiceCE", "CE", "NACL", "MbLS", "SVLS", "Focal", "ACE")
SCHEDULE, SEEDS = "25epochs_100iters_adam_noda", ("", "_seed2")
RAW, MAP = "as trained", "map"
METRICS = ("ECE:foreground", "ECE:predicted", "NLL:all", "NLL:predicted", "Brier:all")


def losses_rows(study: Study) -> None:
    """Part `losses`: every training that is finished; differences are to nnU-Net's loss in the same folds and seeds."""
    runs = {run: values_of(*run, study) for run in finished(study)}
    remove([f"{loss}_{SCHEDULE}" for loss in LOSSES])  # their key `training` changes with every training
    keys = {"dataset": "LIDC", "configuration": study.configuration, "cases": "folds", "structure": "nodule"}
    for loss in LOSSES:
        own = [run for run in runs if run[0] == loss]
        common = [run for run in own if (LOSSES[0], run[1], run[2]) in runs]
        keys |= {"trainer": f"{loss}_{SCHEDULE}", "training": describe(own)}
        for method in (RAW, MAP) if own else ():
            values = pd.concat([runs[run][method] for run in own])
            put(value_rows(values), **keys, method=method)
            for other in (RAW, MAP) if common and loss != LOSSES[0] else ():
                pairs = [(runs[run][method], runs[LOSSES[0], run[1], run[2]][other]) for run in common]
                of = {"training": describe(common), "method": f"{method} less {LOSSES[0]} {other}"}
                put(difference_rows(*map(pd.concat, zip(*pairs))), **keys | of)


def finished(study: Study) -> Iterator[tuple[str, str, str]]:
    """Loss, seed and fold of the trainings that have validated."""
    for loss in LOSSES:
        for seed in SEEDS:
            with suppress(UserError):  # there is no such model
                model = study.model(f"{loss}_{SCHEDULE}{seed}")
                for summary in sorted(model.glob("fold_*/validation/summary.json")):
                    yield loss, seed, summary.parent.parent.name[5:]


def describe(runs: list[tuple[str, str, str]]) -> str:
    """Folds, each with its seeds."""
    return ", ".join(
        f"fold {fold}{seed.replace('_', ' ')}" for _, seed, fold in sorted(runs, key=lambda run: run[::-1])
    )


def values_of(loss: str, seed: str, fold: str, study: Study) -> dict[str, pd.DataFrame]:
    """By method a row a case: Dice, what was missed and invented, scores, and the sums of its segmented voxels."""
    model, place = study.model(f"{loss}_{SCHEDULE}{seed}"), study.work / "losses" / f"{loss}{seed}" / f"fold_{fold}"
    measure(find_fold_folders(model, [fold])[fold], Work(with_sample=True), place, f"{loss}{seed}")
    cases = read_cases(place, study.patient)
    return {RAW: case_values(cases, cases.records), MAP: case_values(cases, cross_fitted(cases))}


def cross_fitted(cases: Cases) -> Mapping[str, CaseRecord]:
    """Each case under a map that was fitted to the other parts of the fold, by patient."""
    names, patients = list(cases.records), cases.patients()
    parts = assign_cross_fit_folds(patients)
    maps = choose(quick_cross_fit([cases.voxels[name] for name in names], parts, patients)).fold_maps
    return {name: under(cases.records[name], maps[part]) for name, part in zip(names, parts)}


def case_values(cases: Cases, records: Mapping[str, CaseRecord]) -> pd.DataFrame:
    """See :func:`values_of`; Dice and missed where the structure is present, invented where it is absent."""
    table, found = cases.table, scores(records.values())
    present, segmented = table.true_volume > 0, table.volume > 0
    values = {
        "patient": cases.patients(),
        "Dice where present": table.Dice.where(present),
        "missed": (~segmented).astype(float).where(present),
        "invented": segmented.astype(float).where(~present),
        **{name.replace(":", " "): found[name] for name in METRICS},
    }
    bins = [records[name].bins["predicted"] for name in table.index]
    sums = {name: [getattr(each, name)[0] for each in bins] for name in ("count", "confidence", "correct")}
    return pd.DataFrame(values | {f"bins {name}": pd.Series(each, table.index) for name, each in sums.items()})


def value_rows(values: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Means over cases and trainings, and the pooled error; patients are drawn with all their cases and trainings."""
    for name in values.columns[1:-3]:
        yield mean_row(values[name], values.patient, quantity=name)
    sums = [np.stack(values[name].tolist()) for name in values.columns[-3:]]
    yield pooled_gap_row(*sums, values.patient, quantity="pooled ECE predicted")


def difference_rows(values: pd.DataFrame, reference: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Of the same cases in the same order."""
    for name in values.columns[1:-3]:
        yield mean_row(values[name].to_numpy() - reference[name].to_numpy(), values.patient, exact=False, quantity=name)
