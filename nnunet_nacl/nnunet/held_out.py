"""`HeldOut`: records of cases that a network was not trained on, such as predictions in folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_nacl.cases.case import EvaluationSettings, InferenceSettings, Labels
from nnunet_nacl.cases.record import CaseRecord, check_records, find_record
from nnunet_nacl.estimators.unlike import CalibrationProfiles
from nnunet_nacl.nnunet.folders import records_in
from nnunet_nacl.nnunet.image_files import RERUN
from nnunet_nacl.nnunet.pipeline import side_by_side
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.preprocessing import preprocessed_cases
from nnunet_nacl.nnunet.profile import profile, profile_names
from nnunet_nacl.nnunet.records import Work, records_of
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.utilities.errors import Failed, UserError, list_problems
from nnunet_nacl.utilities.json_files import decode

if TYPE_CHECKING:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

NNUNETS_OWN: InferenceSettings = {"step_size": 0.5, "mirroring": True}
"""How nnU-Net predicts validation cases."""


@dataclass
class HeldOut:
    """Cases that the network was not trained on.

    Attributes:
        labels: Their structures.
        settings: What was measured.
        records: By case, in order.
        fold: Of each case; empty where it is of a folder of predictions.
        problems: By name, why there is no record of other cases, or of a whole fold.
        folders: By fold, where its predictions lie.
    """

    labels: Labels
    settings: EvaluationSettings
    records: dict[str, CaseRecord] = field(default_factory=dict)
    fold: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    folders: dict[str, PredictionFolder] = field(default_factory=dict)

    def add(
        self,
        fold: str,
        outcomes: Mapping[str, CaseRecord | Failed],
        folder: PredictionFolder | None = None,
    ) -> None:
        """Take the records of a fold, and the folder of its predictions.

        Raises:
            UserError: A case lies in another fold, too.
        """
        if folder is not None:
            self.folders[fold] = folder
        for name, outcome in sorted(outcomes.items()):
            if isinstance(outcome, Failed):
                self.problems[name] = outcome.reason
                continue
            if name in self.records:
                raise UserError(
                    f"case {name} lies in more than one of the folds {self.fold[name]} and {fold};"
                    " fold_all and leftover predictions cannot be pooled with folds that hold the"
                    " same cases."
                )
            self.records[name] = outcome
            self.fold[name] = fold

    def checked(self, folder: Path) -> HeldOut:
        """Itself; UserError, with all problems, where there is no record."""
        if not self.records:
            raise UserError(f"{folder}: no case could be evaluated.{list_problems(self.problems)}")
        return self


def inference_of(records: Iterable[CaseRecord]) -> InferenceSettings:
    """``step_size`` and ``mirroring`` of cases: nnU-Net's own, unless a record says otherwise."""
    for record in records:
        if record.made_by:
            return {
                "step_size": record.made_by.get("step_size", NNUNETS_OWN["step_size"]),
                "mirroring": record.made_by.get("mirroring", NNUNETS_OWN["mirroring"]),
            }
    return NNUNETS_OWN


def kept_settings(folder: Path) -> EvaluationSettings | None:
    """How an earlier run measured the cases of a folder of predictions.

    The first record that can be read tells it; None without any.
    """
    records = records_in(folder)
    for path in sorted(records.glob("*.npz")):
        record = find_record(records, path.stem)
        if record is not None:
            settings = record.key["settings"].get("measured")
            return decode(EvaluationSettings, settings, records, fix="delete this folder")
    return None


def measure_folders(
    folders: Mapping[str, PredictionFolder],
    work: Work,
    *,
    jobs: int = 1,
    chill: bool = True,
    title: str = "",
) -> HeldOut:
    """The records of folders of predictions, of one or of several folds.

    They lie in ``records`` in each folder, or apart (``Work.apart``), as those under a map, so that
    they do not replace what was measured of the predictions as they are. What is wrong with one of
    several folders costs only itself.

    Args:
        folders: By fold; a single one may have the empty name.
        work: What is measured.
        jobs: Cases at the same time.
        chill: As nnU-Net's option of this name: whether expected cases that have no prediction
            are no problems.
        title: Of the progress bars; empty shows none.

    Raises:
        UserError: No case could be measured, or one lies in two folds.
    """
    first_folder = next(iter(folders.values()))
    held_out = HeldOut(first_folder.labels, work.settings, folders=dict(folders))
    _check_records(folders.values(), work)
    for fold, folder in folders.items():
        title_of_fold = f"{title}, fold {fold}" if title and fold else title
        try:
            outcomes = _measure_folder(folder, work, jobs, title_of_fold)
        except UserError as error:
            if len(folders) == 1:
                raise
            held_out.problems[f"fold {fold}"] = error.message
            continue
        problems = dict(folder.problems)
        if not chill:
            problems |= folder.missing
        not_measured = {case: Failed(case, reason) for case, reason in problems.items()}
        held_out.add(fold, not_measured | outcomes)
    return held_out.checked(first_folder.folder)


def _measure_folder(
    folder: PredictionFolder, work: Work, jobs: int, title: str
) -> dict[str, CaseRecord | Failed]:
    """The records of a folder; UserError, once for all cases, where it has no probabilities."""
    records = work.records_beside(folder.records)
    if not any(records.glob("*.npz")) and not any(folder.folder.glob("*.npz")):
        raise UserError(
            f"{folder.folder}: its predictions have no probabilities (there is no *.npz); {RERUN}."
        )
    return dict(records_of(folder, work, records, jobs=jobs, title=title))


def _check_records(folders: Iterable[PredictionFolder], work: Work) -> None:
    """UserError, before any work, where a record would replace a file that is no record."""
    for folder in folders:
        try:
            names = folder.names
        except UserError:  # it has no cases, which is said when its turn comes
            continue
        check_records(work.records_beside(folder.records), names)


def learn_profiles(
    records: Sequence[CaseRecord],
    patients: Sequence[str],
    model: TrainedModel,
    *,
    num_processes: int = 1,
) -> CalibrationProfiles:
    """What calibration scans look like.

    Args:
        records: Of the scans. Where one has no profile, this is made from nnU-Net's preprocessed
            image and the segmentation that the record names.
        patients: Of each record.
        model: Whose calibration scans they are.
        num_processes: How many preprocessed images are looked at at the same time.

    Raises:
        UserError: A preprocessed image is missing or cannot be read.
    """
    from tqdm import tqdm

    profiles = {record.name: np.array(record.profile, float) for record in records}
    missing = [record for record in records if not record.profile]
    if missing:
        cases = [record.name for record in missing]
        segmentations = {record.name: _segmentation_of(record) for record in missing}
        find_profile = partial(_profile, model, preprocessed_cases(model, cases), segmentations)
        outcomes = side_by_side(find_profile, cases, num_processes, segmentations.__getitem__)
        for case, outcome in tqdm(outcomes, "reading scans", len(cases), unit="scan", leave=False):
            if isinstance(outcome, Failed):
                raise UserError(outcome.reason)
            profiles[case] = outcome
    names = profile_names(model.labels, model.dataset.channel_names)
    return CalibrationProfiles.learn(
        names, np.stack([profiles[record.name] for record in records]), patients
    )


def _segmentation_of(record: CaseRecord) -> Path:
    """The file of a case's segmentation."""
    file = record.key["files"].get("segmentation")
    if file is None:
        raise UserError(f"{record.name}: its record names no segmentation; measure it again.")
    return Path(file["path"])


def _profile(
    model: TrainedModel,
    data_set: nnUNetBaseDataset,
    segmentations: Mapping[str, Path],
    case: str,
    nothing: None,
) -> np.ndarray:
    """The profile of a case; ``nothing`` is what a step before would give, see `side_by_side`."""
    data, _, _, properties = data_set.load_case(case)
    image = np.asarray(data[:], np.float16)[: len(model.dataset.channel_names)]
    segmentation, _ = model.dataset.read_labels(segmentations[case])
    return profile(
        image, segmentation, model.labels, properties, model.plans_manager.transpose_forward
    )
