"""Records of cases of one structure, and what a group would quickly learn from some of them.

The package fits maps to samples of voxels. With one structure a voxel is its log-odds, the label
that the network chose and the truth, so that those of a case are put together on a grid of log-odds
(`STEP`), with weights: maps are then fitted by the package's own functions to a fiftieth of the
rows, and can be fitted hundreds of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import SimpleITK
import torch

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.calibration.map_parts import MapQuality
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.record import CaseRecord, read_record, table
from nnunet_nacl.estimators import crossfit, fitting
from nnunet_nacl.estimators.crossfit import CrossFit, choose
from nnunet_nacl.estimators.fitting import FORMS
from nnunet_nacl.estimators.flags import Flags
from nnunet_nacl.estimators.learned_quality import learn
from nnunet_nacl.estimators.log_odds import log_odds, probabilities
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.estimators.presence import learn_presence
from nnunet_nacl.estimators.scan_scores import ScanScores
from nnunet_nacl.estimators.voxels import Voxels
from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from nnunet_nacl.nnunet.prediction_folder import find_fold_folders
from nnunet_nacl.nnunet.records import Source, Work, records_of
from nnunet_nacl.nnunet.scans import Images
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.settings import NetworkSettings
from nnunet_nacl.utilities.errors import Failed, UserError
from nnunet_nacl.worklist.judgement import completed

STEP = 0.05
GRID = 20.0
"""Log-odds beyond it are put to it: maps change none below -13.8, and clip them above 15."""
N_RATERS = 4
MARKED_BY = 2
"""Raters who marked a voxel of the truth, at least."""


@dataclass(frozen=True)
class Aim:
    """What flags aim at, as the options of `predict` say it.

    Attributes:
        bad: Dice below which a scan is bad.
        find: Share of the bad scans to be flagged.
        miss: Share of all scans that may be bad and not flagged.
    """

    bad: float
    find: float | None = None
    miss: float | None = None


@dataclass(frozen=True, eq=False)
class Learned:
    """What was learned from some cases.

    Attributes:
        map: In use.
        maps: By form.
        calibrator: What `predict` knows of Dice, volume and presence.
        calibrated: A row for each of the cases, under a map that was fitted without its patient.
    """

    map: LogOddsMap
    maps: dict[str, LogOddsMap]
    calibrator: Calibrator
    calibrated: pd.DataFrame

    @property
    def scores(self) -> ScanScores:
        """Scores of the scans that were learned from, by which flags are chosen."""
        quality = self.calibrator.quality.learned
        if quality is None:
            raise ValueError("nothing was learned of Dice.")
        return quality.scores


@dataclass(frozen=True, eq=False)
class Cases:
    """Cases of one structure.

    Attributes:
        records: By case, in order, each with a sample.
        patient: By case; of other cases, too.
    """

    records: dict[str, CaseRecord]
    patient: Mapping[str, str]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a case, as the network left it."""
        return table(self.records.values()).set_index("case", drop=False).rename_axis(None)

    @cached_property
    def voxels(self) -> dict[str, Voxels]:
        """By case, on the grid."""
        voxels = {}
        for name, record in self.records.items():
            if record.sample:
                voxels[name] = on_grid(record.sample.voxels())
        return voxels

    def of(self, patients: Iterable[str]) -> list[str]:
        """The cases of some patients."""
        wanted = set(patients)
        return [name for name in self.records if self.patient[name] in wanted]

    def patients(self, names: Iterable[str] | None = None) -> list[str]:
        """The patient of each of some cases, or of all."""
        chosen = self.records if names is None else names
        return [self.patient[name] for name in chosen]

    def under(self, calibration: LogOddsMap, names: Sequence[str]) -> pd.DataFrame:
        """Rows of the table with predicted Dice and volume under a map.

        They are estimated as by `under` of the package.
        """
        voxels = [self.voxels[name] for name in names]
        odds = torch.cat([each.log_odds for each in voxels], 1).double()
        label = torch.cat([each.label for each in voxels])
        weight = torch.cat([each.all_weights for each in voxels]).numpy()
        calibrated = calibration.to_probabilities(odds, label)[1]
        change = (calibrated - probabilities(odds, False)[1]).numpy() * weight
        case = np.repeat(np.arange(len(names)), [each.log_odds.shape[1] for each in voxels])
        change_everywhere = np.bincount(case, change, len(names))
        change_inside = np.bincount(case, change * (label == 1).numpy(), len(names))

        rows = self.table.loc[list(names)]
        segmented = rows.volume.to_numpy() / rows.voxel_volume  # voxels
        expected = rows.predicted_volume.to_numpy() / rows.voxel_volume
        shared = np.where(segmented > 0, rows.predicted_dice * (expected + segmented) / 2, 0)
        expected = np.maximum(expected + change_everywhere, 0)
        shared = np.clip(shared + change_inside, 0, segmented)
        dice = np.where(segmented > 0, 2 * shared / (expected + segmented), np.nan)
        return rows.assign(predicted_dice=dice, predicted_volume=expected * rows.voxel_volume)

    def learn(self, names: Sequence[str], prior_map: LogOddsMap | None = None) -> Learned:
        """All that `calibrate` learns from these cases; nothing of the others is looked at.

        Args:
            names: Of the cases, of nine patients at least.
            prior_map: Map of a model that their own is shrunk towards; None: it has none.
        """
        patients = self.patients(names)
        folds = assign_cross_fit_folds(patients)
        voxels = [self.voxels[name] for name in names]
        cross_fits = quick_cross_fit(voxels, folds, patients, prior_map)
        chosen = choose(cross_fits)
        left_out = []
        for fold, fitted in chosen.fold_maps.items():
            cases_of_fold = [name for name, its_fold in zip(names, folds) if its_fold == fold]
            left_out.append(self.under(fitted, cases_of_fold))
        calibrated = pd.concat(left_out).loc[list(names)].reset_index(drop=True)
        learned = learn(calibrated, self.patient, dict(zip(names, folds)), as_deployed=False)
        of_map = MapQuality(
            unit=str(calibrated.unit.iloc[0]),
            learned=learned,
            presence=learn_presence(calibrated, self.patient),
        )
        form = chosen.form
        structures = dict(zip(calibrated["key"], calibrated["name"]))
        calibration_map = CalibrationMap.of_maps(
            {form: chosen.map}, form, structures, quality=of_map
        )
        return Learned(
            map=chosen.map,
            maps={form: choose(cross_fits, form).map for form in FORMS},
            calibrator=Calibrator(calibration_map=calibration_map),  # of no file
            calibrated=calibrated,
        )

    def judge(
        self, names: Sequence[str], learned: Learned, aims: Mapping[str, Aim]
    ) -> pd.DataFrame:
        """A row a case as `predict` would show it, and a column for each aim: whether it is flagged
        (NaN: refused).

        Args:
            names: Of the cases, of patients that nothing was learned from.
            learned: What was learned.
            aims: By column.
        """
        network = self.table.loc[list(names)]
        rows = completed(self.under(learned.map, names), learned.calibrator)
        rows = rows.assign(
            patient=self.patients(names),
            network_dice=network.predicted_dice,
            network_entropy=network.entropy,
        )
        structures = dict(zip(rows["key"], rows["name"]))
        for column, aim in aims.items():
            rows[column] = are_flagged(rows.score - aim.bad, aim, learned, structures)
        return rows


def are_flagged(
    scores: pd.Series, aim: Aim, learned: Learned, structures: Mapping[str, str]
) -> pd.Series | float:
    """1 for each scan that is flagged, 0 for others; NaN where there are too few patients for the
    aim.

    Args:
        scores: Of the scans, less the Dice below which one is bad; NaN for a scan without one,
            which is flagged.
        aim: What the flags aim at.
        learned: What was learned.
        structures: Name by nnU-Net's key.
    """
    bad = dict.fromkeys(structures, aim.bad)
    try:
        flags = Flags.of(learned.scores, bad, structures, aim.find, aim.miss)
    except UserError:  # too few patients: the column says so
        return np.nan
    threshold = -np.inf if flags.threshold is None else flags.threshold
    return (~(scores > threshold)).astype(float)


def quick_cross_fit(
    cases: Sequence[Voxels],
    folds: Sequence[str],
    patients: Sequence[str],
    prior_map: LogOddsMap | None = None,
) -> list[CrossFit]:
    """`cross_fit` of cases on the grid.

    Each fit sees the voxels of its cases as those of one case, which gives the same map.
    """
    with pooled_fits():
        return crossfit.cross_fit(cases, folds, groups=patients, prior_map=prior_map)


@contextmanager
def pooled_fits() -> Iterator[None]:
    """Within it, `cross_fit` puts the voxels of the cases that it fits a map to together."""
    pooled_by_cases: dict[tuple[int, ...], Voxels] = {}

    def pool(cases: Sequence[Voxels]) -> list[Voxels]:
        key = tuple(map(id, cases))  # cross_fit keeps them while it runs
        if key not in pooled_by_cases:
            pooled_by_cases[key] = pooled(cases)
        return [pooled_by_cases[key]]

    def fit_temperature(cases: Sequence[Voxels]) -> LogOddsMap:
        return fitting.fit_temperature(pool(cases))

    def fit_conditional(cases: Sequence[Voxels], prior_map: LogOddsMap, ridge: float) -> LogOddsMap:
        return fitting.fit_conditional(pool(cases), prior_map, ridge)

    with patch.multiple(crossfit, fit_temperature=fit_temperature, fit_conditional=fit_conditional):
        yield


def pooled(cases: Sequence[Voxels]) -> Voxels:
    """The voxels of cases as those of one, in which each case has the same weight."""
    weights = [case.all_weights / case.all_weights.sum() for case in cases]
    together = Voxels(
        log_odds=torch.cat([case.log_odds for case in cases], 1),
        label=torch.cat([case.label for case in cases]),
        target=torch.cat([case.target for case in cases]),
        weights=torch.cat(weights),
    )
    return on_grid(together)


def on_grid(voxels: Voxels) -> Voxels:
    """The voxels with their log-odds on the grid, equal ones as one with their weight.

    Of several structures there is no grid, and the voxels stay as they are.
    """
    if len(voxels.log_odds) > 1:
        return voxels
    place = grid_places(voxels.log_odds[0])
    number = (2 * place + voxels.label) * 2 + voxels.target  # equal voxels have the same
    weight_of_number = torch.bincount(number, voxels.all_weights)
    present = torch.nonzero(torch.bincount(number)).ravel()
    odds = (present // 4 * STEP - GRID).float()
    return Voxels(odds[None], present // 2 % 2, present % 2, weight_of_number[present])


def grid_places(odds: torch.Tensor) -> torch.Tensor:
    """Number of the point of the grid, from 0, that is next to each of the log-odds."""
    return ((odds.clamp(-GRID, GRID) + GRID) / STEP).round().long()


@dataclass(frozen=True)
class WithVotes(Work):
    """Measures a case, and counts its voxels by log-odds, label and raters who marked them.

    Attributes:
        votes: Folder of images of how many of the four raters marked a voxel.
        counts: Folder of the (grid, label, votes) counts, CASE.npz.
    """

    votes: Path = Path()
    counts: Path = Path()

    def make_record(self, case: Case) -> CaseRecord:
        """The record of a case, once its votes are counted; UserError where these are not of its
        truth."""
        image = SimpleITK.ReadImage(self.votes / f"{case.name}.nii.gz")
        votes = SimpleITK.GetArrayFromImage(image).astype(int)
        if votes.shape != case.segmentation.shape or not np.array_equal(
            votes >= MARKED_BY, case.truth == 1
        ):
            raise UserError(f"{case.name}: the votes are not those of its truth.")
        odds = log_odds(case.probabilities.whole())[0].numpy()
        place = np.rint((np.clip(odds, -GRID, GRID) + GRID) / STEP).astype(int)
        shape = (round(2 * GRID / STEP) + 1, 2, N_RATERS + 1)
        index = np.ravel_multi_index((place, case.segmentation.astype(int), votes), shape)
        counts = np.bincount(index.ravel(), minlength=np.prod(shape)).reshape(shape)
        self.counts.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(self.counts / f"{case.name}.npz", counts=counts)
        return super().make_record(case)


def measure_folds(model: Path, work: Work, records: Path) -> None:
    """Record the validation cases of all trained folds, from nnU-Net's saved probabilities."""
    for fold, folder in find_fold_folders(model).items():
        measure(folder, work, records, f"fold {fold}")


def measure_images(
    model: TrainedModel,
    work: Work,
    records: Path,
    images: Path,
    truth: Path,
    cases: Sequence[str] | None = None,
) -> None:
    """Record the images of a folder, or some of them, predicted by the ensemble of all folds."""
    settings = NetworkSettings(device="cpu")
    source = Images.find(model, settings, images, references=truth)
    if cases is not None:
        wanted = set(cases)
        source.scans = {case: source.scans[case] for case in source.names if case in wanted}
    measure(source, work, records, records.name)


def measure(
    source: Source,
    work: Work,
    records: Path,
    title: str,
    names: Sequence[str] | None = None,
) -> None:
    """Record a source's cases, or some of them; UserError with what is wrong with some."""
    records.mkdir(parents=True, exist_ok=True)
    problems = []
    for name, outcome in records_of(source, work, records, names=names, title=title):
        if isinstance(outcome, Failed):
            problems.append(f"{name}: {outcome.reason}")
    if problems:
        raise UserError("\n".join(problems))


def read_cases(records: Path, patient: Mapping[str, str]) -> Cases:
    """The records of a folder."""
    paths = sorted(records.glob("*.npz"))
    return Cases({path.stem: read_record(path) for path in paths}, patient)
