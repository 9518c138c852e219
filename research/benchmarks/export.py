"""Time and memory of exporting and measuring one synthetic CT, its logits given in half precision,
on one core.

    python research/benchmarks/export.py [--shape 400 512 512] [--classes 14] [--core N] [--output
    PAGE]

No network runs. The same logits go through nnU-Net's export, and through the one that measures on
the way, each in a process of its own, whose largest resident memory counts. The goal: at most half
of the case's probabilities (float32) more than nnU-Net's export. The logits alone take half of the
probabilities.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from page import describe_machine, pin_to_one_core, table, write_section

CASE, ENDING = "case", ".nii.gz"


def make_folder(root: Path, classes: int, shape: tuple[int, ...]) -> tuple[Path, Path]:
    """A fold's validation folder and ground truth: balls of every class, a tenth of the voxels near
    their surfaces."""
    import SimpleITK as sitk

    names = {"background": 0, **{f"organ {k}": k for k in range(1, classes)}}
    dataset = {
        "labels": names,
        "file_ending": ENDING,
        "channel_names": {"0": "CT"},
        "numTraining": 1,
    }
    validation, references = root / "model" / "fold_0" / "validation", root / "truth"
    for folder in (validation, references):
        folder.mkdir(parents=True)
    for name, content in (("dataset.json", dataset), ("plans.json", plans())):
        (root / "model" / name).write_text(json.dumps(content))
    image = sitk.GetImageFromArray(make_truth(classes, shape))
    image.SetSpacing((0.8, 0.8, 1.5))
    sitk.WriteImage(image, str(references / f"{CASE}{ENDING}"))
    return validation, references


def plans() -> dict:
    """As nnU-Net writes them, cut down to what the export reads."""
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "none",
        "spacing": [1.5, 0.8, 0.8],
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
        "configurations": {"3d_fullres": configuration},
    }


def make_truth(classes: int, shape: tuple[int, ...], shift: float = 0.0) -> np.ndarray:
    """(*shape) uint8 balls."""
    rng = np.random.default_rng(0)
    truth = np.zeros(shape, np.uint8)
    for k in range(1, classes):
        center, radius = rng.uniform(0.2, 0.8, 3) + shift, rng.uniform(0.05, 0.15)
        parts = []
        for n, c in zip(shape, center):
            low, high = (int(np.clip((c + side * radius) * n, 0, n)) for side in (-1, 1))
            parts.append(slice(low, high))
        axes = np.ogrid[tuple(parts)]
        inside = sum(((axis / n - c) / radius) ** 2 for axis, n, c in zip(axes, shape, center)) < 1
        truth[tuple(parts)][inside] = k
    return truth


def make_logits(classes: int, shape: tuple[int, ...]) -> torch.Tensor:
    """(classes, *shape) float16: right but for a small shift, sure but for noise; made layer by
    layer."""
    logits = torch.empty((classes, *shape), dtype=torch.float16)
    predicted = make_truth(classes, shape, 0.004)
    rng = np.random.default_rng(1)
    for z in range(shape[0]):
        layer = rng.normal(size=(classes, *shape[1:]), scale=1.5).astype(np.float32)
        layer += 9 * (predicted[z] == np.arange(classes)[:, None, None])
        logits[:, z] = torch.from_numpy(layer).half()
    return logits


def run_one(root: Path, classes: int, shape: tuple[int, ...], measured: bool) -> dict[str, float]:
    """Export once; seconds by stage, and the largest resident memory in bytes."""
    from nnunetv2.inference import export_prediction
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_nacl.nnunet import export as measured_export
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder

    validation, references = root / "model" / "fold_0" / "validation", root / "truth"
    folder = PredictionFolder.open(validation, references)
    seconds: dict[str, float] = {}

    def timed(owner, name: str, stage: str) -> None:
        function = getattr(owner, name)

        def call(*arguments, **options):
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                seconds[stage] = seconds.get(stage, 0.0) + time.process_time() - start

        setattr(owner, name, call)

    timed(export_prediction, "export_prediction_from_logits", "nnU-Net's export")
    timed(PredictionFolder, "case", "reading both label maps")
    timed(measured_export, "measure", "measuring")
    timed(measured_export, "make_sample", "sample and slices")
    manager = PlansManager(plans())
    size = list(shape)
    properties = {
        "spacing": [1.5, 0.8, 0.8],
        "sitk_stuff": {
            "spacing": (0.8, 0.8, 1.5),
            "origin": (0.0,) * 3,
            "direction": tuple(np.eye(3).ravel()),
        },
        "shape_before_cropping": size,
        "bbox_used_for_cropping": [[0, n] for n in size],
        "shape_after_cropping_and_before_resampling": size,
    }
    export = (
        measured_export.MeasuredExport(folder)
        if measured
        else export_prediction.export_prediction_from_logits
    )
    arguments = (
        manager.get_configuration("3d_fullres"),
        manager,
        folder.dataset_json,
        str(validation / CASE),
    )
    logits = make_logits(classes, shape)
    start = time.process_time()
    export(logits, properties, *arguments, num_threads_torch=1)
    seconds["all"] = time.process_time() - start
    if measured and not (validation / "calibration.json.partial" / f"{CASE}.json").is_file():
        raise SystemExit((validation / "calibration.json.partial" / f"{CASE}.problem").read_text())
    return seconds | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> None:
    """Measures, prints, and writes the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=3, default=(400, 512, 512))
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--core", type=int, help="core to run on; default: the first")
    parser.add_argument("--output", type=Path, help="page whose section to rewrite")
    parser.add_argument("--run", nargs=2, metavar=("FOLDER", "WHICH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    pin_to_one_core(args.core)
    shape = tuple(args.shape)
    if args.run:
        print(
            json.dumps(run_one(Path(args.run[0]), args.classes, shape, args.run[1] == "measured"))
        )
        return
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        validation, _ = make_folder(root, args.classes, shape)
        for which in ("plain", "measured"):
            command = [
                sys.executable,
                __file__,
                "--classes",
                str(args.classes),
                "--shape",
                *map(str, shape),
            ]
            command += ["--run", str(root), which] + (
                ["--core", str(args.core)] if args.core is not None else []
            )
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[which] = json.loads(done.stdout.splitlines()[-1])
        kept = sum(
            p.stat().st_size
            for p in validation.rglob("*")
            if p.is_file() and not p.name.endswith(ENDING)
        )
    whole = 4.0 * args.classes * np.prod(shape)
    plain, measured = results["plain"], results["measured"]
    rows = [
        ["nnU-Net's export alone", f"{plain['all']:.1f}", f"{plain['peak'] / whole:.2f}"],
        *[
            [f"... {name}", f"{seconds:.1f}", ""]
            for name, seconds in measured.items()
            if name not in ("all", "peak", "nnU-Net's export")
        ],
        [
            "measured on the way, all of it",
            f"{measured['all']:.1f}",
            f"{measured['peak'] / whole:.2f}",
        ],
    ]
    size = " x ".join(map(str, (args.classes, *shape)))
    text = "\n\n".join(
        [
            "## Export of one case",
            (
                f"Logits {size} in half precision; its probabilities (float32) are"
                f" {whole / 2**30:.2f} GiB."
            ),
            table(["stage", "CPU s", "peak memory / probabilities"], rows),
            (
                f"{(measured['peak'] - plain['peak']) / whole:+.2f} probabilities more than"
                f" nnU-Net's export (goal: at most 0.5); {kept / 1e6:.2f} MB are left on the disk"
                " beside the segmentation."
            ),
            f"Machine: {describe_machine()}.",
        ]
    )
    print(text)
    if args.output:
        write_section(args.output, "export", text)


if __name__ == "__main__":
    main()
