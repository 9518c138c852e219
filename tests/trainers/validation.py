"""Trainers that are ready for nnU-Net's final validation: preprocessed cases, ground truth, and a
network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from tests.runs.folders import write_image
from tests.trainers.epochs import construct
from tests.trainers.plans import DATASET, dataset_json, make_plans

CASES = tuple(f"case_{number}" for number in range(5))
SPACING_MM = (2.0, 1.0, 1.0)
SHAPE = (6, 24, 20)
CROP = ((0, 6), (2, 22), (3, 19))


def write_cases(folder: Path, label_space: str, *, configuration: str = "2d") -> None:
    """Cases as nnU-Net preprocesses them: cropped, on another grid than their images."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    description = dataset_json(label_space)
    dataset = folder / "preprocessed" / DATASET
    preprocessed = dataset / f"nnUNetPlans_{configuration}"
    references = dataset / "gt_segmentations"
    for path in (preprocessed, references):
        path.mkdir(parents=True)
    size = tuple(high - low for low, high in CROP)
    for number, case in enumerate(CASES):
        rng = np.random.default_rng(number)
        labels = np.zeros(SHAPE, np.uint8)
        labels[1:5, 6:16, 6 : 12 + number % 3] = 1
        labels[2:4, 9:14, 8:11] = 2
        if "ignore" in label_space:
            labels[0] = 3
        wrong = rng.random(SHAPE) < 0.05  # no observer is perfect, and no map has to be
        observed = np.where(wrong & (labels < 3), rng.integers(0, 3, SHAPE), labels).astype(
            np.uint8
        )
        write_image(observed, references / f"{case}.nii.gz", SPACING_MM)
        rows, columns = (
            low + np.linspace(0, high - low - 1, 16).round().astype(int) for low, high in CROP[1:]
        )
        target = labels[:, rows][:, :, columns][None].astype(np.int16)
        data = (target + rng.normal(size=target.shape)).astype(np.float32)
        in_space = {
            "spacing": SPACING_MM[::-1],
            "origin": (0.0,) * 3,
            "direction": tuple(np.eye(3).ravel()),
        }
        properties = {
            "spacing": list(SPACING_MM),
            "sitk_stuff": in_space,
            "shape_before_cropping": SHAPE,
            "bbox_used_for_cropping": [list(pair) for pair in CROP],
            "shape_after_cropping_and_before_resampling": size,
        }
        nnUNetDatasetBlosc2.save_case(data, target, properties, str(preprocessed / case))
    (dataset / "splits_final.json").write_text(
        json.dumps([{"train": ["other"], "val": list(CASES)}])
    )
    (dataset / "dataset.json").write_text(json.dumps(description))


def make_validator(label_space: str, name: str = "nnUNetTrainerCE_1epochs", steps: int = 0):
    """A trainer with a network of random weights, trained for some steps, and what nnU-Net writes
    at the start."""
    trainer = construct(name, label_space)
    trainer.device = torch.device("cpu")
    trainer.grad_scaler = None
    torch.manual_seed(0)
    trainer.initialize()
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.mul_(2)  # confident enough for all bins
    optimizer = torch.optim.Adam(trainer.network.parameters(), 1e-2)
    dataset = (
        trainer.dataset_class(trainer.preprocessed_dataset_folder, list(CASES)) if steps else None
    )
    for step in range(steps):
        data, target, *_ = dataset.load_case(CASES[step % len(CASES)])
        logits = trainer.network(torch.from_numpy(data[:]).transpose(0, 1))[0]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(target[0]).long()).backward()
        optimizer.step()
    model = Path(trainer.output_folder_base)
    for file, content in (
        ("plans.json", make_plans()),
        ("dataset.json", dataset_json(label_space)),
    ):
        (model / file).write_text(json.dumps(content))
    return trainer
