"""Learns what the scans look like that a model was calibrated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.estimators.unlike import CalibrationProfiles
from nnunet_nacl.nnunet.pipeline import side_by_side
from nnunet_nacl.nnunet.preprocessing import preprocessed_cases
from nnunet_nacl.nnunet.profile import profile, profile_names
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.utilities.errors import Failed, UserError

if TYPE_CHECKING:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset


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

    profiles = {record.case: np.array(record.profile, float) for record in records}
    missing = [record for record in records if not record.profile]
    if missing:
        cases = [record.case for record in missing]
        segmentations = {record.case: _segmentation_of(record) for record in missing}
        find_profile = partial(_profile, model, preprocessed_cases(model, cases), segmentations)
        outcomes = side_by_side(find_profile, cases, num_processes, segmentations.__getitem__)
        for case, outcome in tqdm(outcomes, "reading scans", len(cases), unit="scan", leave=False):
            if isinstance(outcome, Failed):
                raise UserError(outcome.reason)
            profiles[case] = outcome
    names = profile_names(model.labels, model.dataset.channel_names)
    return CalibrationProfiles.learn(
        names, np.stack([profiles[record.case] for record in records]), patients
    )


def _segmentation_of(record: CaseRecord) -> Path:
    """The file of a case's segmentation."""
    file = record.key["files"].get("segmentation")
    if file is None:
        raise UserError(f"{record.case}: its record names no segmentation; measure it again.")
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
