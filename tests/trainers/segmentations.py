"""Preprocessed cases with segmentations of known class frequencies, and trainers that start on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from tests.trainers.plans import DATASET

TRAINING, VALIDATION = ("case_0", "case_1", "case_2"), ("case_3", "case_4")


def write_segmentations(folder: Path, label_space: str, labels: tuple[int, ...] = (-1, 0, 1, 2)) -> np.ndarray:
    """Cases whose chunks do not divide their shapes; those for validation hold one label only.

    Args:
        folder: Holds nnU-Net's folder ``preprocessed``.
        label_space: One of ``plans.LABEL_SPACES``; with an ignore label the cases hold that, too.
        labels: Which occur, the first ones more often.

    Returns:
        (n,) labels of all voxels of the training cases, as they are on the disk.
    """
    dataset = folder / "preprocessed" / DATASET
    rng = np.random.default_rng(0)
    labels = (*labels, 3) if "ignore" in label_space else labels
    share = 0.3 ** np.arange(len(labels))
    voxels = []
    for number, case in enumerate(TRAINING + VALIDATION):
        segmentation = rng.choice(labels, (1, 3, 21 + number, 18), p=share / share.sum()).astype(np.int16)
        if case in VALIDATION:
            segmentation[:] = 2
        else:
            voxels.append(segmentation.ravel())
        grid = {"chunks": (1, 2, 16, 16), "blocks": (1, 1, 8, 16)}
        path = dataset / "nnUNetPlans_2d" / case
        for empty in path.parent.glob(f"{case}*.b2nd"):
            empty.unlink()
        nnUNetDatasetBlosc2.save_case(segmentation.astype(np.float32), segmentation, {}, str(path), **grid)
    (dataset / "splits_final.json").write_text(json.dumps([{"train": list(TRAINING), "val": list(VALIDATION)}]))
    (dataset / "dataset_fingerprint.json").write_text("{}")
    return np.concatenate(voxels)


def start(trainer) -> None:
    """What nnU-Net does before the first iteration, but for the batches that it prepares."""
    trainer.get_dataloaders = lambda: (None, None)
    trainer.plot_network_architecture = lambda: None
    trainer.on_train_start()
    trainer.logger.plot_progress_png = lambda folder: None
