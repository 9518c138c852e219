"""Preprocesses cases as nnUNetv2_predict does, and checks that a network can take an image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.metrics.grid import bounding_box
from nnunet_nacl.metrics.voxel_uncertainty import Disagreement
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.images import quiet

if TYPE_CHECKING:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

_MOST_TIMES = 30
"""How many times an image may have the volume of the training's largest, and its voxels may be as
long or as short as the training's; beyond that its header is held to be wrong."""


def for_pictures(channel: np.ndarray) -> np.ndarray:
    """A channel of an image in half precision, scaled to [0, 1]."""
    low = float(channel.min())
    high = float(channel.max())
    above_low = np.subtract(channel, low, dtype=np.float32, casting="unsafe")
    return (above_low / np.float32(high - low)).astype(np.float16)


@dataclass(frozen=True, eq=False)
class GridCase:
    """What of a preprocessed case is needed until its logits are exported.

    Arrays on the network's grid have their axes in nnU-Net's transposed order.

    Attributes:
        name: Of the case.
        properties: nnU-Net's, of reading and preprocessing.
        image: First channel as it was read, see :func:`for_pictures`.
        channels: (C, *grid) float16, what the network is given but for a stage before.
        differences: How channels lie apart, and spacing and size differ from the training's, in
            words.
    """

    name: str
    properties: dict[str, Any]
    image: np.ndarray | None
    channels: np.ndarray
    differences: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Preprocessed:
    """A case, and the (C, *grid) float32 ``data`` that the network is given."""

    case: GridCase
    data: np.ndarray


@dataclass(frozen=True, eq=False)
class Logits:
    """A case, and what the networks answer.

    Attributes:
        case: The case.
        values: (C, *grid) float16, the average of the folds.
        disagreement: Of the folds, its map in half precision; None with one.
    """

    case: GridCase
    values: np.ndarray
    disagreement: Disagreement | None = None


def preprocess(
    model: TrainedModel,
    case: str,
    image: np.ndarray,
    properties: dict[str, Any],
    previous: np.ndarray | None,
    *,
    source: Sequence[object],
    any_size: bool = False,
) -> Preprocessed:
    """Preprocess by nnU-Net's own preprocessor.

    Args:
        model: Whose networks will be given the case.
        case: Its name.
        image: (C, *spatial), as nnU-Net's reader returned it.
        properties: What that reader said of it.
        previous: (*spatial) label map of the stage before, for a cascade; else None.
        source: File of each channel, for messages.
        any_size: Allow an image of more than 30 times the volume of the training's largest, and
            voxels 30 times as long or short as the training's: mostly a header is wrong then.

    Raises:
        UserError: The network cannot take the image.
    """
    _check_image(model, image, properties, source)
    if not any_size:
        _check_volume(model, image, properties["spacing"], source[0])
        _check_spacing(model, Geometry.of(properties), image.shape[1:], source[0])
    with quiet():
        preprocessor = model.configuration_manager.preprocessor_class(verbose=False)
        data, segmentation, after = preprocessor.run_case_npy(
            image,
            None if previous is None else previous[None],
            dict(properties),
            model.plans_manager,
            model.configuration_manager,
            model.dataset.dataset_json,
        )
    if not data.size:
        raise UserError(
            f"{source[0]}: no voxel is left at the network's spacing; correct the image's header."
        )
    channels = data.astype(np.float16)
    if previous is not None:
        data = with_stage_before(model, data, segmentation[0])
    transposed_shape = after["shape_after_cropping_and_before_resampling"]
    shape = [transposed_shape[axis] for axis in model.plans_manager.transpose_backward]
    grid_case = GridCase(
        case,
        after,
        for_pictures(image[0]),
        channels,
        differences=tuple(model.training.compare(Geometry.of(after), shape)),
    )
    return Preprocessed(grid_case, np.ascontiguousarray(data, np.float32))


def _check_volume(
    model: TrainedModel, image: np.ndarray, spacing_mm: Sequence[float], source: object
) -> None:
    """UserError for an image (C, *spatial) of far more volume than the training's largest."""
    box = bounding_box(np.any(image, axis=0)) or ()  # nnU-Net crops to it
    size_mm = [step * (part.stop - part.start) for step, part in zip(spacing_mm, box)]
    times = model.training.times_largest(size_mm)
    if times > _MOST_TIMES:
        raise UserError(
            f"{source}: by its spacing of {_in_mm(spacing_mm)} it has {times:.2g} times the volume"
            " of the training's largest image; correct the header, or pass"
            " [[any_size=True]] if it is"
            " right."
        )


def _in_mm(spacing_mm: Sequence[float]) -> str:
    return " x ".join(f"{step:.4g}" for step in spacing_mm) + " mm"


def with_stage_before(model: TrainedModel, data: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(C + K, *grid) what a cascade's network is given: channels, and the stage before one-hot."""
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

    labels = model.dataset.label_manager.foreground_labels
    return np.vstack((data, convert_labelmap_to_one_hot(before, labels, data.dtype)))


def preprocessed_cases(model: TrainedModel, cases: Sequence[str]) -> nnUNetBaseDataset:
    """nnU-Net's data set of a model's preprocessed cases, as its validation reads them.

    Raises:
        UserError: They are not there.
    """
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    root = os.environ.get("nnUNet_preprocessed") or "nnUNet_preprocessed (not set)"
    folder = Path(
        root, model.plans_manager.dataset_name, model.configuration_manager.data_identifier
    )
    try:
        with quiet():
            return infer_dataset_class(str(folder))(
                str(folder),
                list(cases),
                folder_with_segs_from_previous_stage=_folder_of_stage_before(model),
            )
    except Exception:  # assertions on what is in the folder
        raise UserError(
            f"{folder}: no preprocessed cases; run nnUNetv2_preprocess for this configuration."
        ) from None


def _folder_of_stage_before(model: TrainedModel) -> str | None:
    """Where the stage before a cascade left segmentations for it; None for other models."""
    stage = model.previous_stage
    if stage is None:
        return None
    trainer, _, configuration = model.folder.resolve().name.split("__")
    model_before = f"{trainer}__{model.plans_manager.plans_name}__{stage}"
    return str(model.folder.parent / model_before / "predicted_next_stage" / configuration)


def _check_spacing(
    model: TrainedModel, geometry: Geometry, shape: Sequence[int], source: object
) -> None:
    """UserError for an image (*shape) whose voxels are far longer or shorter than trained."""
    usual = _usual_spacings_mm(model)
    if not len(usual):
        return
    is_2d = geometry.is_2d and shape[0] == 1
    first_axis = 1 if is_2d else 0  # nnU-Net's readers add the first axis of 2D images
    for axis in range(first_axis, 3):
        spacing = geometry.spacing_mm[axis]
        low = usual[:, axis].min()
        high = usual[:, axis].max()
        if not low / _MOST_TIMES <= spacing <= high * _MOST_TIMES:
            usual_range = f"{low:.3g} to {high:.3g} mm" if low < high else f"{low:.3g} mm"
            raise UserError(
                f"{source}: by its spacing of {_in_mm(geometry.spacing_mm)} a voxel is"
                f" {spacing:.3g} mm long along {'zyx'[axis]}, of the training's images"
                f" {usual_range}; correct the header, or pass [[any_size=True]] if it is right."
            )


def _usual_spacings_mm(model: TrainedModel) -> np.ndarray:
    """(n, 3) of the training's images, axes z, y, x; of plans alone their median.

    n is 0 where neither is known.
    """
    if len(model.training.spacings_mm):
        return model.training.spacings_mm
    transposed = model.dataset.plans.get("original_median_spacing_after_transp", [])
    if len(transposed) != 3:
        return np.empty((0, 3))
    return np.array([[transposed[axis] for axis in model.plans_manager.transpose_backward]])


def _check_image(
    model: TrainedModel, image: np.ndarray, properties: dict[str, Any], source: Sequence[object]
) -> None:
    """UserError for an image (C, *spatial) that the network cannot take."""
    num_channels = len(model.dataset.channel_names)
    if image.ndim != 4 or len(image) != num_channels:
        raise UserError(
            f"{source[0]}: an image of shape {image.shape}, (channels, z, y, x), but the model"
            f" takes {num_channels} channels; give these alone, in one file or one for each,"
            " CASE_0000, CASE_0001, ..."
        )
    if not image.size:
        raise UserError(
            f"{source[0]}: an image of shape {image.shape} has no voxels; give one that has some."
        )
    if image.dtype.kind not in "buif":
        raise UserError(f"{source[0]}: an image must hold numbers, got {image.dtype}.")
    _check_spacing_is_length(properties, source[0])
    is_3d_model = len(model.configuration_manager.patch_size) == 3
    if is_3d_model and image.shape[1] == 1 and Geometry.of(properties).is_2d:
        raise UserError(
            f"{source[0]}: a 2D image, but the model is 3D; give volumes, or use a 2D"
            " configuration."
        )
    for number, channel in enumerate(image):
        _check_values(channel, source[min(number, len(source) - 1)])


def _check_spacing_is_length(properties: dict[str, Any], source: object) -> None:
    """UserError where the properties of an image have no spacing, or one that is no length."""
    if "spacing" not in properties:
        raise UserError(
            f"{source}: properties has no `spacing`; give the properties that nnU-Net's reader"
            " returns, or at least the spacing in mm, (z, y, x)."
        )
    try:
        spacing = np.asarray(properties["spacing"], dtype=float)
    except (TypeError, ValueError):
        raise UserError(
            f"{source}: the voxel spacing is {properties['spacing']!r}, not three numbers."
        ) from None
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise UserError(
            f"{source}: the voxel spacing is {spacing.tolist()}; correct the image's header."
        )


def _check_values(channel: np.ndarray, path: object) -> None:
    """UserError for a channel of an image that holds no number, or one value alone."""
    low = channel.min()
    high = channel.max()
    if not np.isfinite(low) or not np.isfinite(high):  # NaN is passed on by both
        raise UserError(
            f"{path}: it holds voxels that are NaN or infinite; replace them, or export it again."
        )
    if low == high:
        raise UserError(f"{path}: all voxels have the value {low:g}; export the scan again.")
