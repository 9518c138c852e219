"""Model folders with networks of random weights, which predict in no time, and scans for them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from nnunet_nacl.cli.main import main
from nnunet_nacl.estimators.learned_quality import learn
from nnunet_nacl.estimators.log_odds_map import map_from_tables
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.utilities.files import checksum, to_json_text
from nnunet_nacl.utilities.json_files import encode
from tests.estimators.problems import quality_of
from tests.metrics.models import map_to_json
from tests.runs.folders import CLASSES, read
from tests.trainers.plans import architecture, resampling

SPACING_MM = (2.0, 1.0, 0.8)  # z, y, x
SHAPE = (9, 17, 14)
TRAINER = "nnUNetTrainer"


def make_model(
    root: Path,
    *,
    labels: dict | None = None,
    folds: int = 1,
    cascade: bool = False,
    seed: int = 5,
    channels: tuple[str, ...] = ("CT", "PET"),
) -> Path:
    """A model folder of two channels, in transposed axes; random weights, others for each fold."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    configuration = "3d_cascade_fullres" if cascade else "3d_fullres"
    folder = root / "Dataset999_Synthetic" / f"{TRAINER}__nnUNetPlans__{configuration}"
    labels = labels or CLASSES
    named = {str(i): name for i, name in enumerate(channels)}
    dataset: dict[str, Any] = {"channel_names": named, "labels": labels, "file_ending": ".nii.gz"}
    if any(isinstance(value, list) for value in labels.values()):
        dataset["regions_class_order"] = [1, 2]
    plans = plans_json()
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    inputs = determine_num_input_channels(manager, settings, dataset)
    outputs = manager.get_label_manager(dataset).num_segmentation_heads
    for fold in range(folds):
        torch.manual_seed(seed + fold)
        network = nnUNetTrainer.build_network_architecture(
            manager, settings, inputs, outputs, enable_deep_supervision=False
        )
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        for layer in network.decoder.seg_layers:  # no class wins everywhere
            layer.weight.data -= layer.weight.data.mean(1, keepdim=True)
            layer.weight.data *= 4
            torch.nn.init.zeros_(layer.bias)
        (folder / f"fold_{fold}").mkdir(parents=True)
        content = {
            "network_weights": network.state_dict(),
            "trainer_name": TRAINER,
            "init_args": {"configuration": configuration},
            "inference_allowed_mirroring_axes": (0, 2),
        }
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    for name, value in (("dataset.json", dataset), ("plans.json", plans)):
        (folder / name).write_text(json.dumps(value))
    return folder


SLOPES = ((0.6, 0.8), (0.7, 1.2), (0.9, 1.1))
OFFSETS = ((0.1, -0.1), (0.5, -0.4), (-0.3, 0.8))


def calibrate(folder: Path, *, as_deployed: bool = True, ratio: float = 0.9) -> Path:
    """Give a model a map that is conditional on the label, and what it learned: Dice ratio x
    expected, 20 patients."""
    labels = PredictionFolder.open(folder, need_reference=False).labels
    structures = labels.structures
    rows = 2 if labels.regions else 3
    calibration = map_from_tables(np.array(SLOPES[:rows]), np.array(OFFSETS[:rows]), labels.regions)
    content = map_to_json({"conditional": calibration}, "conditional", structures)
    expected = np.linspace(0.1, 1, 20)
    held_out = quality_of(
        dict.fromkeys(structures, (expected, ratio * expected, expected, 2 * expected)), expected
    )
    learned = encode(learn(held_out, {}, dict.fromkeys(held_out.case, 0), as_deployed=as_deployed))
    folds = sorted(path.name.removeprefix("fold_") for path in folder.glob("fold_*"))
    hashes = {fold: checksum(folder / f"fold_{fold}" / "checkpoint_final.pth") for fold in folds}
    content["origin"] |= {
        "inference": {"step_size": 0.5, "mirroring": True},
        "checkpoint_sha256": hashes,
    }
    path = folder / "calibration_map.json"
    path.write_text(to_json_text(content | {"quality": {"unit": "ml", "learned": learned}}))
    return path


def make_scans(
    folder: Path, cases: int = 2, *, shape: tuple[int, ...] = SHAPE, spacing_mm=SPACING_MM
) -> Path:
    """Two channels a case, noise about a ball, with a border of zeros that nnU-Net crops."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(cases):
        rng = np.random.default_rng(i)
        for channel in range(2):
            image = rng.normal(50, 20, shape).astype(np.float32) + 100 * channel
            image[:, :2] = 0
            write_scan(folder / f"scan_{i}_{channel:04d}.nii.gz", image, spacing_mm)
    return folder


def write_scan(path: Path, image: np.ndarray, spacing_mm=SPACING_MM) -> None:
    """One image."""
    written = sitk.GetImageFromArray(image)
    written.SetSpacing([float(step) for step in spacing_mm[::-1]])
    sitk.WriteImage(written, str(path))


def predict_with_nnunet(
    model: Path,
    scans: Path,
    output: Path,
    folds: tuple[int, ...],
    previous: Path | None = None,
    *,
    save_probabilities: bool = False,
) -> dict[str, np.ndarray]:
    """What nnUNetv2_predict makes of the scans on the CPU: label maps by case."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    output.mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), folds, "checkpoint_final.pth")
    before = None if previous is None else str(previous)
    predictor.predict_from_files_sequential(
        str(scans),
        str(output),
        save_probabilities=save_probabilities,
        folder_with_segs_from_prev_stage=before,
    )
    return segmentations(output)


def predict(model: Path, scans: Path, output: Path, *arguments: object) -> int:
    """`nnunet_nacl predict` on the CPU, in this process alone."""
    here = ("-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar")
    return main(["predict", *map(str, ("-i", scans, "-o", output, "-m", model, *here, *arguments))])


def segmentations(folder: Path) -> dict[str, np.ndarray]:
    """Label maps by case."""
    return {
        path.name.removesuffix(".nii.gz"): read(path) for path in sorted(folder.glob("*.nii.gz"))
    }


def digests(folder: Path) -> dict[str, str]:
    """Hash of every file of a folder, those of hidden and temporary names included."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def copy_model(model: Path, to: Path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(model, to / model.parent.name / model.name))


def plans_json() -> dict[str, Any]:
    """plans.json of two three-dimensional configurations with a network of a few channels."""
    full = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16, 16, 8],
        "median_image_size_in_voxels": [15, 14, 9],
        "spacing": [1.2, 1.0, 2.0],
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
        "use_mask_for_norm": [False, False],
        "batch_dice": False,
        "architecture": architecture(),
        **resampling(),
    }
    intensities = {
        "mean": 50.0,
        "std": 20.0,
        "percentile_00_5": 0.0,
        "percentile_99_5": 100.0,
        "median": 50.0,
    }
    return {
        "dataset_name": "Dataset999_Synthetic",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [SPACING_MM[axis] for axis in (1, 2, 0)],
        "original_median_shape_after_transp": [15, 14, 9],
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": [1, 2, 0],
        "transpose_backward": [2, 0, 1],
        "experiment_planner_used": "ExperimentPlanner",
        "configurations": {
            "3d_fullres": full,
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        "foreground_intensity_properties_per_channel": {
            "0": intensities | {"min": 0.0, "max": 100.0},
            "1": {key: value + 100 for key, value in intensities.items()}
            | {"min": 100.0, "max": 200.0},
        },
    }
