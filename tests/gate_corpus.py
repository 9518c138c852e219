"""The corpus of the gate: small data sets with validated folds, networks and predictions, the same at every making.

One folder holds nnU-Net's three (nnUNet_raw, nnUNet_preprocessed, nnUNet_results) and ``predictions/DATASET``, with the
predictions of three members of an ensemble and their ``labels``. Nothing in here comes from the package under test.
"""

from __future__ import annotations

import copy
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from tests.prediction.untrained import plans_json
from tests.runs.folders import (
    CLASSES,
    CLASSES_WITH_IGNORE,
    REGIONS,
    random_case,
    write_image,
    write_json,
    write_prediction,
)

MEMBERS = 3
CASES = 6
STEPS = 150  # of training: enough to segment at all


@dataclass(frozen=True)
class GateDataset:
    """One data set of the corpus."""

    number: int
    name: str
    labels: dict[str, Any] = field(default_factory=lambda: CLASSES)
    configuration: str = "3d_fullres"
    shape: tuple[int, ...] = (9, 17, 14)
    spacing_mm: tuple[float, ...] = (2.0, 1.0, 0.8)
    ending: str = ".nii.gz"

    @property
    def folder(self) -> str:
        return f"Dataset{self.number}_{self.name}"

    @property
    def channels(self) -> int:
        return 1 if self.ending == ".png" else 2

    @property
    def regions(self) -> bool:
        return any(isinstance(value, list) for value in self.labels.values())

    @property
    def description(self) -> dict[str, Any]:
        names = {str(i): name for i, name in enumerate(("CT", "PET")[: self.channels])}
        order = {"regions_class_order": [1, 2]} if self.regions else {}
        return {"channel_names": names, "labels": self.labels, "file_ending": self.ending, "numTraining": 6, **order}

    @property
    def plans(self) -> dict[str, Any]:
        plans = plans_json() | {"dataset_name": self.folder}
        if self.configuration != "2d":
            return plans
        flat = copy.deepcopy(plans["configurations"]["3d_fullres"])
        settings = flat["architecture"]["arch_kwargs"]
        settings |= {"kernel_sizes": [[3, 3]] * 2, "strides": [[1, 1], [2, 2]]}
        settings |= {"conv_op": "torch.nn.modules.conv.Conv2d"}
        settings |= {"norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d"}
        flat |= {"data_identifier": "nnUNetPlans_2d", "patch_size": [16, 16], "spacing": [1.0, 1.0]}
        flat |= {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False]}
        flat |= {"median_image_size_in_voxels": list(self.shape[1:])}
        axes = {"transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2]}
        axes |= {"original_median_spacing_after_transp": list(self.spacing_mm)}
        axes |= {"original_median_shape_after_transp": list(self.shape), "image_reader_writer": "NaturalImage2DIO"}
        return plans | axes | {"configurations": {"2d": flat}}


DATASETS = (
    GateDataset(901, "Classes"),
    GateDataset(902, "Regions", REGIONS),
    GateDataset(903, "Ignore", CLASSES_WITH_IGNORE),
    GateDataset(904, "Slices", CLASSES, "2d", (1, 22, 18), (999.0, 1.0, 1.0), ".png"),
    GateDataset(905, "Cascade", CLASSES, "3d_cascade_fullres"),
)


def make_corpus(root: Path) -> None:
    """Make all data sets under ``root``, a new folder."""
    torch.set_num_threads(1)
    os.environ |= {name: str(root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for dataset in DATASETS:
        _make_dataset(root, dataset)


def _make_dataset(root: Path, dataset: GateDataset) -> None:
    raw, preprocessed, results = (
        root / name / dataset.folder for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    )
    rng = np.random.default_rng(dataset.number)
    folds = [[f"patient{fold}{i // 2}_{i}" for i in range(3)] for fold in range(2)]
    for folder in (raw / "imagesTr", raw / "imagesTs", preprocessed / "gt_segmentations", results):
        folder.mkdir(parents=True)
    for folder in (raw, preprocessed):
        write_json(folder / "dataset.json", dataset.description)
    write_json(preprocessed / "nnUNetPlans.json", dataset.plans)
    write_json(
        preprocessed / "splits_final.json", [{"train": folds[1 - i], "val": folds[i]} for i in range(len(folds))]
    )
    trainers = ("nnUNetTrainer", "nnUNetTrainerNACL", "nnUNetTrainerCE")
    models = {name: results / f"{name}__nnUNetPlans__{dataset.configuration}" for name in trainers}
    for model in models.values():
        model.mkdir()
        write_json(model / "dataset.json", dataset.description)
        write_json(model / "plans.json", dataset.plans)
        write_json(model / "dataset_fingerprint.json", {})
    for fold, cases in enumerate(folds):
        for case in cases:
            truth, probs, segmentation = random_case(rng, dataset.labels, dataset.shape)
            write_image(truth, preprocessed / "gt_segmentations" / f"{case}{dataset.ending}", dataset.spacing_mm)
            _write_scan(raw / "imagesTr", case, truth, rng, dataset)
            for name, blur in (("nnUNetTrainer", 0.0), ("nnUNetTrainerNACL", 0.3)):
                validation = models[name] / f"fold_{fold}" / "validation"
                validation.mkdir(parents=True, exist_ok=True)
                _write(validation, case, *_blurred(rng, probs, segmentation, blur, dataset.regions), dataset)
    _make_networks(root, dataset, models, folds)
    _make_predictions(root / "predictions" / dataset.folder, raw / "imagesTs", rng, dataset)


def _make_predictions(folder: Path, scans: Path, rng: np.random.Generator, dataset: GateDataset) -> None:
    """Cases that no fold has: one is empty, one lacks a structure, one is of half precision."""
    (folder / "labels").mkdir(parents=True)
    for member in range(MEMBERS):
        (folder / f"member{member}").mkdir()
        write_json(folder / f"member{member}" / "dataset.json", dataset.description)
        write_json(folder / f"member{member}" / "plans.json", dataset.plans)
    for i in range(CASES):
        case = f"scan_{i}"
        truth, probs, segmentation = random_case(rng, dataset.labels, dataset.shape, sharpness=5 - 0.7 * i)
        write_image(truth, folder / "labels" / f"{case}{dataset.ending}", dataset.spacing_mm)
        if i < 2:
            _write_scan(scans, case, truth, rng, dataset)
        if i == 2:
            probs, segmentation = _without_core(probs, dataset.regions)
        elif i == 3:
            probs, segmentation = _empty(probs, dataset.regions)
        for member in range(MEMBERS):
            seen, mine = _blurred(rng, probs, segmentation, 0.15 * member, dataset.regions)
            _write(folder / f"member{member}", case, seen.astype(np.float16 if i == 1 else seen.dtype), mine, dataset)


def _write(folder: Path, case: str, probs: np.ndarray, segmentation: np.ndarray, dataset: GateDataset) -> None:
    write_prediction(folder, case, probs, segmentation, dataset.spacing_mm, dataset.ending)
    if dataset.ending == ".png":  # nnU-Net's reader of such images notes nothing but the spacing
        properties = {"spacing": list(dataset.spacing_mm), "shape_before_cropping": segmentation.shape}
        (folder / f"{case}.pkl").write_bytes(pickle.dumps(properties))


def _write_scan(folder: Path, case: str, truth: np.ndarray, rng: np.random.Generator, dataset: GateDataset) -> None:
    for channel in range(dataset.channels):
        image = 60.0 * np.minimum(truth, 2) + rng.normal(30, 15, truth.shape) + 40 * channel
        path = folder / f"{case}_{channel:04d}{dataset.ending}"
        if dataset.ending == ".png":
            write_image(image.clip(0, 255).astype(np.uint8), path, dataset.spacing_mm)
            continue
        image[:, :2] = 0  # a border that nnU-Net crops
        written = sitk.GetImageFromArray(image.astype(np.float32))
        written.SetSpacing([float(step) for step in dataset.spacing_mm[::-1]])
        sitk.WriteImage(written, str(path))


def _blurred(rng, probs, segmentation, share: float, regions: bool) -> tuple[np.ndarray, np.ndarray]:
    """Another network's opinion of the same case: part of it is noise."""
    if not share:
        return probs.astype(np.float32), segmentation
    noise = rng.uniform(size=probs.shape)
    mixed = (1 - share) * probs + share * (noise if regions else noise / noise.sum(0))
    return mixed.astype(np.float32), _labels_of(mixed, regions)


def _without_core(probs: np.ndarray, regions: bool) -> tuple[np.ndarray, np.ndarray]:
    changed = probs.copy()
    changed[-1] *= 0.4
    if not regions:
        changed /= changed.sum(0)
        changed[0] += 0.5 * (changed.argmax(0) == 2)
        changed /= changed.sum(0)
    return changed.astype(np.float32), _labels_of(changed, regions)


def _empty(probs: np.ndarray, regions: bool) -> tuple[np.ndarray, np.ndarray]:
    changed = 0.3 * probs
    if not regions:
        changed[0] += 0.7
    return changed.astype(np.float32), _labels_of(changed, regions)


def _labels_of(probs: np.ndarray, regions: bool) -> np.ndarray:
    if regions:
        return np.where(probs[1] > 0.5, 2, np.where(probs[0] > 0.5, 1, 0)).astype(np.uint8)
    return probs.argmax(0).astype(np.uint8)


def _make_networks(root: Path, dataset: GateDataset, models: dict[str, Path], folds: list[list[str]]) -> None:
    """Networks that trained for a moment on the other fold, as checkpoints older than all predictions."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(dataset.plans)
    settings = manager.get_configuration(dataset.configuration)
    labels = manager.get_label_manager(dataset.description)
    inputs = determine_num_input_channels(manager, settings, dataset.description)
    raw, preprocessed = (root / name / dataset.folder for name in ("nnUNet_raw", "nnUNet_preprocessed"))
    place = preprocessed / settings.data_identifier
    place.mkdir()
    loaded = {}
    for case in (case for cases in folds for case in cases):
        images = sorted(str(path) for path in (raw / "imagesTr").glob(f"{case}_*"))
        truth = str(preprocessed / "gt_segmentations" / f"{case}{dataset.ending}")
        data, seg, properties = settings.preprocessor_class(verbose=False).run_case(
            images, truth, manager, settings, dataset.description
        )
        nnUNetDatasetBlosc2.save_case(data, seg, properties, str(place / case))
        if settings.previous_stage_name:
            for model in models.values():
                trainer, plans, configuration = model.name.split("__")
                before = model.parent / f"{trainer}__{plans}__{settings.previous_stage_name}"
                before = before / "predicted_next_stage" / configuration
                before.mkdir(parents=True, exist_ok=True)
                nnUNetDatasetBlosc2.save_seg(np.clip(seg[0], 0, 2).astype(np.uint8), str(before / case))
            data = np.vstack((data, *((seg == label).astype(data.dtype) for label in (1, 2))))
        loaded[case] = data, seg
    for fold in range(len(folds)):
        for number, model in enumerate(models.values()):
            torch.manual_seed(10 * fold + number)
            network = nnUNetTrainer.build_network_architecture(
                manager, settings, inputs, labels.num_segmentation_heads, enable_deep_supervision=False
            )
            _train(network, [loaded[case] for case in folds[1 - fold]], dataset)
            path = model / f"fold_{fold}" / "checkpoint_final.pth"
            path.parent.mkdir(exist_ok=True)
            (path.parent / "progress.png").write_bytes(b"a picture")  # as nnU-Net's export wants it
            if (path.parent / "validation").is_dir():
                write_json(path.parent / "validation" / "summary.json", {"foreground_mean": {}})
            content = {
                "network_weights": network.state_dict(),
                "trainer_name": model.name.split("__")[0],
                "init_args": {"configuration": dataset.configuration},
                "inference_allowed_mirroring_axes": (0,),
            }
            torch.save(content, path)
            os.utime(path, (1e9, 1e9))


def _train(network: torch.nn.Module, cases: list[tuple[np.ndarray, np.ndarray]], dataset: GateDataset) -> None:
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(STEPS):
        data, seg = cases[step % len(cases)]
        even = tuple(slice(n - n % 2) if n > 1 else slice(None) for n in data.shape[1:])
        image, target = (torch.from_numpy(np.array(array[(slice(None), *even)])) for array in (data, seg))
        image, target = image[None].float(), target.long()
        if dataset.configuration == "2d":
            image, target = image[:, :, 0], target[:, 0]
        valid = (target >= 0) & (target < 3)
        logits, target = network(image), target.clamp(0, 2)
        if dataset.regions:
            truth = torch.stack((target > 0, target == 2), 1).to(logits.dtype)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        else:
            loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")[valid].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
