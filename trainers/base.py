"""What all trainers share: nnU-Net's trainer with another loss and, where a class or name says so,
another schedule.

A trainer is a class with other attributes; nothing else has to be written. nnU-Net reads the
arguments of a constructor from its signature, and finds the class of a trained model by its name:
so every trainer has nnU-Net's own constructor.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import (
    nnUNetTrainerNoDA,
)
from torch import nn

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.losses import SegmentationLoss
from nnunet_nacl.utilities.command_lines import tune_command
from nnunet_nacl_trainers.calibration_log import (
    CalibrationLog,
    errors_logged,
    measured_validation,
)
from nnunet_nacl_trainers.frequency_start import FrequencyStart
from nnunet_nacl_trainers.halfway_decay import HalfwayDecay
from nnunet_nacl_trainers.seeds import make_seeds, seed_process
from nnunet_nacl_trainers.training_loss import TrainingLoss, describe_loss

LossSetting = float | int | str | tuple[int, ...]

_SET_BY_TRAINER = ("ignore_label", "regions", "check_labels")


class CalibrationTrainer(nnUNetTrainer):
    """nnU-Net's trainer with the loss ``loss_class``, which also logs calibration after each epoch.

    Everything that no attribute below changes is nnU-Net's: planning, augmentation, network,
    optimiser, training loop and inference. A subclass sets what it wants otherwise; the tokens of a
    trainer's name set the same attributes. By name, or in a file of one's own (docs/losses.md, "Own
    trainers")::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerNACL_lambda0p3_k5_250epochs

        class nnUNetTrainerNACL_ours(nnUNetTrainerNACL):
            loss_settings = {"penalty_weight": 0.3, "kernel_size": 5}
            epochs = 250

    Without nnU-Net's Dice term the Dice of small structures may fall: compare with
    ``nnUNetTrainerCE``. ``nnUNetTrainerDice<NAME>`` is the same loss plus nnU-Net's soft Dice loss
    with weight 1, from nnU-Net's own start, since that term finds small structures. It makes
    networks overconfident, as in nnU-Net's own loss; ``anneal`` in the name, or ``anneal_dice =
    True``, lets its weight fall to 0 by half-time. An iteration takes about as long as nnU-Net's
    where a trainer does not say otherwise.

    Raises:
        ValueError: When a trainer is constructed, not when its class is made, since nnU-Net imports
            all files of a folder that it searches: ``loss_settings`` holds a setting that the loss
            does not have or that is out of range, another attribute has no possible value, or
            another parent of the class builds the loss.

    """

    loss_class: ClassVar[type[SegmentationLoss]]
    """The loss, a class of :mod:`nnunet_nacl.losses` or one that takes the same arguments."""

    loss_settings: ClassVar[Mapping[str, LossSetting]] = {}
    """Arguments of ``loss_class`` that differ from its defaults. What a subclass sets is laid over
    what its parents set. A whole number as ``kernel_size`` becomes 1 along axes with thick slices,
    see ``neighborhood_size``."""

    with_dice: ClassVar[bool] = False
    """Whether nnU-Net's soft Dice loss is added to ``loss_class``, with weight 1 (names:
    ``nnUNetTrainerDice...``)."""

    anneal_dice: ClassVar[bool] = False
    """Whether the weight of the Dice term falls linearly to 0 over the first half of the epochs
    (``anneal``)."""

    start_at_class_frequencies: ClassVar[bool] = True
    """Whether a new network without a Dice term begins with the classes' frequencies as
    probabilities, see :mod:`nnunet_nacl_trainers.frequency_start`; False begins as nnU-Net does
    (``plainstart``)."""

    epochs: ClassVar[int | None] = None
    """Number of epochs; None leaves nnU-Net's, 1000 (``<n>epochs``)."""

    iterations_per_epoch: ClassVar[int | None] = None
    """Training iterations of an epoch; a tenth as many, at least one, are validation iterations.
    None leaves nnU-Net's, 250 and 50 (``<n>iters``)."""

    use_adam: ClassVar[bool] = False
    """Whether Adam replaces nnU-Net's SGD, with a rate of 1e-3, 1e-4 from half-way on, and no
    weight decay: the optimiser of Murugesan et al. 2025 (``adam``)."""

    train_percent: ClassVar[float | None] = None
    """Share of the fold's training cases that is trained on, above 0 and at most 100; None trains
    on all. Which cases follows from their names: smaller shares are parts of larger ones.
    Validation is unchanged (``train<x>``)."""

    augmentation: ClassVar[bool] = True
    """Whether images are augmented; False is nnU-Net's NoDA trainer, which does not mirror either
    (``noda``)."""

    mirroring: ClassVar[bool] = True
    """Whether images are mirrored, in training and prediction; False is nnU-Net's NoMirroring
    trainer (``nomirror``)."""

    seed: ClassVar[int | None] = None
    """Seed of all random numbers; None seeds nothing. On the CPU with ``nnUNet_n_proc_DA`` 0 or 1
    two trainings with one seed end with equal weights (``seed<n>``)."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        self.check_attributes()  # before nnU-Net makes a folder for the results
        super().__init__(plans, configuration, fold, dataset_json, device)
        self._limit_threads()
        self._apply_schedule()
        regions = bool(self.label_manager.has_regions)
        ignore_label = self.label_manager.ignore_label
        if regions:  # nnU-Net appends the ignore mask to their target: there is no label for it
            ignore_label = None
        self.label_space = LabelSpace(regions, ignore_label)
        self.calibration_log = CalibrationLog(self, self.label_space)
        self.frequency_start: FrequencyStart | None = None
        # The file whose weights the network has; None before there is one, and once the network has
        # trained on.
        self._checkpoint_of_weights: Path | None = None

    @classmethod
    def check_attributes(cls) -> None:
        """ValueError for attributes of the class that have no possible value."""
        for name in ("epochs", "iterations_per_epoch"):
            number = getattr(cls, name)
            if number is not None and (not isinstance(number, int) or number < 1):
                raise ValueError(
                    f"{cls.__name__}.{name} must be a positive integer or None, got {number!r}."
                )
        if cls.train_percent is not None and not 0 < cls.train_percent <= 100:
            raise ValueError(
                f"{cls.__name__}.train_percent must be above 0 and at most 100, or None, got"
                f" {cls.train_percent!r}."
            )
        if cls.anneal_dice and not cls.with_dice:
            raise ValueError(
                f"{cls.__name__}.anneal_dice needs with_dice = True: there is no Dice term to"
                " anneal."
            )
        cls._check_parents()
        cls._check_loss_settings()

    @classmethod
    def _check_parents(cls) -> None:
        """Two classes that build the loss cannot be mixed: one of the losses would silently not be
        trained with."""
        for parent in cls.__mro__:
            if parent is nnUNetTrainer or issubclass(parent, CalibrationTrainer):
                continue
            if issubclass(parent, nnUNetTrainer) and "_build_loss" in vars(parent):
                raise ValueError(
                    f"{cls.__name__}: its parent {parent.__name__} builds a loss of its own, which "
                    f"cannot be mixed with {cls.loss_class.__name__}; leave that parent out."
                )

    @classmethod
    def _check_loss_settings(cls) -> None:
        settings = cls.all_loss_settings()
        arguments = inspect.signature(cls.loss_class).parameters
        known = [name for name in arguments if name not in _SET_BY_TRAINER]
        for name in settings:
            if name in _SET_BY_TRAINER:
                raise ValueError(
                    f"{cls.__name__}.loss_settings: {name!r} follows from the data set; leave it"
                    " out."
                )
            if name not in known:
                raise ValueError(
                    f"{cls.__name__}.loss_settings: {cls.loss_class.__name__} has no setting "
                    f"{name!r}; it has {', '.join(known) or 'none'}."
                )
        make_loss: Callable[..., nn.Module] = cls.loss_class
        try:
            make_loss(**settings)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{cls.__name__}.loss_settings: {error}") from error

    @classmethod
    def all_loss_settings(cls) -> dict[str, LossSetting]:
        """``loss_settings`` of the class laid over those of its parents."""
        settings: dict[str, LossSetting] = {}
        for parent in reversed(cls.__mro__):
            settings |= vars(parent).get("loss_settings", {})
        return settings

    def _limit_threads(self) -> None:
        """`-device cpu` takes all cores whatever the user asked for; trainings side by side would
        then fight."""
        allowed = os.environ.get("OMP_NUM_THREADS", "")
        if self.device.type == "cpu" and allowed.isdigit():
            torch.set_num_threads(max(1, int(allowed)))

    def _apply_schedule(self) -> None:
        if self.epochs is not None:
            self.num_epochs = self.epochs
            # Short runs would end before nnU-Net's first checkpoint at epoch 50, and --c would find
            # nothing.
            self.save_every: int = min(self.save_every, max(1, self.num_epochs // 10))
        if self.iterations_per_epoch is not None:
            self.num_iterations_per_epoch = self.iterations_per_epoch
            self.num_val_iterations_per_epoch = max(1, self.iterations_per_epoch // 10)
        if self.use_adam:
            self.initial_lr = 1e-3
            self.weight_decay = 0.0

    def initialize(self) -> None:
        """nnU-Net's network, optimiser and loss; with a ``seed`` the network's first weights are
        those of the seed."""
        if self.seed is not None:
            seed_process(self.seed)
        super().initialize()
        if self.start_at_class_frequencies and not self.with_dice:
            self.frequency_start = FrequencyStart(self)

    def _build_loss(self) -> nn.Module:
        # nnU-Net's own loss is built first: its Dice term, and the weights of its deep supervision
        # (which depend on DDP and torch.compile) are used as they are.
        loss = super()._build_loss()
        if isinstance(loss, DeepSupervisionWrapper):
            loss.loss = self._replace_loss(loss.loss)
        else:
            loss = self._replace_loss(loss)
        # Registered outside of all that is compiled.
        loss.register_forward_pre_hook(self.calibration_log.on_loss)
        return loss

    def _replace_loss(self, stock_loss: nn.Module) -> nn.Module:
        """The loss of one scale in place of nnU-Net's, whose Dice loss ``dc`` is taken over with
        ``with_dice``."""
        voxelwise_loss: Any = self._make_voxelwise_loss()
        if self._do_i_compile():
            voxelwise_loss = torch.compile(voxelwise_loss)
        dice_loss = stock_loss.get_submodule("dc") if self.with_dice else None
        return TrainingLoss(voxelwise_loss, self.label_space, dice_loss)

    def _make_voxelwise_loss(self) -> nn.Module:
        settings = self.all_loss_settings()
        if "kernel_size" in inspect.signature(self.loss_class).parameters:
            settings["kernel_size"] = self.neighborhood_size()
        make_loss: Callable[..., nn.Module] = self.loss_class
        return make_loss(
            **settings,
            ignore_label=self.label_space.ignore_label,
            regions=self.label_space.regions,
            check_labels=False,  # TrainingLoss checks the first batch
        )

    def neighborhood_size(self) -> tuple[int, ...]:
        """Voxels of the neighbourhood along every axis.

        What ``loss_settings`` says, else the loss's default, but 1 along axes where the plans'
        first convolution has size 1: there slices are so thick that nnU-Net does not take the next
        one for a neighbour either. Sizes that are given by axis are taken as they are.

        Raises:
            KeyError: The loss has no ``kernel_size``.

        """
        default = inspect.signature(self.loss_class).parameters["kernel_size"].default
        kernel_size = self.all_loss_settings().get("kernel_size", default)
        if not isinstance(kernel_size, int):
            return tuple(kernel_size)
        return tuple(1 if size == 1 else kernel_size for size in self._first_convolution())

    def _first_convolution(self) -> Sequence[int]:
        """Size of the plans' first convolution along every axis; 3 where they do not say it."""
        num_axes = len(self.configuration_manager.patch_size)
        stages = self.configuration_manager.network_arch_init_kwargs.get("kernel_sizes")
        if not isinstance(stages, (list, tuple)) or not stages:
            return (3,) * num_axes
        if not isinstance(stages[0], (list, tuple)):
            return (stages[0],) * num_axes
        return stages[0]

    def bare_network(self) -> nn.Module:
        """The network itself, out of what DDP and torch.compile wrap it in."""
        network: Any = self.network
        if self.is_ddp:
            network = network.module
        return getattr(network, "_orig_mod", network)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loaders; with a ``seed`` their random numbers follow from seed, rank and first
        epoch."""
        if self.seed is None:
            return super().get_dataloaders()
        # The epoch, so that a training that is continued does not see its first batches again. One
        # more than the rank, since NumPy fills up with zeros: (seed, 0, 0) would give the seed of
        # ``initialize`` again.
        entropy = (self.seed, 1 + self.local_rank, self.current_epoch)
        seed_process(*entropy)
        loaders = super().get_dataloaders()
        for loader_number, loader in enumerate(loaders):  # 0 is training, 1 is validation
            # nnU-Net starts workers unseeded; a loader without them draws from the process's own
            # generators.
            if isinstance(loader, NonDetMultiThreadedAugmenter):
                loader.seeds = make_seeds(loader.num_processes, (*entropy, loader_number))
                loader.restart()
        return loaders

    @classmethod
    def get_training_transforms(cls, *args: object, **kwargs: object) -> BasicTransform:
        """nnU-Net's augmentation; without ``augmentation`` none, as in its nnUNetTrainerNoDA."""
        if cls.augmentation:
            return super().get_training_transforms(*args, **kwargs)
        return nnUNetTrainerNoDA.get_training_transforms(*args, **kwargs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        """nnU-Net's; without ``augmentation`` patches are read at their final size, and nothing is
        mirrored."""
        rotation, dummy_2d, patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if not self.augmentation:
            patch_size = self.configuration_manager.patch_size
        if not self.augmentation or not self.mirroring:
            mirror_axes = None
            self.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, patch_size, mirror_axes

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """nnU-Net's optimiser, or the paper's with ``use_adam``."""
        if not self.use_adam:
            return super().configure_optimizers()
        parameters = self.network.parameters()
        optimizer = torch.optim.Adam(parameters, self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, HalfwayDecay(optimizer, self.initial_lr, self.num_epochs)

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split, its training cases cut to ``train_percent`` by a fixed order of their
        names."""
        training_cases, validation_cases = super().do_split()
        if self.train_percent is None:
            return training_cases, validation_cases
        in_fixed_order = sorted(training_cases, key=_digest)
        num_kept = max(1, math.ceil(len(in_fixed_order) * self.train_percent / 100))
        kept_cases = set(in_fixed_order[:num_kept])
        self.print_to_log_file(
            f"Training on {len(kept_cases)} of {len(training_cases)} cases"
            f" ({self.train_percent:g} %)."
        )
        return [case for case in training_cases if case in kept_cases], validation_cases

    def on_train_start(self) -> None:
        """Also logs the loss, and sets a new network's last biases where there is no Dice term."""
        super().on_train_start()
        if self.local_rank == 0:  # on other ranks nnU-Net would print the line once more
            with errors_logged(self.print_to_log_file, "the loss cannot be described", set()):
                self.print_to_log_file(self._describe_loss())
        if self.frequency_start is not None:
            self.frequency_start.on_train_start()

    def _describe_loss(self) -> str:
        """The loss with all its settings, in one line."""
        loss = self.loss
        scales = ""
        if isinstance(loss, DeepSupervisionWrapper):
            weights = ", ".join(f"{weight:.3g}" for weight in loss.weight_factors)
            scales = f"; weights of the deep supervision: {weights}"
            loss = loss.loss
        annealed = (
            "; the weight of the Dice term falls to 0 by half-time" if self.anneal_dice else ""
        )
        return f"Loss: {describe_loss(loss)}{annealed}{scales}"

    def on_train_epoch_start(self) -> None:
        """Also sets this epoch's weight of the Dice term where it is annealed."""
        super().on_train_epoch_start()
        self._checkpoint_of_weights = None  # this epoch changes the weights
        if self.anneal_dice:
            weight = max(0.0, 1 - 2 * self.current_epoch / self.num_epochs)
            loss = self.loss
            if isinstance(loss, DeepSupervisionWrapper):
                loss = loss.loss
            loss.weight_dice = weight
            self.print_to_log_file(f"Weight of the Dice term: {weight:.4f}")

    def on_validation_epoch_start(self) -> None:
        """Also begins to measure calibration."""
        super().on_validation_epoch_start()
        self.calibration_log.on_validation_epoch_start()

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """Also logs calibration."""
        super().on_validation_epoch_end(val_outputs)
        self.calibration_log.on_validation_epoch_end()

    def on_epoch_end(self) -> None:
        """Also draws calibration, beside nnU-Net's progress.png."""
        super().on_epoch_end()
        self.calibration_log.on_epoch_end()

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint, written beside and then renamed: a killed job leaves the old one or
        the new one."""
        if self.local_rank != 0 or self.disable_checkpointing:  # nnU-Net writes nothing then
            super().save_checkpoint(filename)
            return
        super().save_checkpoint(f"{filename}.tmp")
        os.replace(f"{filename}.tmp", filename)
        self._checkpoint_of_weights = Path(filename)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """nnU-Net's; which file the weights are from is remembered."""
        super().load_checkpoint(filename_or_checkpoint)
        self._checkpoint_of_weights = None
        if isinstance(filename_or_checkpoint, str):
            self._checkpoint_of_weights = Path(filename_or_checkpoint)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's validation; beside its summary.json also calibration.json, with or without
        ``--npz``."""
        with measured_validation(self, self._checkpoint_of_weights):
            super().perform_actual_validation(save_probabilities)
        if self.local_rank == 0 and (self.anneal_dice or not self.with_dice):
            command = tune_command(Path(self.output_folder_base))
            self.print_to_log_file(
                "Labels are nnU-Net's argmax, which fits losses with a Dice term to the end. After"
                f" this one `{command}` learns where to cut, once the folds are trained."
            )


def _digest(case: str) -> str:
    """What sorts cases by their names in an order that says nothing about them."""
    return hashlib.sha256(case.encode()).hexdigest()
