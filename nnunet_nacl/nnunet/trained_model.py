"""A trained model as it is to be used: its folds, their checkpoints, and what its calibration map has learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.calibrate.map_file import MAP_FILE, check_networks, sha256
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.errors import UserError, first_line
from nnunet_nacl.files import check_folder
from nnunet_nacl.nnunet.locate import calibrate_command, trained_folds
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.profile import TrainingRange
from nnunet_nacl.nnunet.trust import configuration_of, read_checkpoint
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.review.predicted_quality import QualityOfMap, open_map

FINAL = "checkpoint_final.pth"


@dataclass(frozen=True)
class TrainedModel:
    """Can be pickled, and holds no weights.

    Attributes:
        folder: nnU-Net's model folder.
        opened: That folder, as something that has labels and a reader.
        configuration: Its name in the plans.
        trainer: Its class, as the checkpoint has it.
        folds: That are averaged, in this order.
        checkpoint: File name, the same in each fold.
        hashes: SHA-256 of each fold's checkpoint.
        calibration: The map that the probabilities are taken through; None leaves them.
        quality: What the map has learned about such segmentations; None if nothing is known.
        map_path: The file of the map; None if there is none.
        record: What the map's file holds; None if there is none.
        missing: What the user should know is missing, each with the remedy.
    """

    folder: Path
    opened: PredictionFolder
    configuration: str
    trainer: str
    folds: tuple[str, ...]
    checkpoint: str
    hashes: tuple[str, ...]
    calibration: LogOddsMap | None = None
    quality: QualityOfMap | None = None
    map_path: Path | None = None
    record: CalibrationMap | None = None
    missing: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        folds: Sequence[str | int] | None = None,
        checkpoint: str | None = None,
        calibration_map: Path | None = None,
        with_map: bool = True,
    ) -> TrainedModel:
        """Find out what a model has.

        Args:
            folder: nnU-Net's model folder, TRAINER__PLANS__CONFIGURATION.
            folds: 0, 1, ... or ``all``; None takes every numbered fold that is trained, fold_all where there is none.
            checkpoint: File name; None takes checkpoint_final.pth.
            calibration_map: Of this model; None looks for calibration_map.json in the folder.
            with_map: False takes the networks as they are trained, whatever map lies there.

        Raises:
            UserError: A fold, checkpoint or map is missing or cannot be used. A map in the folder that is damaged, or
                of another version, is not taken for none.
        """
        check_folder(folder, "the model, TRAINER__PLANS__CONFIGURATION")
        opened, name = PredictionFolder.open(folder, need_reference=False), checkpoint or FINAL
        chosen = trained_folds(folder, name, folds)
        paths = [folder / f"fold_{fold}" / name for fold in chosen]
        heads = [read_checkpoint(path, mmap=True) for path in paths]  # weights stay on the disk
        if not opened.num_channels:
            raise UserError(f"{folder}: dataset.json has no channel_names; give nnU-Net's own file.")
        configuration, hashes = heads[0]["init_args"]["configuration"], tuple(map(sha256, paths))
        model = cls(folder, opened, configuration, heads[0]["trainer_name"], chosen, name, hashes)
        path = calibration_map or folder / MAP_FILE
        if with_map and (calibration_map or path.is_file()):
            model = model._with_map(path, CalibrationMap.load(path), is_given=calibration_map is not None)
        elif with_map:
            missing = (
                "not calibrated (no calibration_map.json): confidences are the network's own and no Dice is predicted. "
                f"To have both: `{calibrate_command(folder, configuration)}`"
            )
            model = replace(model, missing=(missing,))
        try:
            _ = model.grid_shape(np.ones(3), np.ones(3)), model.previous_stage
        except UserError:
            raise
        except Exception as error:  # nnU-Net raises anything from KeyError to AssertionError on damaged plans
            problem = f"does not describe the configuration {configuration} ({first_line(error)})"
            raise UserError(f"{folder}: plans.json {problem}; restore it.") from None
        return model

    def _with_map(self, path: Path, record: CalibrationMap, *, is_given: bool) -> TrainedModel:
        """The model with what its map does and has learned; without it, or UserError, where the map is not its own."""
        try:
            check_networks(path, record, dict(zip(self.folds, self.hashes)))
            calibration, quality, why_not = open_map(path, self.opened)
        except UserError as error:
            if is_given:
                raise
            return replace(self, missing=(f"not calibrated: {error}",))
        missing = (f"no Dice is predicted: {why_not}",) if why_not else ()
        place = path.resolve()
        return replace(self, calibration=calibration, quality=quality, map_path=place, record=record, missing=missing)

    def other_inference(self, step_size: float, mirroring: bool) -> list[str]:
        """A note where the model is used otherwise than when the map was fitted."""
        if self.calibration is None or self.record is None:
            return []
        used = {"step_size": step_size, "mirroring": mirroring}
        other = [
            f"{name} {value}, here {used[name]}" for name, value in self.record.inference.items() if used[name] != value
        ]
        return [f"The calibration was fitted with {' and '.join(other)}: its numbers hold less."] if other else []

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
        profiles = self.quality.of_map.profiles if self.quality else None
        return TrainingRange.find(self.folder, self.opened.plans, profiles)

    @property
    def grid_spacing_mm(self) -> np.ndarray:
        """(3,) spacing of the network's grid in the reader's order; NaN where an image keeps its own: slices of 2D."""
        spacing, grid = np.full(3, np.nan), self.configuration_manager.spacing
        spacing[self.plans_manager.transpose_forward[-len(grid) :]] = grid
        return spacing

    def grid_shape(self, spacing_mm: ArrayLike, shape: ArrayLike) -> np.ndarray:
        """(..., 3) voxels of images on that grid, not rounded, from their spacing and shape in the reader's order."""
        grid = self.grid_spacing_mm
        return np.asarray(shape, float) * np.where(np.isnan(grid), 1, np.asarray(spacing_mm, float) / grid)

    @property
    def previous_stage(self) -> str | None:
        """Name of the configuration whose segmentations a cascade needs; None for other networks."""
        return self.configuration_manager.previous_stage_name
