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
from typing import Any

import numpy as np
import torch
from page import join_section, pin_to_one_core, table, write_section

CASE = "case"
ENDING = ".nii.gz"
NNUNET_STAGE = "nnU-Net's export"


def make_folder(root: Path, classes: int, shape: tuple[int, ...]) -> tuple[Path, Path]:
    """A fold's validation folder and ground truth: balls of every class, a tenth of the voxels near
    their surfaces."""
    import SimpleITK as sitk

    names = {"background": 0}
    for number in range(1, classes):
        names[f"organ {number}"] = number
    dataset = {
        "labels": names,
        "file_ending": ENDING,
        "channel_names": {"0": "CT"},
        "numTraining": 1,
    }
    validation, references = folders_of(root)
    validation.mkdir(parents=True)
    references.mkdir(parents=True)
    (root / "model" / "dataset.json").write_text(json.dumps(dataset))
    (root / "model" / "plans.json").write_text(json.dumps(plans()))
    image = sitk.GetImageFromArray(make_truth(classes, shape))
    image.SetSpacing((0.8, 0.8, 1.5))
    sitk.WriteImage(image, str(references / f"{CASE}{ENDING}"))
    return validation, references


def folders_of(root: Path) -> tuple[Path, Path]:
    """The validation folder and the ground truth."""
    return root / "model" / "fold_0" / "validation", root / "truth"


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
        centre = rng.uniform(0.2, 0.8, 3) + shift
        radius = rng.uniform(0.05, 0.15)
        box = []
        for length, place in zip(shape, centre):
            low = int(np.clip((place - radius) * length, 0, length))
            high = int(np.clip((place + radius) * length, 0, length))
            box.append(slice(low, high))
        squared_distance = np.zeros(())
        for axis, length, place in zip(np.ogrid[tuple(box)], shape, centre):
            squared_distance = squared_distance + ((axis / length - place) / radius) ** 2
        truth[tuple(box)][squared_distance < 1] = k
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


def run_one(root: Path, classes: int, shape: tuple[int, ...], row: str) -> dict[str, float]:
    """Export once; seconds by stage, and the largest resident memory in bytes.

    ``row`` is ``plain`` for nnU-Net's export or ``measured`` for that of a trainer that validates.
    """
    from nnunetv2.inference import export_prediction
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_nacl.cases.record_file import RECORDS
    from nnunet_nacl.nnunet import records
    from nnunet_nacl.nnunet.export import MeasuredExport
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder

    validation, references = folders_of(root)
    folder = PredictionFolder.open(validation, references)
    seconds: dict[str, float] = {}
    time_calls(export_prediction, "export_prediction_from_logits", NNUNET_STAGE, seconds)
    time_calls(PredictionFolder, "case", "reading both label maps", seconds)
    time_calls(records, "measure", "measuring, with the sample", seconds)
    export = export_prediction.export_prediction_from_logits
    if row == "measured":
        export = MeasuredExport(folder)
    manager = PlansManager(plans())
    logits = make_logits(classes, shape)
    start = time.process_time()
    export(
        logits,
        make_properties(shape),
        manager.get_configuration("3d_fullres"),
        manager,
        folder.dataset.dataset_json,
        str(validation / CASE),
        num_threads_torch=1,
    )
    seconds["all"] = time.process_time() - start
    if row == "measured" and not (validation / RECORDS / f"{CASE}.npz").is_file():
        raise SystemExit("the case has no record: a warning above says why.")
    return seconds | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0}


def time_calls(owner: Any, name: str, stage: str, seconds: dict[str, float]) -> None:
    """From now on the CPU time of a function of a module or class counts for a stage."""
    function = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return function(*arguments, **options)
        finally:
            seconds[stage] = seconds.get(stage, 0.0) + time.process_time() - start

    setattr(owner, name, call)


def make_properties(shape: tuple[int, ...]) -> dict[str, Any]:
    """What nnU-Net's reader and preprocessing say of the case."""
    size = list(shape)
    geometry = {
        "spacing": (0.8, 0.8, 1.5),
        "origin": (0.0,) * 3,
        "direction": tuple(np.eye(3).ravel()),
    }
    return {
        "spacing": [1.5, 0.8, 0.8],
        "sitk_stuff": geometry,
        "shape_before_cropping": size,
        "bbox_used_for_cropping": [[0, length] for length in size],
        "shape_after_cropping_and_before_resampling": size,
    }


def run_apart(
    root: Path, classes: int, shape: tuple[int, ...], row: str, core: int | None = None
) -> dict[str, float]:
    """:func:`run_one` in a process of its own, whose memory is that of one export."""
    command = [sys.executable, __file__, "--classes", str(classes), "--shape", *map(str, shape)]
    command += ["--run", str(root), row]
    if core is not None:
        command += ["--core", str(core)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}.")
    return json.loads(done.stdout.splitlines()[-1])


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
        folder, row = args.run
        print(json.dumps(run_one(Path(folder), args.classes, shape, row)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        validation, _ = make_folder(root, args.classes, shape)
        plain = run_apart(root, args.classes, shape, "plain", args.core)
        measured = run_apart(root, args.classes, shape, "measured", args.core)
        kept = 0
        for path in validation.rglob("*"):
            if path.is_file() and not path.name.endswith(ENDING):
                kept += path.stat().st_size
    text = _section(args.classes, shape, plain, measured, kept)
    print(text)
    if args.output:
        write_section(args.output, "export", text)


def _section(
    classes: int,
    shape: tuple[int, ...],
    plain: dict[str, float],
    measured: dict[str, float],
    kept: int,
) -> str:
    """The section by what both exports took, and the bytes that are left on the disk."""
    whole = 4.0 * classes * np.prod(shape)  # bytes of the probabilities
    plain_peak = plain["peak"] / whole
    measured_peak = measured["peak"] / whole
    rows = [["nnU-Net's export alone", f"{plain['all']:.1f}", f"{plain_peak:.2f}"]]
    for stage, seconds in measured.items():
        if stage not in ("all", "peak", NNUNET_STAGE):
            rows.append([f"... {stage}", f"{seconds:.1f}", ""])
    title = "measured on the way, all of it"
    rows.append([title, f"{measured['all']:.1f}", f"{measured_peak:.2f}"])
    size = " x ".join(map(str, (classes, *shape)))
    return join_section(
        "## Export of one case",
        f"Logits {size} in half precision; its probabilities (float32) are"
        f" {whole / 2**30:.2f} GiB.",
        table(["stage", "CPU s", "peak memory / probabilities"], rows),
        f"{measured_peak - plain_peak:+.2f} probabilities more than nnU-Net's export (goal: at"
        f" most 0.5); {kept / 1e6:.2f} MB are left on the disk beside the segmentation.",
    )


if __name__ == "__main__":
    main()
