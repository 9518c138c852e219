"""A trained nnU-Net model: its folds, their checkpoints, and what is known of its training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from typing_extensions import Self

from nnunet_nacl.case.labels import Labels
from nnunet_nacl.errors import UserError, first_line
from nnunet_nacl.files import check_folder, checksum
from nnunet_nacl.nnunet.locate import trained_folds
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.profile import TrainingRange
from nnunet_nacl.nnunet.trust import configuration_of, read_checkpoint

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
    """

    folder: Path
    opened: PredictionFolder
    configuration: str
    trainer: str
    folds: tuple[str, ...]
    checkpoint: str
    hashes: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path, folds: Sequence[str | int] | None = None, checkpoint: str | None = None) -> Self:
        """Find out what a model has; UserError where a file is missing, damaged or none of nnU-Net's.

        Args:
            folder: nnU-Net's model folder, TRAINER__PLANS__CONFIGURATION.
            folds: 0, 1, ... or ``all``; None takes every numbered fold that is trained, fold_all where there is none.
            checkpoint: File name; None takes checkpoint_final.pth.
        """
        check_folder(folder, "the model, TRAINER__PLANS__CONFIGURATION")
        opened, name = PredictionFolder.open(folder, need_reference=False), checkpoint or FINAL
        chosen = trained_folds(folder, name, folds)
        paths = [folder / f"fold_{fold}" / name for fold in chosen]
        heads = [read_checkpoint(path) for path in paths]  # weights stay on the disk
        if not opened.num_channels:
            raise UserError(f"{folder}: dataset.json has no channel_names; give nnU-Net's own file.")
        configuration, trainer = heads[0]["init_args"]["configuration"], heads[0]["trainer_name"]
        hashes = tuple(checksum(path) for path in paths)
        model = cls(folder, opened, configuration, trainer, chosen, name, hashes)
        try:
            _ = model.grid_shape(np.ones(3), np.ones(3)), model.previous_stage
        except UserError:
            raise
        except Exception as error:  # nnU-Net raises anything from KeyError to AssertionError on damaged plans
            problem = f"does not describe the configuration {configuration} ({first_line(error)})"
            raise UserError(f"{folder}: plans.json {problem}; restore it.") from None
        return model

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
        return TrainingRange.find(self.folder, self.opened.plans, None)

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
