"""Reads and preprocesses a case as nnUNetv2_predict does, and keeps what pages and checks need of its image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.case.record import CaseRecord
from nnunet_nacl.dicom.series import image_of_series
from nnunet_nacl.errors import UserError
from nnunet_nacl.images import quiet
from nnunet_nacl.nnunet.image_files import channels_apart, read_images
from nnunet_nacl.nnunet.input_cases import InputCase
from nnunet_nacl.nnunet.pipeline import side_by_side
from nnunet_nacl.nnunet.profile import profile, profile_names
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.numbers.overlap import bounding_box
from nnunet_nacl.numbers.unlike import CalibrationProfiles
from nnunet_nacl.numbers.voxel_uncertainty import Disagreement

_MOST_TIMES = 30  # the voxels of the training's largest image: the header of a larger one will be wrong
_MOST_VOXELS = 2**40  # 4 TiB a channel
_LARGEST_INTENSITY = 1e14  # the squares of 10^10 such voxels, of which nnU-Net takes the variance, are float32's limit


def for_pictures(channel: np.ndarray) -> np.ndarray:
    """A channel of an image in half precision, scaled to [0, 1]."""
    low, high = float(channel.min()), float(channel.max())
    return (np.subtract(channel, low, dtype=np.float32, casting="unsafe") / np.float32(high - low)).astype(np.float16)


@dataclass(frozen=True, eq=False)
class GridCase:
    """A case on the network's grid, and what of its image is needed later.

    Attributes:
        case: Name.
        values: (C, *grid), axes in nnU-Net's transposed order: what the network is given, float32 (for a cascade the
            stage before one-hot on top), then what it answers, float16 logits.
        properties: nnU-Net's, of reading and preprocessing.
        image: Its first channel as it was read, axes in the reader's order, see :func:`for_pictures`.
        channels: (C, *grid) float16, what the network is given but for a stage before.
        differences: How its channels lie apart, and its spacing and size differ from the training's, in words.
        disagreement: Of the folds that answered, its map in half precision; None with one.
    """

    case: str
    values: np.ndarray
    properties: dict[str, Any]
    image: np.ndarray | None
    channels: np.ndarray
    differences: tuple[str, ...]
    disagreement: Disagreement | None = None


def read_and_preprocess(model: TrainedModel, case: InputCase, *, any_size: bool = False) -> GridCase:
    """Read a case from its files; UserError, which names one, if it cannot be predicted."""
    if case.orientation:
        with image_of_series(case.images, case.orientation) as path:
            image, properties = read_images(model.opened.reader, [path])
    else:
        image, properties = read_images(model.opened.reader, case.images)
    previous, place = None, Geometry.of(properties)
    if case.previous is not None:
        previous = model.opened.read_labels(case.previous, like=("image", place, image.shape[1:]))[0]
    made = preprocess(model, case.case, image, properties, previous, source=case.images, any_size=any_size)
    comparable = len(case.images) > 1 and not case.orientation and place.affine is not None
    apart = channels_apart(case.images) if comparable else ""
    return replace(made, differences=(apart, *made.differences)) if apart else made


def preprocess(
    model: TrainedModel,
    case: str,
    image: np.ndarray,
    properties: dict[str, Any],
    previous: np.ndarray | None,
    *,
    source: Sequence[object],
    any_size: bool = False,
) -> GridCase:
    """Preprocess by nnU-Net's own preprocessor.

    Args:
        model: The model.
        case: Name.
        image: (C, *spatial) as nnU-Net's reader returned it.
        properties: That the reader returned beside it; they stay as they are.
        previous: (*spatial) label map of the stage before, for a cascade.
        source: File of each channel, for messages.
        any_size: Take an image that would have more than 30 times as many voxels on the network's grid as the largest
            of the training, most often by a wrong header, and would take hours.

    Raises:
        UserError: The network cannot take the image.
    """
    configuration, plans = model.configuration_manager, model.plans_manager
    _check_image(model, image, properties, source)
    _check_size(model, image, properties["spacing"], source[0], any_size=any_size)
    with quiet():
        preprocessor = configuration.preprocessor_class(verbose=False)
        before = None if previous is None else previous[None]
        data, seg, after = preprocessor.run_case_npy(
            image, before, dict(properties), plans, configuration, model.opened.dataset_json
        )
    channels = data.astype(np.float16)
    if previous is not None:
        data = with_stage_before(model, data, seg[0])
    shape = [after["shape_after_cropping_and_before_resampling"][axis] for axis in plans.transpose_backward]
    differences = tuple(model.training.compare(Geometry.of(after), shape))
    return GridCase(case, np.ascontiguousarray(data, np.float32), after, for_pictures(image[0]), channels, differences)


def with_stage_before(model: TrainedModel, data: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(C + K, *grid) what a cascade's network is given: channels, and the (*grid) label map before one-hot."""
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

    labels = model.opened.label_manager.foreground_labels
    return np.vstack((data, convert_labelmap_to_one_hot(before, labels, data.dtype)))


def preprocessed_cases(model: TrainedModel, cases: Sequence[str]) -> Any:
    """nnU-Net's data set of the preprocessed cases of a model, as its validation reads them; UserError without them."""
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    root = os.environ.get("nnUNet_preprocessed")
    if not root:
        raise UserError("the environment variable nnUNet_preprocessed is not set; the cases to predict lie there.")
    plans, before = model.plans_manager, None
    preprocessed = str(Path(root) / plans.dataset_name / model.configuration_manager.data_identifier)
    if stage := model.previous_stage:
        trainer, _, name = model.folder.resolve().name.split("__")
        before = str(model.folder.parent / f"{trainer}__{plans.plans_name}__{stage}" / "predicted_next_stage" / name)
        if not os.path.isdir(before):
            raise UserError(f"{before}: no such folder; train {stage} first, whose predictions this stage is given.")
    try:
        with quiet():
            kind = infer_dataset_class(preprocessed)
            return kind(preprocessed, list(cases), folder_with_segs_from_previous_stage=before)
    except Exception:  # assertions on what is in the folder
        raise UserError(
            f"{preprocessed}: no preprocessed cases; run nnUNetv2_preprocess for this configuration."
        ) from None


def read_preprocessed(data_set: Any, case: str) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """(C, *grid) image of a preprocessed case, segmentation of the stage before, and properties; UserError."""
    try:
        data, _, before, properties = data_set.load_case(case)
        return np.array(data[:]), None if before is None else before[:], properties
    except Exception as error:  # blosc2, NumPy and pickle raise anything
        raise UserError(f"{case}: its preprocessed image cannot be read ({error}).") from None


def learn_profiles(
    records: Sequence[CaseRecord], patients: Sequence[str], model: TrainedModel, *, num_processes: int = 1
) -> CalibrationProfiles:
    """What calibration scans look like. Records of predicted images tell; of others the preprocessed images are read.

    Args:
        records: Of the scans.
        patients: To whom each belongs.
        model: That predicted them.
        num_processes: Scans at the same time.

    Raises:
        UserError: An image or a segmentation is gone or cannot be read.
    """
    from tqdm import tqdm

    profiles = {record.case: np.array(record.profile, float) for record in records}
    segmentations = {record.case: record.key["files"].get("segmentation") for record in records}
    if todo := [case for case, known in profiles.items() if not len(known)]:
        paths = {case: Path(file["path"]) for case, file in segmentations.items() if file}
        look = partial(_profile, model, preprocessed_cases(model, todo), paths)
        outcomes = side_by_side(look, todo, num_processes, partial(_path, paths))
        for case, outcome in tqdm(outcomes, "look at", len(todo), unit="scan", leave=False):
            if isinstance(outcome, str):
                raise UserError(outcome)
            profiles[case] = outcome
    names = profile_names(model.labels, model.opened.channel_names)
    return CalibrationProfiles.learn(names, np.stack([profiles[record.case] for record in records]), patients)


def _path(paths: Mapping[str, Path], case: str) -> Path:
    return paths.get(case, Path(case))


def _profile(model: TrainedModel, data_set: Any, paths: Mapping[str, Path], case: str) -> np.ndarray:
    if case not in paths:
        raise UserError(f"{case}: it has no segmentation beside its probabilities.")
    data, _, properties = read_preprocessed(data_set, case)
    image = np.asarray(data[: model.opened.num_channels], np.float16)
    segmentation = model.opened.read_labels(paths[case])[0]
    return profile(image, segmentation, model.labels, properties, model.plans_manager.transpose_forward)


def _check_image(model: TrainedModel, image: np.ndarray, properties: dict[str, Any], source: Sequence[object]) -> None:
    """UserError for an image (C, *spatial) that the network cannot take."""
    num_channels = model.opened.num_channels
    if image.ndim != 4 or len(image) != num_channels:
        raise UserError(
            f"{source[0]}: an image of shape {image.shape}, (channels, z, y, x), but the model takes {num_channels} "
            "channels; give these alone, in one file or one for each, CASE_0000, CASE_0001, ..."
        )
    spacing = np.asarray(properties["spacing"], dtype=float)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise UserError(f"{source[0]}: the voxel spacing is {spacing.tolist()}; correct the image's header.")
    is_3d = len(model.configuration_manager.patch_size) == 3
    if is_3d and image.shape[1] == 1 and Geometry.of(properties).is_2d:
        raise UserError(f"{source[0]}: a 2D image, but the model is 3D; give volumes, or use a 2D configuration.")
    for i, channel in enumerate(image):
        path, low, high = source[min(i, len(source) - 1)], channel.min(), channel.max()
        if not np.isfinite(low) or not np.isfinite(high):  # NaN is passed on by both
            why = "holds voxels that are NaN or infinite; replace them, or export the scan again"
            raise UserError(f"{path}: it {why}.")
        if low == high:
            raise UserError(f"{path}: all voxels have the value {low:g}; export the scan again.")
        if max(-low, high) > _LARGEST_INTENSITY:
            why = "whose squares overflow when nnU-Net normalises them; export the scan again"
            raise UserError(f"{path}: its intensities reach from {low:.2g} to {high:.2g}, {why}.")


def _check_size(
    model: TrainedModel, image: np.ndarray, spacing_mm: Sequence[float], source: object, *, any_size: bool
) -> None:
    """UserError, before hours of resampling, for an image that is far larger than any of the training, or too small."""

    def steps(values: Any) -> str:
        return " x ".join(f"{value:.4g}" for value in values)

    training, box = model.training, bounding_box(np.any(image, axis=0))  # nnU-Net crops to this box
    shape = model.grid_shape(spacing_mm, [part.stop - part.start for part in box or ()])
    its = f"{source}: its spacing of {steps(spacing_mm)} (z, y, x)"
    if (shape.round() < 1).any():
        grid = model.grid_spacing_mm
        raise UserError(
            f"{its} leaves {steps(shape)} voxels at the network's spacing of {steps(grid[~np.isnan(grid)])}, less "
            "than one along an axis; correct the header."
        )
    voxels = shape.prod()
    largest = model.grid_shape(training.spacings_mm, training.sizes_mm / training.spacings_mm).prod(-1).max(initial=0)
    is_limited = not any_size and largest > 0
    if voxels > (_MOST_TIMES * largest if is_limited else _MOST_VOXELS):
        compared = f"{voxels / largest:.2g} x the training's largest" if largest else "more than any memory holds"
        fix = ", or pass --any_size if it is right" if is_limited else ""
        raise UserError(f"{its} makes {voxels:.2g} voxels for the network, {compared}; correct the header{fix}.")
