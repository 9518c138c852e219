"""What all trainers share: nnU-Net's trainer with another loss and, where the name says so, another schedule.

nnU-Net reads constructor arguments from the signature and makes the class anew from its name at prediction. So every
trainer has nnU-Net's own constructor, and a variant is a subclass whose name spells out its attribute ``variant``.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA
from torch import Tensor, nn

from nnunet_nacl import losses
from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.methods import METHODS
from nnunet_nacl.registration.grammar import STOCK, Variant, loss_settings
from nnunet_nacl_trainers.frequency_start import FrequencyStart
from nnunet_nacl_trainers.recording import CalibrationRecorder, measured_validation


class CalibrationTrainer(nnUNetTrainer):
    """nnU-Net's trainer with the loss and schedule of ``variant``, made by :func:`nnunet_nacl_trainers.get_trainer`."""

    variant: ClassVar[Variant]

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.device.type == "cpu" and os.environ.get("OMP_NUM_THREADS", "").isdigit():
            # `-device cpu` takes all cores whatever the user asked for; trainings side by side would then fight.
            torch.set_num_threads(max(1, int(os.environ["OMP_NUM_THREADS"])))
        if self.variant.epochs is not None:
            self.num_epochs = self.variant.epochs
            # Short runs would end before nnU-Net's first checkpoint at epoch 50, and --c would find nothing.
            self.save_every: int = min(self.save_every, max(1, self.num_epochs // 10))
        if self.variant.iterations is not None:
            self.num_iterations_per_epoch = self.variant.iterations
            self.num_val_iterations_per_epoch = max(1, self.variant.iterations // 10)
        if self.variant.adam:
            self.initial_lr = 1e-3
            self.weight_decay = 0.0
        self.frequency_start: FrequencyStart | None = None
        regions = bool(self.label_manager.has_regions)  # nnU-Net appends the ignore mask to their target
        self.label_space = LabelSpace(regions, None if regions else self.label_manager.ignore_label)
        self.calibration_recorder = CalibrationRecorder(self, self.label_space)
        self._weights: Path | None = None  # checkpoint whose weights the network has

    def _build_loss(self) -> nn.Module:
        # nnU-Net's own loss is built first: its Dice term, and the weights of its deep supervision (which depend on
        # DDP and torch.compile) are used as they are.
        loss = super()._build_loss()
        if isinstance(loss, DeepSupervisionWrapper):
            loss.loss = self._replace_loss(loss.loss)
        else:
            loss = self._replace_loss(loss)
        loss.register_forward_pre_hook(self.calibration_recorder.on_loss)  # outside of all that is compiled
        return loss

    def _replace_loss(self, stock: Any) -> nn.Module:
        if self.variant.method == STOCK.method and self.variant.dice:  # nnU-Net's own loss under another schedule
            return stock
        method, settings = METHODS[self.variant.method], loss_settings(self.variant) | vars(self.label_space)
        if "kernel_size" in method.defaults:
            settings["kernel_size"] = self.neighborhood_size()
        voxelwise = getattr(losses, method.module)(**settings, check_labels=False)  # TrainingLoss checks them
        compiled: Any = torch.compile(voxelwise) if self._do_i_compile() else voxelwise
        return TrainingLoss(compiled, self.label_space, stock.dc if self.variant.dice else None)

    def neighborhood_size(self) -> tuple[int, ...]:
        """Voxels of the neighbourhood along every axis.

        What the trainer's name says, else 3, but 1 along axes where the plans' first convolution has size 1: there
        slices are so thick that nnU-Net does not take the next one for a neighbour either.
        """
        num_axes = len(self.configuration_manager.patch_size)
        kernels = self.configuration_manager.network_arch_init_kwargs.get("kernel_sizes")
        first = kernels[0] if isinstance(kernels, (list, tuple)) and kernels else 3
        sizes = first if isinstance(first, (list, tuple)) else (first,) * num_axes
        return tuple(1 if size == 1 else self.variant.kernel_size or 3 for size in sizes)

    def initialize(self) -> None:
        """nnU-Net's network, optimiser and loss; for ``seed`` the network's first weights are those of the seed."""
        if self.variant.seed is not None:
            seed_process(self.variant.seed)
        super().initialize()
        if not self.variant.dice and not self.variant.plainstart:
            self.frequency_start = FrequencyStart(self)

    def bare_network(self) -> nn.Module:
        """The network itself, out of what DDP and torch.compile wrap it in."""
        network: Any = self.network.module if self.is_ddp else self.network
        return getattr(network, "_orig_mod", network)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loaders; for ``seed`` their random numbers follow from seed, rank and the epoch they start at."""
        if self.variant.seed is None:
            return super().get_dataloaders()
        # The epoch, so that a training that is continued does not see its first batches again.
        entropy = (self.variant.seed, 1 + self.local_rank, self.current_epoch)
        seed_process(*entropy)
        loaders = super().get_dataloaders()
        for number, loader in enumerate(loaders):
            # nnU-Net starts workers unseeded; a loader without them draws from the process's own generators.
            if isinstance(loader, NonDetMultiThreadedAugmenter):
                loader.seeds = _seeds(loader.num_processes, (*entropy, number))
                loader.restart()
        return loaders

    @classmethod
    def get_training_transforms(cls, *args: Any, **kwargs: Any) -> BasicTransform:
        """nnU-Net's augmentation; for ``noda`` none, as in its nnUNetTrainerNoDA."""
        stock: Any = nnUNetTrainerNoDA if cls.variant.noda else super()
        return stock.get_training_transforms(*args, **kwargs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        """nnU-Net's; for ``noda`` patches are read at their final size, and not mirrored in prediction either."""
        rotation, dummy_2d, *others = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.variant.noda:
            self.inference_allowed_mirroring_axes = None
            others = [self.configuration_manager.patch_size, None]
        return rotation, dummy_2d, *others

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """nnU-Net's optimiser, or the paper's for ``adam``."""
        if not self.variant.adam:
            return super().configure_optimizers()
        optimizer = torch.optim.Adam(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, HalfwayDecay(optimizer, self.initial_lr, self.num_epochs)

    def on_train_start(self) -> None:
        """Also sets a new network's last biases where there is no Dice term."""
        super().on_train_start()
        if self.frequency_start is not None:
            self.frequency_start.on_train_start()

    def on_train_epoch_start(self) -> None:
        """Set this epoch's weight of the Dice term where it is annealed."""
        super().on_train_epoch_start()
        self._weights = None
        if self.variant.anneal:
            weight = max(0.0, 1 - 2 * self.current_epoch / self.num_epochs)
            loss = self.loss.loss if isinstance(self.loss, DeepSupervisionWrapper) else self.loss
            loss.weight_dice = weight
            self.print_to_log_file(f"Weight of the Dice term: {weight:.4f}")

    def on_validation_epoch_start(self) -> None:
        """Also begins to measure calibration."""
        super().on_validation_epoch_start()
        self.calibration_recorder.on_validation_epoch_start()

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """Also logs calibration."""
        super().on_validation_epoch_end(val_outputs)
        self.calibration_recorder.on_validation_epoch_end()

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split, its training cases cut to the variant's share by a fixed order of their names."""
        training, validation = super().do_split()
        if self.variant.train_percent is None:
            return training, validation
        order = sorted(training, key=lambda case: hashlib.sha256(case.encode()).hexdigest())
        kept = set(order[: max(1, math.ceil(len(order) * self.variant.train_percent / 100))])
        self.print_to_log_file(f"Training on {len(kept)} of {len(order)} cases ({self.variant.train_percent:g} %).")
        return [case for case in training if case in kept], validation

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint, written beside and then renamed: a killed job leaves the old one or the new one."""
        if self.local_rank != 0 or self.disable_checkpointing:  # nnU-Net writes nothing then
            super().save_checkpoint(filename)
            return
        super().save_checkpoint(f"{filename}.tmp")
        os.replace(f"{filename}.tmp", filename)
        self._weights = Path(filename)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """nnU-Net's; which file the weights are from is remembered."""
        super().load_checkpoint(filename_or_checkpoint)
        self._weights = Path(filename_or_checkpoint) if isinstance(filename_or_checkpoint, str) else None

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's validation; beside its summary.json also calibration.json, with or without ``--npz``."""
        with measured_validation(self, self._weights):
            super().perform_actual_validation(save_probabilities)


class TrainingLoss(nn.Module):
    """``voxelwise(logits, target) + weight_dice * dc(logits, target)``.

    ``voxelwise`` is a loss of :mod:`nnunet_nacl.losses`, compiled or not, ``dc`` nnU-Net's soft Dice loss as nnU-Net
    built it, or None. Ignored voxels are masked for it as in nnU-Net's compound losses.
    """

    def __init__(self, voxelwise: nn.Module, label_space: LabelSpace, dc: nn.Module | None = None) -> None:
        super().__init__()
        self.voxelwise = voxelwise
        self.dc = dc
        self.weight_dice = 1.0  # the name that nnU-Net's compound losses use, so that both are annealed alike
        self._label_space = label_space
        self._checked = False

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of one batch at one scale of the deep supervision.

        Raises:
            ValueError: The first batch holds a label that is no class. Later batches are not looked at: that would
                make the GPU wait in every iteration.
        """
        if not self._checked:
            self._label_space.read(logits, target, check_labels=True)
            self._checked = True
        loss = self.voxelwise(logits, target)
        if self.dc is not None and self.weight_dice != 0:
            read = self._label_space.read(logits, target, check_labels=False)
            labels = read.labels if self._label_space.regions else read.labels[:, None]
            mask = None if read.valid is None else read.valid[:, None]
            loss = loss + self.weight_dice * self.dc(logits, labels, loss_mask=mask)
        return loss

    def extra_repr(self) -> str:
        """Shown in nnU-Net's debug.json."""
        return f"weight_dice={self.weight_dice}" if self.dc is not None else ""


class HalfwayDecay(PolyLRScheduler):
    """Learning rate that drops to a tenth at half of the training (Murugesan et al. 2025, section 4.2).

    A function of the epoch alone, so that a training that nnU-Net continues needs no saved state.
    """

    def step(self, current_step: int | None = None) -> None:
        """Set the rate for an epoch; for the first one if there is none yet."""
        rate = self.initial_lr if (current_step or 0) < self.max_steps / 2 else self.initial_lr / 10
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._last_lr = [rate] * len(self.optimizer.param_groups)


def seed_process(*entropy: int) -> None:
    """Seed Python's, numpy's and PyTorch's generators (of all devices) of this process by numbers from 0."""
    (seed,) = _seeds(1, entropy)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _seeds(number: int, entropy: tuple[int, ...]) -> list[int]:
    return [int(seed) for seed in np.random.SeedSequence(entropy).generate_state(number)]
