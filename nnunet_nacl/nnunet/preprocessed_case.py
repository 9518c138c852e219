"""Reads and preprocesses a case as nnUNetv2_predict does; what is needed of its image later comes along."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.dicom.series import image_of_series
from nnunet_nacl.errors import UserError
from nnunet_nacl.nnunet.image_files import channels_apart, quiet, read_images
from nnunet_nacl.nnunet.input_cases import InputCase
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.numbers.disagreement import Disagreement
from nnunet_nacl.numbers.surface import bounding_box

MOST_TIMES = 30
"""An image so many times larger than the training's largest is refused: its header will be wrong."""


LARGEST_INTENSITY = 1e14
"""The squares of 10^10 such voxels add up to the largest number that float32 holds: nnU-Net takes their variance."""

_MOST_VOXELS = 2**40  # 4 TiB a channel


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
    image: np.ndarray
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
    previous = None
    if case.previous is not None:
        previous = model.opened.read_labels(case.previous, like=("image", Geometry.of(properties), image.shape[1:]))[0]
    made = preprocess(model, case.case, image, properties, previous, source=case.images, any_size=any_size)
    known = len(case.images) > 1 and not case.orientation and Geometry.of(properties).affine is not None
    apart = channels_apart(case.images) if known else ""
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
        any_size: Take an image that would have more than ``MOST_TIMES`` times as many voxels on the network's grid as
            the largest of the training, most often by a wrong header, and would take hours.

    Raises:
        UserError: The network cannot take the image.
    """
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

    configuration, plans = model.configuration_manager, model.plans_manager
    axes = len(configuration.patch_size)
    _check_image(image, properties, source, num_channels=model.opened.num_channels, num_axes=axes)
    _check_size(model, image, properties["spacing"], source[0], any_size=any_size)
    with quiet():
        preprocessor = configuration.preprocessor_class(verbose=False)
        before = None if previous is None else previous[None]
        data, seg, after = preprocessor.run_case_npy(
            image, before, dict(properties), plans, configuration, model.opened.dataset_json
        )
    channels = data.astype(np.float16)
    if previous is not None:
        one_hot = convert_labelmap_to_one_hot(seg[0], model.opened.label_manager.foreground_labels, data.dtype)
        data = np.vstack((data, one_hot))
    shape = [after["shape_after_cropping_and_before_resampling"][axis] for axis in plans.transpose_backward]
    geometry = Geometry.of(after)
    differences = tuple(model.training.compare(geometry, shape))
    return GridCase(case, np.ascontiguousarray(data, np.float32), after, for_pictures(image[0]), channels, differences)


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


def _check_image(
    image: np.ndarray, properties: dict[str, Any], source: Sequence[object], *, num_channels: int, num_axes: int
) -> None:
    """UserError for an image (C, *spatial) that the network, with patches of 2 or 3 axes, cannot take."""
    if image.ndim != 4 or len(image) != num_channels:
        raise UserError(
            f"{source[0]}: an image of shape {image.shape}, (channels, z, y, x), but the model takes {num_channels} "
            "channels; give these alone, in one file or one for each, CASE_0000, CASE_0001, ..."
        )
    spacing = np.asarray(properties["spacing"], dtype=float)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise UserError(f"{source[0]}: the voxel spacing is {spacing.tolist()}; correct the image's header.")
    if num_axes == 3 and image.shape[1] == 1 and Geometry.of(properties).is_2d:
        raise UserError(f"{source[0]}: a 2D image, but the model is 3D; give volumes, or use a 2D configuration.")
    for i, channel in enumerate(image):
        path = source[min(i, len(source) - 1)]
        if not np.isfinite(channel).all():
            raise UserError(
                f"{path}: it holds voxels that are NaN or infinite; replace them, or export the scan again."
            )
        low, high = channel.min(), channel.max()
        if low == high:
            raise UserError(f"{path}: all voxels have the value {low:g}; export the scan again.")
        if max(-low, high) > LARGEST_INTENSITY:
            raise UserError(
                f"{path}: its intensities reach from {low:.2g} to {high:.2g}, whose squares overflow when nnU-Net "
                "normalises them; export the scan again."
            )


def _check_size(
    model: TrainedModel, image: np.ndarray, spacing_mm: Sequence[float], source: object, *, any_size: bool
) -> None:
    """UserError, before hours of resampling, for an image that is far larger than any of the training, or too small."""
    training, box = model.training, bounding_box(np.any(image, axis=0))  # nnU-Net crops to this box
    shape = model.grid_shape(spacing_mm, [part.stop - part.start for part in box or ()])
    its = f"{source}: its spacing of {_steps(spacing_mm)} (z, y, x)"
    if (shape.round() < 1).any():
        there = model.grid_spacing_mm
        raise UserError(
            f"{its} leaves {_steps(shape)} voxels at the network's spacing of {_steps(there[~np.isnan(there)])}, less "
            "than one along an axis; correct the header."
        )
    shapes = model.grid_shape(training.spacings_mm, training.sizes_mm / training.spacings_mm)
    voxels, largest = shape.prod(), shapes.prod(-1).max(initial=0)
    usual = not any_size and largest > 0
    if voxels > (MOST_TIMES * largest if usual else _MOST_VOXELS):
        compared = f"{voxels / largest:.2g} x the training's largest" if largest else "more than any memory holds"
        fix = ", or pass --any_size if it is right" if usual else ""
        raise UserError(f"{its} makes {voxels:.2g} voxels for the network, {compared}; correct the header{fix}.")


def _steps(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
