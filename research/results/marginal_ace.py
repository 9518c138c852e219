"""Marginal average calibration error (ACE) as the tutorial of the loss mL1-ACE for MONAI reports it
(part `ace`).

Of each scan and each structure, voxels are put into 20 equal bins by the structure's probability;
the error is the mean over the bins that hold a voxel of |share of the structure - mean probability|
(Barfoot et al., arXiv 2506.03942). The tutorial reports the mean over structures and scans, without
the background; the package's marginal ACE has the background among its classes. Under a map the
error is counted over all voxels, not estimated from a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from cases import measure
from losses import REFERENCE, Training, compared, describe, finished
from rows import mean_row, put
from study import CV, MAP, RAW, Study

from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.cases.record import CaseRecord, read_record, table
from nnunet_nacl.estimators.crossfit import choose, cross_fit
from nnunet_nacl.metrics import marginal_ace
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.nnunet.records import Work

SETTINGS = EvaluationSettings(n_bins=20)
ACE = "marginal ACE of the structures"
ACE_WITH_BACKGROUND = "marginal ACE"
DICE = "Dice, mean over structures"


def ace_rows(study: Study, *, schedule: str, losses: Sequence[str]) -> None:
    """Part `ace`: of each loss as trained and with a map of all its folds, and less nnU-Net's loss
    as trained, in the same scans.

    Args:
        study: Whose networks; scans without a patient in patients.json are patients of their own.
        schedule: Behind the loss in the trainers' names.
        losses: The losses that are compared.
    """
    trainings = compared(list(finished(study, schedule, losses)))
    values: dict[tuple[str, str], pd.DataFrame] = {}
    for loss in losses:
        own = [training for training in trainings if training.loss == loss]
        if not own:
            continue
        keys = {
            "dataset": study.name,
            "configuration": study.configuration,
            "cases": CV,
            "trainer": f"{loss}_{schedule}",
            "training": describe(own),
        }
        for method, records in measure_both(study, own).items():
            values[loss, method] = case_values(records)
            put(mean_rows(values[loss, method], study, method), **keys)
            if (loss, method) != (REFERENCE, RAW) and (REFERENCE, RAW) in values:
                difference = values[loss, method] - values[REFERENCE, RAW]
                title = f"{method} less {REFERENCE} {RAW}"
                put(mean_rows(difference.dropna(how="all"), study, title), **keys)


def measure_both(study: Study, trainings: Sequence[Training]) -> dict[str, list[CaseRecord]]:
    """By method the records of the validation cases of some folds of one trainer, with a map that
    was fitted without the patients of each."""
    work = study.work / "ace" / trainings[0].trainer
    model = study.model(trainings[0].trainer)
    folders = find_fold_folders(model, [training.fold for training in trainings])
    for fold, folder in folders.items():
        measure(folder, Work(with_sample=True, settings=SETTINGS), work / RAW, f"fold {fold}")
    fold_of_case: dict[str, str] = {}
    for fold, folder in folders.items():
        fold_of_case |= dict.fromkeys(folder.names, fold)
    as_trained = [read_record(work / RAW / f"{name}.npz") for name in fold_of_case]
    measure_under_maps(study, as_trained, fold_of_case, folders, work / MAP)
    with_map = [read_record(work / MAP / f"{name}.npz") for name in fold_of_case]
    return {RAW: as_trained, MAP: with_map}


def measure_under_maps(
    study: Study,
    records: Sequence[CaseRecord],
    fold_of_case: Mapping[str, str],
    folders: Mapping[str, PredictionFolder],
    work: Path,
) -> None:
    """Measure each case under a map that its patient had no part in.

    Args:
        study: Whose patients.
        records: Of the cases as trained, with samples.
        fold_of_case: Training fold of each, in their order.
        folders: Predictions by training fold.
        work: Folder of the new records.
    """
    patients = study.patients_or_scans(fold_of_case)
    parts = assign_cross_fit_folds(patients, list(fold_of_case.values()))
    voxels = [record.sample.voxels() for record in records if record.sample is not None]
    chosen = choose(cross_fit(voxels, parts, groups=patients))
    cases = pd.DataFrame({"case": fold_of_case.keys(), "fold": fold_of_case.values()})
    for (fold, part), of_part in cases.assign(part=parts).groupby(["fold", "part"]):
        under_map = Work(calibration=chosen.fold_maps[part], settings=SETTINGS)
        measure(folders[fold], under_map, work, f"fold {fold}", names=of_part["case"].tolist())


def case_values(records: Sequence[CaseRecord]) -> pd.DataFrame:
    """A row a case: both errors, and Dice."""
    dice = table(records).groupby("case", sort=False).Dice.mean()
    columns = {
        ACE: [structures_ace(record.bins["all"]) for record in records],
        ACE_WITH_BACKGROUND: [marginal_ace(record.bins["all"]) for record in records],
    }
    cases = [record.name for record in records]
    return pd.DataFrame(columns, index=cases).assign(**{DICE: dice})


def structures_ace(stats: BinStats) -> float:
    """Marginal average calibration error without the background, the first class."""
    count = stats.class_count[1:]
    gap = np.abs(stats.class_positive[1:] - stats.class_confidence[1:])
    with np.errstate(invalid="ignore", divide="ignore"):  # of bins without a voxel
        return float(np.nanmean(gap / count, axis=1).mean())


def mean_rows(values: pd.DataFrame, study: Study, method: str) -> list[dict[str, object]]:
    """Means over cases."""
    patients = study.patients_or_scans(values.index)
    rows = []
    for quantity in values:
        rows.append(
            mean_row(values[quantity], patients, exact=False, method=method, quantity=quantity)
        )
    return rows
