"""Folders as nnU-Net writes them, filled with synthetic predictions."""

from __future__ import annotations

import itertools
import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

CLASSES = {"background": 0, "anterior": 1, "posterior": 2}
CLASSES_WITH_IGNORE = {**CLASSES, "ignore": 3}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
REGIONS_WITH_IGNORE = {**REGIONS, "ignore": 3}


@dataclass
class Model:
    """nnU-Net's three folders, below ``root``, with one model in them."""

    root: Path
    dataset: str
    trainer: str = "nnUNetTrainer"
    plans: str = "nnUNetPlans"
    configuration: str = "3d_fullres"

    @property
    def environment(self) -> dict[str, str]:
        """nnU-Net's three variables."""
        names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        return {name: str(self.root / name) for name in names}

    @property
    def folder(self) -> Path:
        name = f"{self.trainer}__{self.plans}__{self.configuration}"
        return self.root / "nnUNet_results" / self.dataset / name

    @property
    def references(self) -> Path:
        return self.root / "nnUNet_preprocessed" / self.dataset / "gt_segmentations"

    def validation(self, fold: int | str = 0) -> Path:
        return self.folder / f"fold_{fold}" / "validation"


def make_model(
    root: Path,
    *,
    dataset: str = "Dataset999_Synthetic",
    trainer: str = "nnUNetTrainer",
    labels: dict | None = None,
    cases: int = 3,
    folds: int = 1,
    shape: tuple[int, ...] = (6, 14, 12),
    spacing_mm: tuple[float, ...] = (2.0, 1.0, 0.5),
    seed: int = 0,
    sharpness: float = 4.0,
    file_ending: str = ".nii.gz",
    reader: str = "SimpleITKIO",
    dtype: str = "float32",
) -> Model:
    """Write a model folder with validated folds, and the ground truth of its data set.

    Args:
        cases: In each fold's validation.
        sharpness: Logit of the true class above the others: the larger, the better the networks.
        dtype: Of the saved probabilities.
    """
    labels = dict(labels or CLASSES)
    model = Model(root, dataset, trainer)
    rng = np.random.default_rng(seed)
    description, plans = describe(labels, cases * folds, file_ending, reader)
    for folder in (model.folder, model.references):
        folder.mkdir(parents=True, exist_ok=True)
    for folder in (model.folder, model.references.parent):
        write_json(folder / "dataset.json", description)
    write_json(model.folder / "plans.json", plans | {"dataset_name": dataset})

    cases_of_fold = [[f"case_{fold}{i}" for i in range(cases)] for fold in range(folds)]
    for fold, names in enumerate(cases_of_fold):
        validation = model.validation(fold)
        validation.mkdir(parents=True)
        for name in names:
            truth, probs, segmentation = random_case(rng, labels, shape, sharpness)
            write_image(truth, model.references / f"{name}{file_ending}", spacing_mm)
            probs = probs.astype(dtype)
            write_prediction(validation, name, probs, segmentation, spacing_mm, file_ending)
    write_json(model.references.parent / "splits_final.json", make_splits(cases_of_fold))
    return model


def make_splits(cases_of_fold: list[list[str]]) -> list[dict[str, list[str]]]:
    """Content of nnU-Net's splits_final.json: each fold trains on the cases of the others."""
    splits = []
    for fold, names in enumerate(cases_of_fold):
        others = cases_of_fold[:fold] + cases_of_fold[fold + 1 :]
        splits.append({"train": list(itertools.chain(*others)), "val": names})
    return splits


def describe(labels: dict, cases: int, file_ending: str, reader: str) -> tuple[dict, dict]:
    """Content of dataset.json and plans.json."""
    dataset = {
        "channel_names": {"0": "MRI"},
        "labels": labels,
        "numTraining": cases,
        "file_ending": file_ending,
    }
    if any(isinstance(value, list) for value in labels.values()):
        dataset["regions_class_order"] = [1, 2]
    plans = {
        "dataset_name": "Dataset999_Synthetic",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "label_manager": "LabelManager",
        "configurations": {},
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
    }
    return dataset, plans


def random_case(rng, labels: dict, shape: tuple[int, ...], sharpness: float = 4.0):
    """Truth with two touching structures, noisy probabilities, and nnU-Net's segmentation of them.

    The structures, 1 and 2, are the halves of a ball along the last axis. With an ignore label the
    first third of that axis is ignored in the truth.
    """
    coordinates = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape]
    grid = np.stack(np.meshgrid(*coordinates, indexing="ij"))
    centre = rng.uniform(-0.25, 0.25, size=(len(shape),) + (1,) * len(shape))
    distance = np.sqrt(((grid - centre) ** 2).sum(0)) / rng.uniform(0.5, 0.75)
    half = np.where(grid[-1] > centre[-1], 2, 1)
    truth = np.where(distance < 1, half, 0).astype(np.uint8)

    is_class = np.stack([truth == label for label in range(3)])
    logits = rng.normal(size=(3, *shape)) + sharpness * is_class
    softmax = np.exp(logits) / np.exp(logits).sum(0)
    if any(isinstance(value, list) for value in labels.values()):
        probs = np.stack((softmax[1] + softmax[2], softmax[2])).clip(0, 1)
        segmentation = np.zeros(shape, dtype=np.uint8)
        segmentation[probs[0] > 0.5] = 1
        segmentation[probs[1] > 0.5] = 2
    else:
        probs = softmax
        segmentation = softmax.argmax(0).astype(np.uint8)
    if "ignore" in labels:
        truth[..., : shape[-1] // 3] = labels["ignore"]
    return truth, probs, segmentation


def write_prediction(
    folder: Path, name: str, probs, segmentation, spacing_mm, file_ending: str = ".nii.gz"
) -> None:
    """npz, pkl and segmentation of one case."""
    np.savez_compressed(folder / f"{name}.npz", probabilities=probs)
    dimensions = len(spacing_mm)
    in_space = {
        "spacing": tuple(map(float, spacing_mm[::-1])),
        "origin": (0.0,) * dimensions,
        "direction": tuple(np.eye(dimensions).ravel()),
    }
    properties = {
        "spacing": list(spacing_mm),
        "shape_before_cropping": segmentation.shape,
        "sitk_stuff": in_space,
    }
    with open(folder / f"{name}.pkl", "wb") as file:
        pickle.dump(properties, file)
    write_image(segmentation, folder / f"{name}{file_ending}", spacing_mm)


def write_image(array: np.ndarray, path: Path, spacing_mm: tuple[float, ...]) -> None:
    """Write a label map in the format of the path's ending."""
    if path.suffix == ".png":
        from skimage import io

        io.imsave(path, array[0] if array.ndim == 3 else array, check_contrast=False)
        return
    if path.suffix in (".tif", ".tiff"):
        import tifffile

        tifffile.imwrite(path, array)
        return
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in spacing_mm[::-1]])
    sitk.WriteImage(image, str(path))


def read(path: Path) -> np.ndarray:
    """The array of an image."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content))
