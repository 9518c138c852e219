"""Opens a trained nnU-Net model, and preprocesses cases for it as nnUNetv2_predict does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Self

from nnunet_nacl.cases.case import Labels
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.errors import Failed, UserError, first_line
from nnunet_nacl.files import check_folder, checksum, is_file_name
from nnunet_nacl.images import quiet
from nnunet_nacl.metrics.grid import bounding_box
from nnunet_nacl.metrics.voxel_uncertainty import Disagreement
from nnunet_nacl.nnunet.pipeline import side_by_side
from nnunet_nacl.nnunet.places import FINAL, choose_folds
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.profile import TrainingRange, profile, profile_names
from nnunet_nacl.nnunet.trust import configuration_of, read_checkpoint
from nnunet_nacl.quality.unlike import CalibrationProfiles

MODEL_FILES = ("plans.json", "dataset.json", "dataset_fingerprint.json")
"""Files of the model folder that decide what is predicted of a scan, and what is said of it, beside
the checkpoints."""

_MOST_TIMES = 30
"""Beyond so many times the volume of the training's largest image, or the length of its voxels, a
header is wrong."""


@dataclass(frozen=True)
class TrainedModel:
    """A model as nnU-Net left it; can be pickled, and holds no weights.

    Attributes:
        folder: nnU-Net's model folder.
        opened: That folder, for its labels and reader.
        configuration: Its name in the plans.
        trainer: Its class, as the checkpoint has it.
        folds: That are averaged, in this order.
        checkpoint: File name.
        hashes: SHA-256 of the checkpoint of each of the folds.
        file_hashes: SHA-256 of each of :data:`MODEL_FILES` that the folder has.
    """

    folder: Path
    opened: PredictionFolder
    configuration: str
    trainer: str
    folds: tuple[str, ...]
    checkpoint: str
    hashes: tuple[str, ...]
    file_hashes: Mapping[str, str]

    @classmethod
    def open(
        cls, folder: Path, folds: Sequence[str | int] | None = None, checkpoint: str | None = None
    ) -> Self:
        """Find out what a model has; UserError where a file is missing, damaged or none of
        nnU-Net's.

        Without ``folds`` every numbered one that is trained, or fold_all; without ``checkpoint``
        the final one.
        """
        check_folder(folder, "the model, TRAINER__PLANS__CONFIGURATION")
        for file in ("dataset.json", "plans.json"):
            if not (folder / file).is_file():  # nnU-Net looks nowhere else for them
                fix = (
                    "give the folder TRAINER__PLANS__CONFIGURATION that nnU-Net made, or restore"
                    " the file"
                )
                raise UserError(f"{folder}: a model has a {file} there; {fix}.")
        opened, name = PredictionFolder.open(folder, need_reference=False), checkpoint or FINAL
        if not is_file_name(name):
            raise UserError(
                f"-chk {name}: give the name of a file in the folds' folders, such as {FINAL}."
            )
        chosen = choose_folds(folder, lambda fold: (fold / name).exists(), name, folds)
        paths = [folder / f"fold_{fold}" / name for fold in chosen]
        heads = [read_checkpoint(path) for path in paths]  # weights stay on the disk
        if not opened.channel_names:
            raise UserError(
                f"{folder}: dataset.json has no channel_names; give nnU-Net's own file."
            )
        configuration, trainer = heads[0]["init_args"]["configuration"], heads[0]["trainer_name"]
        hashes = tuple(checksum(path) for path in paths)
        file_hashes = {
            file: checksum(folder / file) for file in MODEL_FILES if (folder / file).is_file()
        }
        model = cls(folder, opened, configuration, trainer, chosen, name, hashes, file_hashes)
        try:
            _ = (
                model.plans_manager.transpose_forward,
                model.configuration_manager.spacing,
                model.previous_stage,
            )
        except UserError:
            raise
        except Exception as error:
            # nnU-Net raises anything from KeyError to AssertionError on damaged plans
            problem = (
                f"plans.json does not describe the configuration {configuration}"
                f" ({first_line(error)})"
            )
            raise UserError(f"{folder}: {problem}; restore it.") from None
        return model

    def of_fold(self, fold: str) -> Self:
        """The network of one of the folds."""
        return replace(self, folds=(fold,), hashes=(self.hashes[self.folds.index(fold)],))

    @property
    def labels(self) -> Labels:
        """The structures."""
        return self.opened.labels

    @cached_property
    def plans_manager(self) -> Any:
        """nnU-Net's."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        return PlansManager(self.opened.plans)

    @cached_property
    def configuration_manager(self) -> Any:
        """nnU-Net's, of the model's configuration."""
        return configuration_of(self.plans_manager, self.configuration, self.folder)

    @cached_property
    def training(self) -> TrainingRange:
        """Spacing and size of the images that the model knows."""
        return TrainingRange.find(self.folder)

    @property
    def previous_stage(self) -> str | None:
        """Name of the configuration whose segmentations a cascade needs; None for other
        networks."""
        return self.configuration_manager.previous_stage_name


def for_pictures(channel: np.ndarray) -> np.ndarray:
    """A channel of an image in half precision, scaled to [0, 1]."""
    low, high = float(channel.min()), float(channel.max())
    return (
        np.subtract(channel, low, dtype=np.float32, casting="unsafe") / np.float32(high - low)
    ).astype(np.float16)


@dataclass(frozen=True, eq=False)
class GridCase:
    """A case on the network's grid, axes in nnU-Net's transposed order, and what of its image is
    needed later.

    Attributes:
        case: Name.
        values: (C, *grid) float32 that the network is given, then the float16 logits that it
            answers.
        properties: nnU-Net's, of reading and preprocessing.
        image: First channel as it was read, see :func:`for_pictures`.
        channels: (C, *grid) float16, what the network is given but for a stage before.
        differences: How channels lie apart, and spacing and size differ from the training's, in
            words.
        disagreement: Of the folds, its map in half precision; None with one.
    """

    case: str
    values: np.ndarray
    properties: dict[str, Any]
    image: np.ndarray | None
    channels: np.ndarray
    differences: tuple[str, ...]
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
) -> GridCase:
    """Preprocess by nnU-Net's own preprocessor; UserError for an image that the network cannot
    take.

    ``image`` (C, *spatial) and ``properties`` are what nnU-Net's reader returned, ``previous``
    (*spatial) the label map of the stage before, for a cascade; ``source`` names the file of each
    channel. With ``any_size`` it may have more than 30 times the volume of the training's largest,
    and voxels 30 times as long or short as the training's, which is mostly due to a wrong header.
    """
    configuration, plans = model.configuration_manager, model.plans_manager
    _check_image(model, image, properties, source)
    box = bounding_box(np.any(image, axis=0)) or ()  # nnU-Net crops to it
    size_mm = [step * (part.stop - part.start) for step, part in zip(properties["spacing"], box)]
    if not any_size and (times := model.training.times_largest(size_mm)) > _MOST_TIMES:
        raise UserError(
            f"{source[0]}: by its spacing of"
            f" {' x '.join(f'{step:.4g}' for step in properties['spacing'])} mm it has {times:.2g}"
            " times the volume of the training's largest image; correct the header, or pass"
            " --any_size if it is right."
        )
    if not any_size:
        _check_spacing(model, Geometry.of(properties), image.shape[1:], source[0])
    with quiet():
        preprocessor = configuration.preprocessor_class(verbose=False)
        before = None if previous is None else previous[None]
        data, seg, after = preprocessor.run_case_npy(
            image, before, dict(properties), plans, configuration, model.opened.dataset_json
        )
    if not data.size:
        raise UserError(
            f"{source[0]}: no voxel is left at the network's spacing; correct the image's header."
        )
    channels = data.astype(np.float16)
    if previous is not None:
        data = with_stage_before(model, data, seg[0])
    shape = [
        after["shape_after_cropping_and_before_resampling"][axis]
        for axis in plans.transpose_backward
    ]
    differences = tuple(model.training.compare(Geometry.of(after), shape))
    return GridCase(
        case,
        np.ascontiguousarray(data, np.float32),
        after,
        for_pictures(image[0]),
        channels,
        differences,
    )


def with_stage_before(model: TrainedModel, data: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(C + K, *grid) what a cascade's network is given: channels, and the stage before one-hot."""
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

    labels = model.opened.label_manager.foreground_labels
    return np.vstack((data, convert_labelmap_to_one_hot(before, labels, data.dtype)))


def preprocessed_cases(model: TrainedModel, cases: Sequence[str]) -> Any:
    """nnU-Net's data set of the preprocessed cases of a model, as its validation reads them;
    UserError without them."""
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    root = os.environ.get("nnUNet_preprocessed") or "nnUNet_preprocessed (not set)"
    plans, before = model.plans_manager, None
    preprocessed = str(
        Path(root) / plans.dataset_name / model.configuration_manager.data_identifier
    )
    if stage := model.previous_stage:
        trainer, _, name = model.folder.resolve().name.split("__")
        before = str(
            model.folder.parent
            / f"{trainer}__{plans.plans_name}__{stage}"
            / "predicted_next_stage"
            / name
        )
    try:
        with quiet():
            kind = infer_dataset_class(preprocessed)
            return kind(preprocessed, list(cases), folder_with_segs_from_previous_stage=before)
    except Exception:  # assertions on what is in the folder
        none = (
            f"{preprocessed}: no preprocessed cases; run nnUNetv2_preprocess for this"
            " configuration."
        )
        raise UserError(none) from None


def learn_profiles(
    records: Sequence[CaseRecord],
    patients: Sequence[str],
    model: TrainedModel,
    *,
    num_processes: int = 1,
) -> CalibrationProfiles:
    """What calibration scans of ``patients`` look like, by their records, or their preprocessed
    images; UserError."""
    from tqdm import tqdm

    profiles = {record.case: np.array(record.profile, float) for record in records}
    if todo := [case for case, numbers in profiles.items() if not len(numbers)]:
        segmentations = {record.case: record.key["files"].get("segmentation") for record in records}
        paths = {case: Path(file["path"]) for case, file in segmentations.items() if file}
        look = partial(_profile, model, preprocessed_cases(model, todo), paths)
        outcomes = side_by_side(look, todo, num_processes, paths.__getitem__)
        for case, outcome in tqdm(outcomes, "look at", len(todo), unit="scan", leave=False):
            if isinstance(outcome, Failed):
                raise UserError(outcome.reason)
            profiles[case] = outcome
    names = profile_names(model.labels, model.opened.channel_names)
    return CalibrationProfiles.learn(
        names, np.stack([profiles[record.case] for record in records]), patients
    )


def _profile(
    model: TrainedModel, data_set: Any, paths: Mapping[str, Path], case: str, nothing: None
) -> np.ndarray:
    data, _, _, properties = data_set.load_case(case)
    image = np.asarray(data[:], np.float16)[: len(model.opened.channel_names)]
    segmentation = model.opened.read_labels(paths[case])[0]
    return profile(
        image, segmentation, model.labels, properties, model.plans_manager.transpose_forward
    )


def _check_spacing(
    model: TrainedModel, geometry: Geometry, shape: Sequence[int], source: object
) -> None:
    """UserError for an image (*shape) whose voxels are far longer or shorter along an axis than the
    training's."""
    usual = _usual_spacings_mm(model)
    if not len(usual):
        return
    is_2d = geometry.is_2d and shape[0] == 1  # nnU-Net's first axis is none then
    for axis in range(int(is_2d), 3):
        spacing = geometry.spacing_mm[axis]
        low, high = usual[:, axis].min(), usual[:, axis].max()
        if not low / _MOST_TIMES <= spacing <= high * _MOST_TIMES:
            of_training = f"{low:.3g} to {high:.3g} mm" if low < high else f"{low:.3g} mm"
            of_image = " x ".join(f"{step:.4g}" for step in geometry.spacing_mm)
            raise UserError(
                f"{source}: by its spacing of {of_image} mm a voxel is {spacing:.3g} mm long along"
                f" {'zyx'[axis]}, of the training's images {of_training}; correct the header, or"
                " pass --any_size if it is right."
            )


def _usual_spacings_mm(model: TrainedModel) -> np.ndarray:
    """(n, 3) of the training's images, axes z, y, x; of plans alone their median; n is 0 where
    neither is known."""
    if len(model.training.spacings_mm):
        return model.training.spacings_mm
    transposed = model.opened.plans.get("original_median_spacing_after_transp", [])
    if len(transposed) != 3:
        return np.empty((0, 3))
    return np.array([[transposed[axis] for axis in model.plans_manager.transpose_backward]])


def _check_image(
    model: TrainedModel, image: np.ndarray, properties: dict[str, Any], source: Sequence[object]
) -> None:
    """UserError for an image (C, *spatial) that the network cannot take."""
    takes = len(model.opened.channel_names)
    if image.ndim != 4 or len(image) != takes:
        fix = (
            f"the model takes {takes} channels; give these alone, in one file or one for each,"
            " CASE_0000, CASE_0001"
        )
        raise UserError(
            f"{source[0]}: an image of shape {image.shape}, (channels, z, y, x), but {fix}, ..."
        )
    if not image.size:
        raise UserError(
            f"{source[0]}: an image of shape {image.shape} has no voxels; give one that has some."
        )
    if image.dtype.kind not in "buif":
        raise UserError(f"{source[0]}: an image must hold numbers, got {image.dtype}.")
    if "spacing" not in properties:
        raise UserError(
            f"{source[0]}: properties has no `spacing`; give the properties that nnU-Net's reader"
            " returns, or at least the spacing in mm, (z, y, x)."
        )
    try:
        spacing = np.asarray(properties["spacing"], dtype=float)
    except (TypeError, ValueError):
        raise UserError(
            f"{source[0]}: the voxel spacing is {properties['spacing']!r}, not three numbers."
        ) from None
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise UserError(
            f"{source[0]}: the voxel spacing is {spacing.tolist()}; correct the image's header."
        )
    if (
        len(model.configuration_manager.patch_size) == 3
        and image.shape[1] == 1
        and Geometry.of(properties).is_2d
    ):
        raise UserError(
            f"{source[0]}: a 2D image, but the model is 3D; give volumes, or use a 2D"
            " configuration."
        )
    for i, channel in enumerate(image):
        path = source[min(i, len(source) - 1)]
        low, high = channel.min(), channel.max()
        if not np.isfinite(low) or not np.isfinite(high):  # NaN is passed on by both
            raise UserError(
                f"{path}: it holds voxels that are NaN or infinite; replace them, or export it"
                " again."
            )
        if low == high:
            raise UserError(f"{path}: all voxels have the value {low:g}; export the scan again.")
