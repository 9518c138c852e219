"""The official test set of the heart (ACDC, patients 101 to 150) beside published values (part
`heart`).

Networks of patients 1 to 100 predict it, one alone and as the five-fold ensemble, as trained and
under the map of their validation cases. Of each volume and structure the marginal average
calibration error (ACE) has 20 equal bins, without the background, as in Barfoot et al. (arXiv
2506.03942), with whose values it is compared volume by volume. Of nnU-Net's loss also what
`predict` would say of each scan: acdc_scans.csv.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from calibration_rows import effect_rows
from cases import measure_images
from losses import REFERENCE
from marginal_ace import SETTINGS
from rows import Row, mean_row, put, write_csv
from scans import COLUMNS, interval_rows, list_rows
from study import CV, ENSEMBLE, MAP, RAW, Study

from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.calibration.fit import fit_held_out
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.measure import measure, under
from nnunet_nacl.cases.record import CaseRecord, read_record, record_path, table
from nnunet_nacl.estimators.flags import Flags
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.nnunet.held_out import HeldOut
from nnunet_nacl.nnunet.held_out_cases import ValidationOfModel
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.settings import NetworkSettings
from nnunet_nacl.worklist.judgement import completed

SINGLE = "outer, network of fold 0"
"""Cases, as results.csv calls them: the same, by a single network as the published ones are."""
ACE = "ACE of the structure"
ACE_WITH_BORDER = "ACE of the structure, with a border"
DICE = "Dice"
MEAN = "mean"
"""A structure, as results.csv calls it: the mean of all."""
SHARE_KEPT = 0.76
"""Of each side in the plane, of the images as they are distributed."""
BAD = 0.8
FIND_OPTION = f"-find 0.9 -bad {BAD:g}"


@dataclass(frozen=True)
class WithMap(Work):
    """Measures a case, and beside it under a map, over all its voxels.

    Attributes:
        other: The map.
        mapped: Folder of the records under it.
    """

    other: LogOddsMap | None = None
    mapped: Path = Path()

    @property
    def key(self) -> dict[str, object]:
        """Also the map."""
        return super().key | {"other": None if self.other is None else self.other.digest}

    def make_record(self, case: Case) -> CaseRecord:
        """The record of a case as trained, once that under the map is written."""
        self.mapped.mkdir(parents=True, exist_ok=True)
        record = measure(case, self.other, settings=self.settings)
        record.save(record_path(self.mapped, case.name))
        return super().make_record(case)


def heart_rows(
    study: Study, *, schedule: str, losses: Sequence[str], published: Path, with_outer: bool
) -> None:
    """Part `heart`.

    Args:
        study: Whose networks.
        schedule: Behind the loss in the trainers' names.
        losses: Those that are compared; nnU-Net's own is the reference.
        published: Table of published values: loss, case, patient, and dice_ and ace_ of each
            structure.
        with_outer: Open the official test set.
    """
    references = published_values(published)
    if with_outer:
        for loss, values in references.items():
            put(value_rows(values, study), **keys_of(study, loss, ENSEMBLE), method="published")
    reference: dict[str, pd.DataFrame] = {}  # of nnU-Net's loss as trained, by cases
    for loss in losses:
        trainer = f"{loss}_{schedule}"
        held_out = validation_of(study, trainer)
        patients = dict(zip(held_out.records, study.patients_or_scans(held_out.records)))
        calibration_map = fit_held_out(held_out, patients=patients)
        calibrator = Calibrator(calibration_map=calibration_map)
        test = measure_test(study, trainer, calibrator) if with_outer else {}
        for cases, records in test.items():
            values = {method: values_of_cases(records[method]) for method in (RAW, MAP)}
            if loss == REFERENCE:
                reference[cases] = values[RAW]
            for method in (RAW, MAP):
                others = {f"published {title}": table for title, table in references.items()}
                if (loss, method) != (REFERENCE, RAW) and cases in reference:
                    others[f"{REFERENCE} {RAW}"] = reference[cases]
                keys = keys_of(study, trainer, cases)
                put(value_rows(values[method], study), **keys, method=method)
                for title, other in others.items():
                    change = values[method] - other
                    put(value_rows(change, study), **keys, method=f"{method} less {title}")
        if loss == REFERENCE:
            as_trained = list(held_out.records.values())
            maps = calibration_map.part_maps
            left_out = [under(record, maps[record.name]) for record in as_trained]
            put_effect(study, trainer, CV, as_trained, left_out)
            if test:
                as_trained = test[ENSEMBLE][RAW]
                under_map = test[ENSEMBLE][MAP]
                put_effect(study, trainer, ENSEMBLE, as_trained, under_map)
                scans = judge(as_trained, under_map, calibrator, study.patient)
                put_groups(study, trainer, scans)
                write_csv(study.file("scans"), scans.assign(**keys_of(study, trainer, ENSEMBLE)))


def put_effect(
    study: Study,
    trainer: str,
    cases: str,
    as_trained: Sequence[CaseRecord],
    under_map: Sequence[CaseRecord],
) -> None:
    """Scores as trained and under a map."""
    patient = study.patient
    rows = effect_rows(RAW, as_trained, patient) + effect_rows(MAP, under_map, patient)
    put(rows, **keys_of(study, trainer, cases))


def keys_of(study: Study, trainer: str, cases: str) -> dict[str, str]:
    """Keys of rows."""
    return {
        "dataset": study.name,
        "trainer": trainer,
        "configuration": study.configuration,
        "training": "folds 0 1 2 3 4",
        "cases": cases,
    }


def published_values(path: Path) -> dict[str, pd.DataFrame]:
    """By loss a row a case and structure."""
    values = {}
    table_of_losses = pd.read_csv(path)
    dice_columns = [name for name in table_of_losses if name.startswith("dice_")]
    for loss, rows in table_of_losses.groupby("loss", sort=False):
        columns = {}
        for name in (column.removeprefix("dice_") for column in dice_columns):
            columns[name] = rows.set_index("case")[[f"dice_{name}", f"ace_{name}"]].set_axis(
                [DICE, ACE], axis=1
            )
        by_structure = pd.concat(columns, names=["structure"]).swaplevel()
        by_structure[ACE_WITH_BORDER] = np.nan
        values[str(loss)] = with_mean(by_structure)
    return values


def with_mean(values: pd.DataFrame) -> pd.DataFrame:
    """Also the mean over structures of each case."""
    mean = values.groupby("case", sort=False).mean()
    mean.index = pd.MultiIndex.from_product([mean.index, [MEAN]], names=values.index.names)
    return pd.concat([values, mean]).sort_index()


def validation_of(study: Study, trainer: str) -> HeldOut:
    """The validation cases of all five folds, each with a sample."""
    model = TrainedModel.open(study.model(trainer), list("01234"))
    validation = ValidationOfModel(model, NetworkSettings(device="cpu"))
    held_out = validation.measure(Work(settings=SETTINGS, with_sample=True), 1)
    if held_out.problems:
        raise ValueError(f"{len(held_out.problems)} cases were not measured: {held_out.problems}")
    return held_out


def measure_test(
    study: Study, trainer: str, calibrator: Calibrator
) -> dict[str, dict[str, list[CaseRecord]]]:
    """By cases and method the records of the test set, of the ensemble and of a single network."""
    results: dict[str, dict[str, list[CaseRecord]]] = {}
    images = study.images_of_dataset(ENSEMBLE, study.outer_names)
    for cases, folds in ((ENSEMBLE, "01234"), (SINGLE, "0")):
        work = study.work / trainer / f"test_{folds}"
        measured = WithMap(settings=SETTINGS, other=calibrator.log_odds_map, mapped=work / MAP)
        model = TrainedModel.open(study.model(trainer), list(folds))
        measure_images(model, measured, work / RAW, images.images, images.truth, images.cases)
        results[cases] = {}
        for method in (RAW, MAP):
            paths = [record_path(work / method, name) for name in study.outer_names]
            results[cases][method] = [read_record(path) for path in paths]
    return results


def values_of_cases(records: Sequence[CaseRecord]) -> pd.DataFrame:
    """A row a case and structure, and one of each case's mean."""
    return with_mean(pd.concat([values_of(record) for record in records]))


def values_of(record: CaseRecord) -> pd.DataFrame:
    """Dice and ACE of the structures of a case, by case and structure."""
    stats = record.bins["all"]
    count = stats.class_count[1:].astype(float)  # without the background
    gap = stats.class_positive[1:] - stats.class_confidence[1:]
    border = count.sum(1, keepdims=True) * (1 / SHARE_KEPT**2 - 1)
    in_first_bin = np.arange(count.shape[1]) == 0
    structures = table([record])
    index = pd.MultiIndex.from_product(
        [[record.name], structures["name"]], names=["case", "structure"]
    )
    columns = {
        DICE: structures.Dice.to_numpy(),
        ACE: mean_gap(gap, count),
        ACE_WITH_BORDER: mean_gap(gap, count + in_first_bin * border),
    }
    return pd.DataFrame(columns, index=index)


def mean_gap(gap: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(structures,) mean over the bins that hold a voxel of |share of the structure - mean
    probability|."""
    of_bin = np.divide(np.abs(gap), count, out=np.full(gap.shape, np.nan), where=count > 0)
    return np.nanmean(of_bin, axis=1)


def value_rows(values: pd.DataFrame, study: Study) -> Iterator[Row]:
    """Means over cases, by structure."""
    for structure, rows in values.groupby("structure", sort=False):
        cases = rows.index.get_level_values("case")
        patients = study.patients_or_scans(cases)
        for quantity in rows.columns[rows.notna().any()]:
            keys = {"quantity": str(quantity), "structure": str(structure)}
            yield mean_row(rows[quantity], patients, exact=False, **keys)


def judge(
    as_trained: Sequence[CaseRecord],
    under_map: Sequence[CaseRecord],
    calibrator: Calibrator,
    patient: Mapping[str, str],
) -> pd.DataFrame:
    """What `predict` would say of each case: a row a case and structure; the columns are those of
    other_scans.csv."""
    learned = calibrator.quality.learned
    if learned is None or calibrator.calibration_map is None:
        raise ValueError("nothing was learned of Dice.")
    names = calibrator.calibration_map.names
    network = table(as_trained)
    rows = completed(table(under_map), calibrator, bad=dict.fromkeys(names.values(), BAD))
    rows = rows.assign(
        network_dice=network.predicted_dice.to_numpy(), network_entropy=network.entropy.to_numpy()
    )
    flags = Flags.of(learned.scores, dict.fromkeys(names, BAD), names)  # nine of ten
    threshold = -np.inf if flags.threshold is None else flags.threshold
    is_flagged = ~(rows.groupby("case").score.min() > threshold)
    columns = {name: rows[name].to_numpy() for name in COLUMNS}
    scans = pd.DataFrame(columns).rename(columns=COLUMNS)
    case = rows["case"].to_numpy()
    return scans.assign(
        case=case,
        patient=[patient[name] for name in case],
        bad=BAD,
        structure=rows["name"].to_numpy(),
        flagged=is_flagged[case].astype(int).to_numpy(),
    )


def put_groups(study: Study, trainer: str, scans: pd.DataFrame) -> None:
    """Flags and intervals of the test cases by group of disease."""
    groups = json.loads((study.task / "groups.json").read_text(encoding="utf-8"))
    with_option = scans.rename(columns={"flagged": FIND_OPTION})
    for group, of_group in with_option.groupby(with_option.patient.map(groups)):
        rows = [*list_rows(of_group), *interval_rows(of_group)]
        put(rows, **keys_of(study, trainer, f"{ENSEMBLE}, {group}"), structure="")
