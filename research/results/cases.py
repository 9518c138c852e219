"""Records of cases of one structure, and what a group would learn from some of them, in hundredths of a second.

The package fits maps to samples of voxels. With one structure a voxel is its log-odds, the label that the network
chose and the truth, so that those of a case are put together on a grid of log-odds (`STEP`), with weights: maps are
then fitted by the package's own functions to a fiftieth of the rows, and can be fitted hundreds of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import SimpleITK
import torch

from nnunet_nacl.calibration import crossfit, fitting
from nnunet_nacl.calibration.crossfit import CrossFit, choose
from nnunet_nacl.calibration.log_odds import log_odds, probabilities
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.calibration.voxels import Voxels
from nnunet_nacl.calibrator.calibration_map import CalibrationMap
from nnunet_nacl.calibrator.map_parts import MapQuality
from nnunet_nacl.calibrator.predicted_quality import QualityOfMap
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.record import CaseRecord, read_record, table
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from nnunet_nacl.nnunet.prediction_folder import find_fold_folders
from nnunet_nacl.nnunet.records import Source, Work, records_of
from nnunet_nacl.nnunet.scans import Images
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.quality.flags import Flags
from nnunet_nacl.quality.learned_quality import learn
from nnunet_nacl.quality.presence import learn_presence
from nnunet_nacl.worklist.review_list import completed

STEP = 0.05
GRID = 20.0
"""Log-odds beyond it are put to it: no map changes those below -13.8, and above 15 they are clipped."""
FORMS = ("temperature", "shift", "conditional")


@dataclass(frozen=True, eq=False)
class Learned:
    """What was learned from some cases: the map in use, that of each form, and what `predict` knows of Dice."""

    map: LogOddsMap
    form: str
    maps: dict[str, LogOddsMap]
    quality: QualityOfMap


@dataclass(frozen=True, eq=False)
class Cases:
    """Records by case, in order, each with a sample, and the patient of each case."""

    records: dict[str, CaseRecord]
    patient: Mapping[str, str]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a case, as the network left it."""
        return table(self.records.values()).set_index("case", drop=False).rename_axis(None)

    @cached_property
    def voxels(self) -> dict[str, Voxels]:
        """By case, on the grid."""
        return {name: on_grid(record.sample.voxels()) for name, record in self.records.items() if record.sample}

    def of(self, patients: Iterable[str]) -> list[str]:
        """The cases of some patients."""
        wanted = set(patients)
        return [name for name in self.records if self.patient[name] in wanted]

    def patients(self, names: Iterable[str] | None = None) -> list[str]:
        """The patient of each of some cases, or of all."""
        return [self.patient[name] for name in (self.records if names is None else names)]

    def under(self, calibration: LogOddsMap, names: Sequence[str]) -> pd.DataFrame:
        """Rows of the table with predicted Dice and volume under a map, as `case.measure.under` estimates them."""
        voxels = [self.voxels[name] for name in names]
        odds = torch.cat([each.log_odds for each in voxels], 1).double()
        label = torch.cat([each.label for each in voxels])
        change = (calibration.to_probabilities(odds, label) - probabilities(odds, False))[1].numpy()
        change *= torch.cat([each.all_weights for each in voxels]).numpy()
        case = np.repeat(np.arange(len(names)), [each.log_odds.shape[1] for each in voxels])
        every, inside = (np.bincount(case, values, len(names)) for values in (change, change * (label == 1).numpy()))
        rows = self.table.loc[list(names)]
        expected, chosen = (rows[name].to_numpy() / rows.voxel_volume for name in ("predicted_volume", "volume"))
        common = np.where(chosen > 0, rows.predicted_dice * (expected + chosen) / 2, 0) + inside
        expected, common = np.maximum(expected + every, 0), np.clip(common, 0, chosen)
        dice = np.where(chosen > 0, 2 * common / (expected + chosen), np.nan)
        return rows.assign(predicted_dice=dice, predicted_volume=expected * rows.voxel_volume)

    def learn(self, names: Sequence[str]) -> Learned:
        """All that `calibrate` learns from these cases; nothing of the others is looked at."""
        patients = self.patients(names)
        parts = assign_cross_fit_folds(patients)
        tried = quick_cross_fit([self.voxels[name] for name in names], parts, patients)
        chosen = choose(tried)
        seen = [
            self.under(fitted, [name for name, its in zip(names, parts) if its == part])
            for part, fitted in chosen.fold_maps.items()
        ]
        after, of_part = pd.concat(seen).loc[list(names)].reset_index(drop=True), dict(zip(names, parts))
        learned = learn(after, self.patient, of_part, as_deployed=False)
        presence, unit = learn_presence(after, self.patient), str(after.unit.iloc[0])
        of_map = MapQuality(unit=unit, learned=learned, presence=presence)
        structures = dict(zip(after["key"], after["name"]))
        record = CalibrationMap.of_maps({chosen.score.form: chosen.map}, chosen.score.form, structures)
        quality = QualityOfMap(path=Path(), record=record, of_map=of_map, learned=learned)  # of no file
        return Learned(chosen.map, chosen.score.form, {form: choose(tried, form).map for form in FORMS}, quality)

    def judge(self, names: Sequence[str], learned: Learned, aims: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
        """A row a case as `predict` would show it, and a column for each aim: whether it is flagged (NaN: refused).

        Args:
            names: Of the cases, of patients that nothing was learned from.
            learned: What was learned.
            aims: By column, `bad`, `find` and `miss`.
        """
        rows = completed(self.under(learned.map, names), learned.quality)
        network, structures = self.table.loc[list(names)], dict(zip(rows["key"], rows["name"]))
        rows = rows.assign(
            patient=self.patients(names), network_dice=network.predicted_dice, network_entropy=network.entropy
        )
        scores = learned.quality.learned.scores
        for column, aim in aims.items():
            bad = dict.fromkeys(structures, aim["bad"])
            try:
                flags = Flags.of(scores, bad, structures, aim.get("find"), aim.get("miss"))
                limit = -np.inf if flags.threshold is None else flags.threshold
                rows[column] = (~(rows.score - aim["bad"] > limit)).astype(float)  # without a score: flagged
            except UserError:  # too few patients
                rows[column] = np.nan
        return rows


def quick_cross_fit(cases: Sequence[Voxels], parts: Sequence[str], patients: Sequence[str]) -> list[CrossFit]:
    """`cross_fit` of cases on the grid; each fit sees the voxels of its cases as those of one, which is the same."""
    kept: dict[int, Voxels] = {}

    def pool(among: Sequence[Voxels]) -> list[Voxels]:
        key = hash(tuple(map(id, among)))
        return [kept.setdefault(key, pooled(among)) if key not in kept else kept[key]]

    quick = {
        "fit_affine": lambda among, form: fitting.fit_affine(pool(among), form),
        "fit_conditional": lambda among, *more: fitting.fit_conditional(pool(among), *more),
    }
    with patch.multiple(crossfit, **quick):
        return crossfit.cross_fit(cases, parts, groups=patients)


def pooled(cases: Sequence[Voxels]) -> Voxels:
    """The voxels of cases as those of one, in which each case has the same weight."""
    weights = torch.cat([each.all_weights / each.all_weights.sum() for each in cases])
    label, target = (torch.cat([getattr(each, name) for each in cases]) for name in ("label", "target"))
    return on_grid(Voxels(torch.cat([each.log_odds for each in cases], 1), label, target, weights))


def on_grid(voxels: Voxels) -> Voxels:
    """The voxels with their log-odds on the grid, equal ones as one with their weight."""
    place = ((voxels.log_odds[0].clamp(-GRID, GRID) + GRID) / STEP).round().long()
    key = (2 * place + voxels.label) * 2 + voxels.target
    weights = torch.bincount(key, voxels.all_weights)
    key = torch.nonzero(torch.bincount(key)).ravel()
    odds = (key // 4 * STEP - GRID).float()
    return Voxels(odds[None], key // 2 % 2, key % 2, weights[key])


@dataclass(frozen=True)
class WithVotes(Work):
    """Measures a case, and counts its voxels by log-odds, label and raters who marked them.

    Attributes:
        votes: Folder of images of how many of the four raters marked a voxel.
        counts: Folder of the (grid, label, votes) counts, CASE.npz.
    """

    votes: Path = Path()
    counts: Path = Path()

    def __call__(self, case: Case) -> CaseRecord:
        votes = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(self.votes / f"{case.name}.nii.gz")).astype(int)
        if votes.shape != case.segmentation.shape or not np.array_equal(votes >= 2, case.truth == 1):
            raise UserError(f"{case.name}: the votes are not those of its truth.")
        odds = log_odds(case.probabilities.whole())[0].numpy()
        place = np.rint((np.clip(odds, -GRID, GRID) + GRID) / STEP).astype(int)
        shape = (round(2 * GRID / STEP) + 1, 2, 5)
        index = np.ravel_multi_index((place, case.segmentation.astype(int), votes), shape)
        counts = np.bincount(index.ravel(), minlength=np.prod(shape)).reshape(shape)
        self.counts.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(self.counts / f"{case.name}.npz", counts=counts)
        return super().__call__(case)


def measure_folds(model: Path, work: Work, records: Path) -> None:
    """Records of the validation cases of the folds that are trained, from nnU-Net's saved probabilities."""
    for fold, folder in find_fold_folders(model).items():
        measure(folder, work, records, f"fold {fold}")


def measure_outer(model: Path, work: Work, records: Path, images: Path, truth: Path, cases: Sequence[str]) -> None:
    """Records of cases in no fold, predicted by the ensemble of all five folds."""
    network = {"device": "cpu", "step_size": 0.5, "mirroring": True}
    source = Images.find(TrainedModel.open(model), network, images, references=truth)
    source.scans = {case: source.scans[case] for case in source.names if case in set(cases)}
    measure(source, work, records, "cases in no fold")


def measure(source: Source, work: Work, records: Path, title: str) -> None:
    """Records of a source's cases; UserError with what is wrong with some."""
    records.mkdir(parents=True, exist_ok=True)
    problems = [
        f"{name}: {record}"
        for name, record in records_of(source, work, records, title=title)
        if not isinstance(record, CaseRecord)
    ]
    if problems:
        raise UserError("\n".join(problems))


def read_cases(records: Path, patient: Mapping[str, str]) -> Cases:
    """The records of a folder."""
    return Cases({path.stem: read_record(path) for path in sorted(records.glob("*.npz"))}, patient)
