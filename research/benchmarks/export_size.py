"""Memory and time of exporting and evaluating one large case with many classes, beside nnU-Net's
own export.

    python research/benchmarks/export_size.py [--classes 118] [--edge 192] [--work FOLDER]
        [--rows nnunet nacl] [--output PAGE]

The network's logits are half precision on a grid of 5/6 of the image's edge, made of the soft
predictions of `structures.py`. Each row is a process of its own, whose CPU time and largest
resident memory count. `predict` exports with a map that is conditional on the label and has a slope
for each pair of classes, and lists the findings of two structures. What starts a process
(libraries, the logits) is in its memory, and not in its time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from page import join_section, table, write_section
from structures import ENDING, make_case
from timing import run_measured

CASE = "case"
CONFIGURATION = "3d_fullres"
ROWS = {
    "nnunet": "nnU-Net's export",
    "nacl": "`predict`'s",
    "nnunet_npz": "nnU-Net's with probabilities",
    "nacl_npz": "`predict --save_probabilities`'s",
}
EVALUATE = "evaluate"
"""The row that evaluates what nnU-Net's export with probabilities has left."""


def grid_edge(edge: int) -> int:
    """Voxels of the network's grid along an axis."""
    return round(edge * 5 / 6)


def make_folder(root: Path, classes: int, edge: int) -> None:
    """Model folder without networks, and the logits of one case."""
    labels = {"background": 0}
    for number in range(1, classes):
        labels[f"structure {number}"] = number
    dataset = {
        "labels": labels,
        "file_ending": ENDING,
        "channel_names": {"0": "CT"},
        "numTraining": 1,
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(dataset))
    (root / "plans.json").write_text(json.dumps(make_plans()))
    if not (root / "logits.npy").is_file():
        probabilities, _ = make_case(np.random.default_rng(0), classes, grid_edge(edge))
        logits = np.lib.format.open_memmap(
            root / "logits.npy", mode="w+", dtype=np.float16, shape=probabilities.shape
        )
        for target, channel in zip(logits, probabilities):
            target[...] = np.log(np.maximum(channel, 1e-12))


def make_plans() -> dict[str, Any]:
    """As nnU-Net writes them, cut down to what the export reads."""
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "none",
        "preprocessor_name": "DefaultPreprocessor",
        "spacing": [1.8] * 3,
        "architecture": {},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
    }
    return {
        "dataset_name": "Dataset999_Synthetic",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {CONFIGURATION: configuration},
    }


def make_properties(edge: int) -> dict[str, Any]:
    """What nnU-Net's reader and preprocessing say of an image of that edge."""
    size = [edge] * 3
    geometry = {
        "spacing": (1.5,) * 3,
        "origin": (0.0,) * 3,
        "direction": tuple(np.eye(3).ravel()),
    }
    return {
        "spacing": [1.5] * 3,
        "sitk_stuff": geometry,
        "shape_before_cropping": size,
        "bbox_used_for_cropping": [[0, length] for length in size],
        "shape_after_cropping_and_before_resampling": size,
    }


def export_once(root: Path, row: str, edge: int) -> None:
    """Export once; print CPU seconds and the largest resident memory in GiB."""
    (root / row).mkdir(exist_ok=True)
    if row.startswith("nnunet"):
        seconds = export_by_nnunet(root, row, edge)
    else:
        seconds = export_by_predict(root, row, edge)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps([seconds, peak_gib]))


def export_by_nnunet(root: Path, row: str, edge: int) -> float:
    """CPU seconds of nnU-Net's export."""
    from nnunetv2.inference.export_prediction import export_prediction_from_logits
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    logits = np.load(root / "logits.npy")
    manager = PlansManager(str(root / "plans.json"))
    dataset = json.loads((root / "dataset.json").read_text())
    start = time.process_time()
    export_prediction_from_logits(
        logits,
        make_properties(edge),
        manager.get_configuration(CONFIGURATION),
        manager,
        dataset,
        str(root / row / CASE),
        save_probabilities=row.endswith("npz"),
        num_threads_torch=1,
    )
    return time.process_time() - start


def export_by_predict(root: Path, row: str, edge: int) -> float:
    """CPU seconds of what `nnunet_nacl predict` does with the answer of the networks."""
    from nnunet_nacl.nnunet.predicted import predicted_case
    from nnunet_nacl.nnunet.preprocessing import GridCase, Logits, for_pictures

    logits = np.load(root / "logits.npy")
    model = open_model(root)
    run = plan_run(root, row, model.dataset, len(logits))
    image = np.random.default_rng(0).random([edge] * 3, np.float32)
    grid_case = GridCase(
        name=CASE,
        properties=make_properties(edge),
        image=for_pictures(image),
        channels=image[None].astype(np.float16),
        differences=(),
    )
    answered = Logits(grid_case, logits)
    del logits, image
    start = time.process_time()
    case = predicted_case(model, answered)
    run.make_record(replace(case, images=(root / f"{CASE}_0000.nii.gz",)))
    return time.process_time() - start


def open_model(root: Path) -> Any:
    """The model of :func:`make_folder`, whose networks nobody asks for."""
    from nnunet_nacl.nnunet.dataset import Dataset
    from nnunet_nacl.nnunet.trained_model import TrainedModel

    return TrainedModel(
        folder=root,
        dataset=Dataset.open(root),
        configuration=CONFIGURATION,
        trainer="nnUNetTrainer",
        folds=("0",),
        checkpoint="none",
        hashes=("",),
        file_hashes={},
    )


def plan_run(root: Path, row: str, dataset: Any, classes: int) -> Any:
    """What `nnunet_nacl predict` does with a case, by a map with random slopes and offsets."""
    from nnunet_nacl.calibration.calibrator import Calibrator
    from nnunet_nacl.estimators.log_odds_map import map_from_tables
    from nnunet_nacl.settings import ListSettings, Output
    from nnunet_nacl.worklist.aims import Aims
    from nnunet_nacl.worklist.run import Run

    rng = np.random.default_rng(0)
    num_structures = classes - 1
    slopes = rng.normal(0, 0.01, (classes, num_structures, num_structures + 1))
    slopes += 0.8 * np.eye(num_structures, num_structures + 1)
    offsets = rng.normal(0, 0.1, (classes, num_structures))
    calibrator = Calibrator()
    vars(calibrator)["log_odds_map"] = map_from_tables(slopes, offsets)  # as if a file held it
    wanted = ListSettings(save_probabilities=row.endswith("npz"))
    return Run(
        dataset=dataset,
        calibrator=calibrator,
        aims=Aims(wanted, findings=(1, 2)),
        writing=Output(output=root / row),
    )


def evaluate(root: Path) -> tuple[float, float]:
    """CPU seconds and peak GiB of `nnunet_nacl evaluate` of what nnU-Net saved.

    The truth is the same, a voxel further.
    """
    import SimpleITK as sitk

    predictions = root / "nnunet_npz"
    truths = root / "truth"
    truths.mkdir(exist_ok=True)
    for name in ("dataset.json", "plans.json"):
        shutil.copyfile(root / name, predictions / name)
    image = sitk.ReadImage(str(predictions / f"{CASE}{ENDING}"))
    truth = sitk.GetImageFromArray(np.roll(sitk.GetArrayFromImage(image), 1, 2))
    truth.CopyInformation(image)
    sitk.WriteImage(truth, str(truths / f"{CASE}{ENDING}"))
    (predictions / "calibration.json").unlink(missing_ok=True)
    program = str(Path(sys.executable).parent / "nnunet_nacl")
    command = [program, "evaluate", "-i", str(predictions), "-gt", str(truths), "-np", "1"]
    return run_measured(command, root / "evaluate.log")


def measure_rows(root: Path, args: argparse.Namespace, whole_gib: float) -> list[list[str]]:
    """A row of the table for each that is asked for, in a process of its own."""
    root.mkdir(parents=True, exist_ok=True)
    log = root / "log"
    size = ["--classes", str(args.classes), "--edge", str(args.edge)]
    this_script = [sys.executable, __file__, *size, "--run", str(root)]
    run_measured([*this_script, "make"], log)
    rows = []
    for row in args.rows:
        if row == EVALUATE:
            seconds, peak_gib = evaluate(root)
            npz_gib = os.path.getsize(root / "nnunet_npz" / f"{CASE}.npz") / 2**30
            title = f"`evaluate` of an npz of {npz_gib:.2f} GiB"
        else:
            run_measured([*this_script, row], log)
            seconds, peak_gib = json.loads(log.read_text().splitlines()[-1])
            title = ROWS[row]
        share = peak_gib / whole_gib
        rows.append([title, f"{seconds:.1f}", f"{peak_gib:.2f}", f"{share:.2f}"])
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measures, prints, and writes the section."""
    all_rows = [*ROWS, EVALUATE]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=118)
    parser.add_argument("--edge", type=int, default=192)
    parser.add_argument(
        "--work", type=Path, help="folder to keep the files in (default: a temporary one)"
    )
    parser.add_argument("--rows", nargs="+", choices=all_rows, default=all_rows)
    parser.add_argument("--output", type=Path, help="page whose section to rewrite")
    parser.add_argument("--run", nargs=2, metavar=("FOLDER", "ROW"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        folder, row = args.run
        if row == "make":
            make_folder(Path(folder), args.classes, args.edge)
        else:
            export_once(Path(folder), row, args.edge)
        return
    whole_gib = 4 * args.classes * args.edge**3 / 2**30
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        rows = measure_rows(work / f"export_{args.classes}_{args.edge}", args, whole_gib)
    text = join_section(
        "## One large case",
        f"{args.classes} classes, {args.edge}^3 voxels; its probabilities (float32) are"
        f" {whole_gib:.2f} GiB, its logits {args.classes} x {grid_edge(args.edge)}^3.",
        table(["", "CPU s", "peak GiB", "peak / probabilities"], rows),
    )
    print(text)
    if args.output:
        write_section(args.output, "export_size", text)


if __name__ == "__main__":
    main()
