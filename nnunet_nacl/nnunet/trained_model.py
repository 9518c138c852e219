"""`TrainedModel`: a trained nnU-Net model, opened and checked, without its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import Self

from nnunet_nacl.cases.case import Labels
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.nnunet.folders import FINAL, choose_folds
from nnunet_nacl.nnunet.profile import TrainingRange
from nnunet_nacl.nnunet.trust import configuration_of, read_checkpoint
from nnunet_nacl.nnunet.tuned import check_tuned
from nnunet_nacl.utilities.errors import UserError, first_line
from nnunet_nacl.utilities.files import check_folder, checksum, is_file_name

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import (
        ConfigurationManager,
        PlansManager,
    )

MODEL_FILES = ("plans.json", "dataset.json", "dataset_fingerprint.json")
"""Files of the model folder that decide what is predicted of a scan, and what is said of it, beside
the checkpoints."""


@dataclass(frozen=True)
class TrainedModel:
    """A model as nnU-Net left it; can be pickled, and holds no weights.

    Attributes:
        folder: nnU-Net's model folder.
        dataset: Its labels, files and reader.
        configuration: Its name in the plans.
        trainer: Its class, as the checkpoint has it.
        folds: Those whose networks are averaged, in this order.
        checkpoint: File name.
        hashes: SHA-256 of the checkpoint of each of the folds.
        file_hashes: SHA-256 of each of :data:`MODEL_FILES` that the folder has.
    """

    folder: Path
    dataset: Dataset
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
        """Find out what a model has.

        Args:
            folder: nnU-Net's model folder.
            folds: None: every numbered one that is trained, or fold_all.
            checkpoint: File name; None: that of the final one.

        Raises:
            UserError: A file is missing, damaged or none of nnU-Net's.
        """
        checkpoint = checkpoint or FINAL
        _check_model_folder(folder, checkpoint)
        dataset = Dataset.open(folder)
        dataset.labels  # noqa: B018

        def has_checkpoint(fold_folder: Path) -> bool:
            return (fold_folder / checkpoint).exists()

        chosen = choose_folds(folder, has_checkpoint, checkpoint, folds)
        fold_folders = [folder / f"fold_{fold}" for fold in chosen]
        check_tuned(folder, checkpoint, fold_folders)
        paths = [fold_folder / checkpoint for fold_folder in fold_folders]
        contents = [read_checkpoint(path) for path in paths]  # weights stay on the disk
        if not dataset.channel_names:
            raise UserError(
                f"{folder}: dataset.json has no channel_names; give nnU-Net's own file."
            )
        present = [file for file in MODEL_FILES if (folder / file).is_file()]
        model = cls(
            folder,
            dataset,
            configuration=contents[0]["init_args"]["configuration"],
            trainer=contents[0]["trainer_name"],
            folds=chosen,
            checkpoint=checkpoint,
            hashes=tuple(checksum(path) for path in paths),
            file_hashes={file: checksum(folder / file) for file in present},
        )
        model._check_plans()
        return model

    def _check_plans(self) -> None:
        """UserError where plans.json lacks what is asked of it later."""
        try:
            self.plans_manager.transpose_forward  # noqa: B018
            self.configuration_manager.spacing  # noqa: B018
            self.previous_stage  # noqa: B018
        except UserError:
            raise
        except Exception as error:
            # nnU-Net raises anything from KeyError to AssertionError on damaged plans
            raise UserError(
                f"{self.folder}: plans.json does not describe the configuration"
                f" {self.configuration} ({first_line(error)}); restore it."
            ) from None

    def of_fold(self, fold: str) -> Self:
        """The network of one of the folds."""
        checkpoint_hash = self.hashes[self.folds.index(fold)]
        return replace(self, folds=(fold,), hashes=(checkpoint_hash,))

    @property
    def labels(self) -> Labels:
        """The structures."""
        return self.dataset.labels

    @cached_property
    def plans_manager(self) -> PlansManager:
        """nnU-Net's."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        return PlansManager(self.dataset.plans)

    @cached_property
    def configuration_manager(self) -> ConfigurationManager:
        """nnU-Net's, of the model's configuration."""
        return configuration_of(self.plans_manager, self.configuration, self.folder)

    @cached_property
    def training(self) -> TrainingRange:
        """Spacing and size of the images that the model knows."""
        return TrainingRange.find(self.folder)

    @property
    def previous_stage(self) -> str | None:
        """Name of the configuration whose segmentations a cascade needs; None if there is none."""
        return self.configuration_manager.previous_stage_name


def _check_model_folder(folder: Path, checkpoint: str) -> None:
    """UserError where a folder is no model's, or a checkpoint's name no name of a file."""
    check_folder(folder, "the model, TRAINER__PLANS__CONFIGURATION")
    for file in ("dataset.json", "plans.json"):
        if not (folder / file).is_file():  # nnU-Net looks nowhere else for them
            raise UserError(
                f"{folder}: a model has a {file} there; give the folder"
                " TRAINER__PLANS__CONFIGURATION that nnU-Net made, or restore the file."
            )
    if not is_file_name(checkpoint):
        raise UserError(
            f"[[checkpoint]] {checkpoint}: give the name of a file in the folds' folders,"
            f" such as {FINAL}."
        )
