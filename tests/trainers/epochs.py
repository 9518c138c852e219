"""Trainers that go through real epochs of nnU-Net, on batches and preprocessed cases made here,
with small networks."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_nacl_trainers import get_trainer
from tests.trainers.plans import DATASET, dataset_json, make_plans

IGNORE = 3


def construct(
    name: str, label_space: str = "classes", num_axes: int = 2, fold: int = 0, **plans
) -> nnUNetTrainer:
    """A trainer from its name, nnU-Net's own included, as nnU-Net constructs it."""
    trainer = nnUNetTrainer if name == "nnUNetTrainer" else get_trainer(name)
    configuration = "2d" if num_axes == 2 else "3d_fullres"
    return trainer(
        make_plans(num_axes, **plans),
        configuration,
        fold,
        dataset_json(label_space),
        torch.device("cpu"),
    )


class TinyNetwork(nn.Module):
    """Logits at one resolution, or at as many as nnU-Net's deep supervision asks for, each half the
    one before."""

    def __init__(self, num_axes: int, num_channels: int, num_scales: int | None) -> None:
        super().__init__()
        self.layer = (nn.Conv2d, nn.Conv3d)[num_axes - 2](1, num_channels, 3, padding=1)
        self.pool = (nn.functional.avg_pool2d, nn.functional.avg_pool3d)[num_axes - 2]
        self.num_scales = num_scales

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        logits = 3 * self.layer(image)
        if self.num_scales is None:
            return logits
        return [logits if i == 0 else self.pool(logits, 2**i) for i in range(self.num_scales)]


def make_batch(
    label_space: str, num_axes: int, seed: int, num_scales: int | None = None, shape: tuple = ()
) -> dict:
    """An image and its target as nnU-Net's loaders give them."""
    generator = torch.Generator().manual_seed(seed)
    shape = shape or ((16,) * num_axes if num_axes == 2 else (8, 8, 16))
    labels = torch.randint(4 if "ignore" in label_space else 3, (2, 1, *shape), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.5] = 0
    image = labels.float() + torch.randn(labels.shape, generator=generator)
    target = labels.to(torch.int16)
    if label_space.startswith("regions"):
        channels = [(labels == 1) | (labels == 2), labels == 2]
        target = torch.cat(
            [*channels, labels == IGNORE] if label_space == "regions_ignore" else channels, 1
        )
    if num_scales is None:
        return {"data": image, "target": target}
    step = [
        (slice(None), slice(None), *[slice(None, None, 2**i)] * num_axes) for i in range(num_scales)
    ]
    return {"data": image, "target": [target[index].clone() for index in step]}


def prepare(trainer, *, num_axes: int = 2, deep_supervision: bool = True):
    """Give a trainer the tiny network and make it ready for :func:`run_epoch`."""
    trainer.enable_deep_supervision = deep_supervision
    num_scales = len(trainer._get_deep_supervision_scales()) if deep_supervision else None
    torch.manual_seed(0)
    trainer.network = TinyNetwork(
        num_axes, trainer.label_manager.num_segmentation_heads, num_scales
    )
    trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()
    trainer.loss = trainer._build_loss()
    trainer.was_initialized = True
    trainer.logger.plot_progress_png = lambda folder: None  # it takes two seconds
    return trainer


def run_epoch(trainer, training: Sequence[dict], validation: Sequence[dict]) -> None:
    """What nnUNetTrainer.run_training does in an epoch. The batches stay as they are."""
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer.on_train_epoch_end([trainer.train_step(copy.deepcopy(batch)) for batch in training])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end(
            [trainer.validation_step(copy.deepcopy(batch)) for batch in validation]
        )
    trainer.on_epoch_end()


def log_of(trainer) -> str:
    """All that its logs of the training say."""
    return "".join(
        path.read_text() for path in Path(trainer.output_folder).glob("training_log_*.txt")
    )


def observed(trainer, validation: Sequence[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a record of these batches is about: logits (K, n), truth (n,) or (R, n), and valid
    (n,)."""
    logits = []
    targets = []
    for batch in validation:
        with torch.no_grad():
            output = trainer.network(batch["data"])
        target = batch["target"]
        if isinstance(target, list):
            output = output[0]
            target = target[0]
        logits.append(output.movedim(1, 0).flatten(1))
        targets.append(target.movedim(1, 0).flatten(1))
    logits = torch.cat(logits, 1).numpy()
    target = torch.cat(targets, 1).numpy()
    if not trainer.label_manager.has_regions:
        return logits, target[0], target[0] != IGNORE
    valid = ~target[2] if len(target) == 3 else np.ones(target.shape[1], dtype=bool)
    return logits, target[:2], valid


TRAINING = ("case_0", "case_1", "case_2")
VALIDATION = ("case_3", "case_4")


def write_segmentations(folder: Path, label_space: str) -> np.ndarray:
    """Cases whose chunks do not divide their shapes, those for validation with one label; labels of
    the training's."""
    dataset = folder / "preprocessed" / DATASET
    rng = np.random.default_rng(0)
    labels = (-1, 0, 1, 2, 3) if "ignore" in label_space else (-1, 0, 1, 2)
    share = 0.3 ** np.arange(len(labels))
    voxels = []
    for number, case in enumerate(TRAINING + VALIDATION):
        segmentation = rng.choice(labels, (1, 3, 21 + number, 18), p=share / share.sum()).astype(
            np.int16
        )
        if case in VALIDATION:
            segmentation[:] = 2
        else:
            voxels.append(segmentation.ravel())
        grid = {"chunks": (1, 2, 16, 16), "blocks": (1, 1, 8, 16)}
        path = dataset / "nnUNetPlans_2d" / case
        for empty in path.parent.glob(f"{case}*.b2nd"):
            empty.unlink()
        nnUNetDatasetBlosc2.save_case(
            segmentation.astype(np.float32), segmentation, {}, str(path), **grid
        )
    (dataset / "splits_final.json").write_text(
        json.dumps([{"train": list(TRAINING), "val": list(VALIDATION)}])
    )
    (dataset / "dataset_fingerprint.json").write_text("{}")
    return np.concatenate(voxels)


def start(trainer) -> None:
    """What nnU-Net does before the first iteration, but for the batches that it prepares."""
    trainer.get_dataloaders = lambda: (None, None)
    trainer.plot_network_architecture = lambda: None
    trainer.on_train_start()
    trainer.logger.plot_progress_png = lambda folder: None
