"""Memory and time of exporting and evaluating one large case with many classes, beside nnU-Net's
own export.

    python research/benchmarks/export_size.py [--classes 118] [--edge 192] [--work FOLDER] [--output
    PAGE]

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
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from page import describe_machine, table, write_section
from structures import ENDING, make_case, measure

CASE = "case"
ROWS = {
    "nnunet": "nnU-Net's export",
    "nacl": "`predict`'s",
    "nnunet_npz": "nnU-Net's with probabilities",
    "nacl_npz": "`predict --save_probabilities`'s",
}


def grid_edge(edge: int) -> int:
    """Voxels of the network's grid along an axis."""
    return round(edge * 5 / 6)


def make_folder(root: Path, classes: int, edge: int) -> None:
    """Model folder without networks, and the logits of one case."""
    names = {"background": 0, **{f"structure {k}": k for k in range(1, classes)}}
    dataset = {
        "labels": names,
        "file_ending": ENDING,
        "channel_names": {"0": "CT"},
        "numTraining": 1,
    }
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "none",
        "preprocessor_name": "DefaultPreprocessor",
        "spacing": [1.8] * 3,
        "architecture": {},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
    }
    plans = {
        "dataset_name": "Dataset999_Synthetic",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
    }
    root.mkdir(parents=True, exist_ok=True)
    for name, content in (("dataset.json", dataset), ("plans.json", plans)):
        (root / name).write_text(json.dumps(content))
    if not (root / "logits.npy").is_file():
        probabilities, _ = make_case(np.random.default_rng(0), classes, grid_edge(edge))
        logits = np.lib.format.open_memmap(
            root / "logits.npy", mode="w+", dtype=np.float16, shape=probabilities.shape
        )
        for target, channel in zip(logits, probabilities):
            target[...] = np.log(np.maximum(channel, 1e-12))


def export(root: Path, which: str, edge: int) -> None:
    """Export once; print CPU seconds and the largest resident memory in GiB."""
    from nnunet_nacl.nnunet.trained_model import GridCase, for_pictures

    logits, size = np.load(root / "logits.npy"), [edge] * 3
    properties = {
        "spacing": [1.5] * 3,
        "sitk_stuff": {
            "spacing": (1.5,) * 3,
            "origin": (0.0,) * 3,
            "direction": tuple(np.eye(3).ravel()),
        },
        "shape_before_cropping": size,
        "bbox_used_for_cropping": [[0, n] for n in size],
        "shape_after_cropping_and_before_resampling": size,
    }
    (root / which).mkdir(exist_ok=True)
    if which.startswith("nnunet"):
        from nnunetv2.inference.export_prediction import export_prediction_from_logits
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        manager, dataset = (
            PlansManager(str(root / "plans.json")),
            json.loads((root / "dataset.json").read_text()),
        )
        start = time.process_time()
        where = manager.get_configuration("3d_fullres"), manager, dataset, str(root / which / CASE)
        export_prediction_from_logits(logits, properties, *where, which.endswith("npz"), 1)
    else:
        from dataclasses import replace

        from nnunet_nacl.nnunet.predicted import predicted_case

        work, image = (
            predicting(root, which, len(logits)),
            np.random.default_rng(0).random(size, np.float32),
        )
        answered = GridCase(
            CASE, logits, properties, for_pictures(image), image[None].astype(np.float16), ()
        )
        del logits, image
        start = time.process_time()
        case = predicted_case(work.model, answered)
        work.delivery.make_record(replace(case, images=(root / f"{CASE}_0000.nii.gz",)))
    seconds = time.process_time() - start
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))


def predicting(root: Path, which: str, classes: int):
    """What `nnunet_nacl predict` has made of its arguments before it exports."""
    from nnunet_nacl.calibration.log_odds_map import map_from_tables
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
    from nnunet_nacl.nnunet.trained_model import TrainedModel
    from nnunet_nacl.worklist.case_delivery import CaseDelivery

    rng, num = np.random.default_rng(0), classes - 1
    slopes = rng.normal(0, 0.01, (classes, num, num + 1)) + 0.8 * np.eye(num, num + 1)
    calibration = map_from_tables(slopes, rng.normal(0, 0.1, (classes, num)))
    opened = PredictionFolder.open(root, need_reference=False)
    model = TrainedModel(
        folder=root,
        opened=opened,
        configuration="3d_fullres",
        trainer="nnUNetTrainer",
        folds=("0",),
        checkpoint="none",
        hashes=("",),
        file_hashes={},
    )
    delivery = CaseDelivery(
        calibration=calibration,
        output=root / which,
        data=opened,
        probabilities=which.endswith("npz"),
        findings=(1, 2),
    )
    return SimpleNamespace(model=model, delivery=delivery)


def main() -> None:
    """Measures, prints, and writes the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=118)
    parser.add_argument("--edge", type=int, default=192)
    parser.add_argument(
        "--work", type=Path, help="folder to keep the files in (default: a temporary one)"
    )
    parser.add_argument(
        "--rows", nargs="+", choices=[*ROWS, "evaluate"], default=[*ROWS, "evaluate"]
    )
    parser.add_argument("--output", type=Path, help="page whose section to rewrite")
    parser.add_argument("--run", nargs=2, metavar=("FOLDER", "WHICH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        if args.run[1] == "make":
            make_folder(Path(args.run[0]), args.classes, args.edge)
        else:
            export(Path(args.run[0]), args.run[1], args.edge)
        return
    whole, rows = 4 * args.classes * args.edge**3 / 2**30, []
    with tempfile.TemporaryDirectory() as temporary:
        root = (args.work or Path(temporary)) / f"export_{args.classes}_{args.edge}"
        root.mkdir(parents=True, exist_ok=True)
        log = root / "log"
        me = [
            sys.executable,
            __file__,
            "--classes",
            str(args.classes),
            "--edge",
            str(args.edge),
            "--run",
            str(root),
        ]
        measure([*me, "make"], log)
        for which in args.rows:
            if which == "evaluate":
                continue
            measure([*me, which], log)
            seconds, peak = json.loads(log.read_text().splitlines()[-1])
            rows.append([ROWS[which], f"{seconds:.1f}", f"{peak:.2f}", f"{peak / whole:.2f}"])
            print(rows[-1], flush=True)
        if "evaluate" in args.rows:
            rows.append(evaluate(root, whole))
            print(rows[-1], flush=True)
    text = "\n\n".join(
        [
            "## One large case",
            (
                f"{args.classes} classes, {args.edge}^3 voxels; its probabilities (float32) are"
                f" {whole:.2f} GiB, its logits {args.classes} x {grid_edge(args.edge)}^3."
            ),
            table(["", "CPU s", "peak GiB", "peak / probabilities"], rows),
            f"Machine: {describe_machine()}.",
        ]
    )
    print(text)
    if args.output:
        write_section(args.output, "export_size", text)


def evaluate(root: Path, whole: float) -> list[str]:
    """`nnunet_nacl evaluate` of what nnU-Net saved; the truth is the same a voxel further."""
    import SimpleITK as sitk

    predictions, truths = root / "nnunet_npz", root / "truth"
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
    seconds, peak = measure(command, root / "evaluate.log")
    size = os.path.getsize(predictions / f"{CASE}.npz") / 2**30
    return [
        f"`evaluate` of an npz of {size:.2f} GiB",
        f"{seconds:.1f}",
        f"{peak:.2f}",
        f"{peak / whole:.2f}",
    ]


if __name__ == "__main__":
    main()
