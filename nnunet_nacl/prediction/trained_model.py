"""A trained model as it is to be used: its folds, their checkpoints, and what its calibration map has learned."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnunet_nacl.cases.checkpoint_files import read_checkpoint
from nnunet_nacl.cases.checkpoints import CALIBRATED, MARK
from nnunet_nacl.cases.labels import Labels
from nnunet_nacl.cases.predicted_quality import QualityOfMap
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.documents.map_file import MAP_FILE, read_map, slopes_and_offsets, structures_of
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import checksum
from nnunet_nacl.json_files import first_line
from nnunet_nacl.prediction.training_range import TrainingRange

__all__ = ["FINAL", "TrainedModel"]

FINAL = "checkpoint_final.pth"


@dataclass(frozen=True)
class TrainedModel:
    """Can be pickled, and holds no weights.

    Attributes:
        folder: nnU-Net's model folder.
        opened: The same, as something that has labels and a reader.
        configuration: Its name in the plans.
        trainer: Its class, as the checkpoint has it.
        folds: That are averaged, in this order.
        checkpoint: File name, the same in each fold.
        hashes: SHA-256 of each fold's checkpoint.
        calibrated: Whether a map was written into every checkpoint.
        decided: Whether segmentations are decided for Dice, rather than the most probable labels.
        quality: What the map has learned about such segmentations; None if nothing is known.
        map_hash: SHA-256 of its file; empty if there is none.
        training: What the training's images looked like.
        missing: What the user should know is missing, each with the remedy.
    """

    folder: Path
    opened: PredictionFolder
    configuration: str
    trainer: str
    folds: tuple[str, ...]
    checkpoint: str
    hashes: tuple[str, ...]
    calibrated: bool
    decided: bool
    quality: QualityOfMap | None
    map_hash: str
    training: TrainingRange
    missing: tuple[str, ...]

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        folds: Sequence[str | int] | None = None,
        checkpoint: str | None = None,
        calibration_map: Path | None = None,
        decide: str | None = None,
    ) -> TrainedModel:
        """Find out what a model has.

        Args:
            folder: nnU-Net's model folder, TRAINER__PLANS__CONFIGURATION.
            folds: 0, 1, ... or ``all``; None takes every numbered fold that is trained, fold_all where there is none.
            checkpoint: File name; None takes checkpoint_calibrated.pth where every fold has it, else
                checkpoint_final.pth.
            calibration_map: The map that is in the checkpoints; None looks for calibration_map.json in the folder.
            decide: ``argmax`` or ``dice``; None takes ``dice`` for calibrated checkpoints, whose probabilities can be
                taken at their word, else ``argmax``, which is what nnUNetv2_predict does.

        Raises:
            UserError: A fold, checkpoint or map is missing or cannot be used.
        """
        opened = PredictionFolder.open(folder, need_reference=False)
        chosen = _folds(folder, folds, checkpoint)
        name = checkpoint or (CALIBRATED if all(_has(folder, fold, CALIBRATED) for fold in chosen) else FINAL)
        contents = [_head(folder / f"fold_{fold}" / name) for fold in chosen]
        marks = [content.get(MARK) for content in contents]
        if any((mark is None) != (marks[0] is None) or _affine(mark) != _affine(marks[0]) for mark in marks):
            raise UserError(f"{folder}: the folds' {name} are not calibrated by the same map; calibrate them again.")
        calibrated = marks[0] is not None
        decided = calibrated if decide is None else decide == "dice"
        configuration = contents[0]["init_args"]["configuration"]
        quality, map_hash, missing = _quality(folder, opened, marks[0], calibration_map, decided)
        if not calibrated:
            lacking = next((fold for fold in chosen if not _has(folder, fold, CALIBRATED)), None)
            why = f"fold {lacking} has no {CALIBRATED}" if lacking is not None else f"{name} was asked for"
            missing = (
                f"not calibrated ({why}): confidences are the network's own and no Dice is predicted. "
                + (
                    f"To have both: {_command(folder, configuration)}"
                    if lacking is not None
                    else f"Use -chk {CALIBRATED}."
                ),
            )
        hashes = tuple(checksum(folder / f"fold_{fold}" / name, hashlib.sha256()) for fold in chosen)
        if not (num_channels := _num_channels(opened.dataset_json)):
            raise UserError(f"{folder}: dataset.json has no channel_names; give nnU-Net's own file.")
        training = TrainingRange.find(folder, opened.plans, num_channels)
        what = (folder, opened, configuration, contents[0]["trainer_name"], chosen, name, hashes, calibrated, decided)
        model = cls(*what, quality, map_hash, training, missing)
        try:
            _ = model.grid_voxels(np.ones(3), np.ones(3)), model.previous_stage
        except Exception as error:  # nnU-Net raises anything from KeyError to AssertionError on damaged plans
            problem = f"does not describe the configuration {configuration} ({first_line(error)})"
            raise UserError(f"{folder}: plans.json {problem}; restore it.") from None
        return model

    @property
    def labels(self) -> Labels:
        """The structures."""
        return self.opened.labels

    @property
    def num_channels(self) -> int:
        """Image channels that the network takes."""
        return _num_channels(self.opened.dataset_json)

    @cached_property
    def plans_manager(self) -> Any:
        """nnU-Net's."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        return PlansManager(self.opened.plans)

    @cached_property
    def configuration_manager(self) -> Any:
        """nnU-Net's, of the model's configuration."""
        return self.plans_manager.get_configuration(self.configuration)

    def grid_voxels(self, spacing_mm: ArrayLike, shape: ArrayLike) -> np.ndarray:
        """Voxels of images on the network's grid, from their (..., 3) spacing and shape in the reader's order."""
        there = self.configuration_manager.spacing
        axes = self.plans_manager.transpose_forward[-len(there) :]  # 2D: the slices stay apart as they are
        steps = np.asarray(spacing_mm, float)[..., axes] / there
        return np.prod(np.asarray(shape, float), -1) * np.prod(steps, -1)

    @property
    def previous_stage(self) -> str | None:
        """Name of the configuration whose segmentations a cascade needs; None for other networks."""
        return self.configuration_manager.previous_stage_name


def _num_channels(dataset: dict[str, Any]) -> int:
    return len(dataset.get("modality", dataset.get("channel_names", ())))


def _has(folder: Path, fold: str, name: str) -> bool:
    return (folder / f"fold_{fold}" / name).is_file()


def _folds(folder: Path, folds: Sequence[str | int] | None, checkpoint: str | None) -> tuple[str, ...]:
    names = (checkpoint,) if checkpoint else (CALIBRATED, FINAL)
    present = sorted(path.name.removeprefix("fold_") for path in folder.glob("fold_*"))
    present = [fold for fold in present if any(_has(folder, fold, name) for name in names)]
    chosen = tuple(dict.fromkeys(map(str, folds))) if folds else tuple(fold for fold in present if fold != "all")
    chosen = chosen or tuple(present)
    if not chosen:
        raise UserError(
            f"{folder} has no fold with {' or '.join(names)}; finish a training, or name another with -chk."
        )
    if absent := [fold for fold in chosen if fold not in present]:
        raise UserError(
            f"{folder / f'fold_{absent[0]}'} has no {' or '.join(names)}; there are the folds "
            f"{', '.join(present) or '(none)'}. Train it, or choose others with -f."
        )
    return chosen


def _head(path: Path) -> dict[str, Any]:
    """A checkpoint whose weights stay on the disk."""
    content = read_checkpoint(path, mmap=True)
    return {key: content[key] for key in ("init_args", "trainer_name")} | {MARK: content.get(MARK)}


def _affine(mark: dict[str, Any] | None) -> list[tuple[float, float]]:
    return slopes_and_offsets(mark) if mark else []


def _quality(
    folder: Path, opened: PredictionFolder, mark: dict[str, Any] | None, given: Path | None, decided: bool
) -> tuple[QualityOfMap | None, str, tuple[str, ...]]:
    """What the map in the checkpoints has learned, the hash of its file, and why there is none."""
    path = given or folder / MAP_FILE
    if mark is None:
        if given:
            raise UserError(f"-map {given}: these checkpoints are not calibrated; take those that are with -chk.")
        return None, "", ()
    if given is None and not path.is_file():
        return None, "", (f"{path} is missing: no Dice is predicted. Give the map of these checkpoints with -map.",)
    structures = structures_of(opened.labels)
    calibration = read_map(path, structures, opened.labels.regions)
    if not np.allclose(_affine(mark), np.stack([calibration.slopes, calibration.offsets], axis=1)):
        message = f"{path} is not the map in these checkpoints; give theirs with -map, or calibrate again"
        if given:
            raise UserError(f"{message}.")
        return None, "", (f"{message}. No Dice is predicted.",)
    digest = checksum(path, hashlib.sha256())
    try:
        return QualityOfMap.read(path, tuple(structures), "decided" if decided else "argmax"), digest, ()
    except UserError as error:
        return None, digest, (f"no Dice is predicted: {error}",)


def _command(folder: Path, configuration: str) -> str:
    trainer, _, plans = folder.name.partition("__")
    plans = plans.rpartition("__")[0]
    words = ["nnunet_nacl", "calibrate", "-d", folder.resolve().parent.name, "-tr", trainer, "-c", configuration]
    words += ["-p", plans] if plans not in ("", "nnUNetPlans") else []
    return f"`{shlex.join(words)}`"
