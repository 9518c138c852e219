"""What the calibration scans look like: each preprocessed image is read once, other images are preprocessed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.case import CaseFiles
from nnunet_nacl.errors import UserError
from nnunet_nacl.nnunet.input_cases import InputCase, find_input_cases
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.preprocessed_case import preprocessed_cases, read_and_preprocess
from nnunet_nacl.nnunet.profile import profile, profile_names
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.numbers.unlike import CalibrationProfiles
from nnunet_nacl.runs.side_by_side import each_case

Grid = tuple[np.ndarray, Mapping[str, Any]]
"""An image on the network's grid, and nnU-Net's properties."""


def learn_profiles(
    folder: PredictionFolder,
    cases: Sequence[CaseFiles],
    patients: Sequence[str],
    model: TrainedModel,
    images: Path | None = None,
    *,
    num_processes: int = 1,
) -> CalibrationProfiles:
    """Read the calibration scans, which a bar on stderr shows.

    Args:
        folder: Of one fold, whose labels and reader all share.
        cases: The scans, with their segmentations.
        patients: To whom each belongs.
        model: Whose preprocessed validation cases these are.
        images: Or a folder of other images that they are.
        num_processes: Scans at the same time.

    Raises:
        UserError: An image or a segmentation is gone or cannot be read.
    """
    from tqdm import tqdm

    if images is None:
        data_set = preprocessed_cases(model, [case.case for case in cases])
        read: Callable[[CaseFiles], Grid] = partial(_read_preprocessed, data_set)
    else:
        inputs = {case.case: case for case in find_input_cases(images, model.opened)[0]}
        read = partial(_preprocess, model, inputs)
    work, rows = partial(_profile, folder, model.plans_manager.transpose_forward, read), {}
    for case, outcome in tqdm(each_case(work, cases, num_processes), "look at", len(cases), unit="scan", leave=False):
        if isinstance(outcome, str):
            raise UserError(outcome)
        rows[case.case] = outcome
    names = profile_names(folder.labels, folder.channel_names)
    return CalibrationProfiles.learn(names, np.stack([rows[case.case] for case in cases]), patients)


def _profile(
    folder: PredictionFolder, transpose: Sequence[int], read: Callable[[CaseFiles], Grid], case: CaseFiles
) -> np.ndarray:
    if case.segmentation is None:
        raise UserError(f"{case.path}: it has no segmentation beside it.")
    image, properties = read(case)
    channels = np.asarray(image[: folder.num_channels], np.float16)
    return profile(channels, folder.read_labels(case.segmentation)[0], folder.labels, properties, transpose)


def _read_preprocessed(data_set: Any, case: CaseFiles) -> Grid:
    try:
        data, _, _, properties = data_set.load_case(case.case)
        return data[:], properties
    except Exception as error:  # blosc2, NumPy and pickle raise anything
        raise UserError(f"{case.case}: its preprocessed image cannot be read ({error}).") from None


def _preprocess(model: TrainedModel, inputs: Mapping[str, InputCase], case: CaseFiles) -> Grid:
    if case.case not in inputs:
        raise UserError(f"{case.case}: its image is gone.")
    prepared = read_and_preprocess(model, inputs[case.case], any_size=True)
    return prepared.values, prepared.properties
