"""Everything that is to be measured on a GPU, in one command, on synthetic data.

    python research/benchmarks/gpu.py --json gpu.json --output research/benchmarks/new.md

Makes a data set of random balls, plans, preprocesses and trains it for two iterations by nnU-Net's
commands, and measures, each beside nnU-Net's own in the same process or round: a training iteration
with NACL and DiceNACL, with and without torch.compile (time and peak memory), export with and
without measuring, and `nnunet_nacl predict` beside nnUNetv2_predict on one scan of --scan voxels.
What was measured is written as one JSON and as a section of the page. Takes about half an hour on a
workstation, most of it the scan; --small shows within minutes that everything runs, and -device cpu
that it runs without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

os.environ.setdefault("nnUNet_n_proc_DA", "4")

import numpy as np
import torch
from page import describe_machine, table, write_section

TASK = 995
TRAINED = "nnUNetTrainerDiceCE_1epochs_2iters"


def ball_image(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image (float32) of forty balls of two kinds, and their labels."""
    image = rng.normal(0, 0.3, shape).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    for number in range(40):
        kind = 1 + number % 2
        radius = int(rng.integers(4, max(5, min(shape) // 6)))
        centre = [int(rng.integers(0, length)) for length in shape]
        box = []
        for place, length in zip(centre, shape):
            box.append(slice(max(0, place - radius), min(length, place + radius + 1)))
        squared_distance = np.zeros(())
        for axis, place in zip(np.ogrid[tuple(box)], centre):
            squared_distance = squared_distance + (axis - place) ** 2
        is_inside = squared_distance <= radius**2
        labels[tuple(box)][is_inside] = kind
        image[tuple(box)][is_inside] += kind
    return image, labels


def write_image(array: np.ndarray, path: Path) -> None:
    """Write an image of .8 x .8 x 1 mm."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.8, 0.8, 1.0))
    sitk.WriteImage(image, str(path))


def make_task(folder: Path, shape: tuple[int, ...], scan: tuple[int, ...]) -> None:
    """A Decathlon task of ten images, and the scan that is predicted."""
    rng = np.random.default_rng(0)
    for place in ("imagesTr", "labelsTr", "imagesTs", "scan"):
        (folder / place).mkdir(parents=True)
    files = []
    for number in range(10):
        name = f"balls_{number:02}.nii.gz"
        image, labels = ball_image(shape, rng)
        write_image(image, folder / "imagesTr" / name)
        write_image(labels, folder / "labelsTr" / name)
        files.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    write_image(ball_image(scan, rng)[0], folder / "scan" / "scan_0000.nii.gz")
    content = {
        "name": "Balls",
        "labels": {"0": "background", "1": "small", "2": "bright"},
        "modality": {"0": "CT"},
        "training": files,
        "numTraining": 10,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def run(program: str, *arguments: object) -> float:
    """Seconds that one of nnU-Net's commands, or of ours, took; what it prints is shown where it
    fails."""
    script = Path(sys.executable).parent / program
    command = [sys.executable, str(script), *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return seconds


def of_iterations(device: torch.device, rounds: int) -> dict[str, dict[str, float]]:
    """Time and peak memory of nnU-Net's training iteration and of ours, on the same batches, eager
    and compiled."""
    import training_iteration

    result = {}
    for how, method in product(("eager", "compiled"), ("NACL", "DiceNACL")):
        os.environ["nnUNet_compile"] = str(how == "compiled")
        args = argparse.Namespace(
            dataset=str(TASK),
            configuration="3d_fullres",
            fold="0",
            p="nnUNetPlans",
            tr=f"nnUNetTrainer{method}",
            rounds=rounds,
            batches=2,
        )
        pair = training_iteration.measure(args, device)
        stock, ours = pair.seconds.T
        stock_peak, our_peak = pair.peak_bytes
        result[f"{method}, {how}"] = {
            "nnU-Net ms": 1e3 * float(np.median(stock)),
            "ours ms": 1e3 * float(np.median(ours)),
            "ratio": float(np.median(ours / stock)),
            "nnU-Net MiB": stock_peak / 2**20,
            "ours MiB": our_peak / 2**20,
        }
    return result


def of_prediction(folder: Path, device: torch.device, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of the commands on the scan, the network of fold 0."""
    model = ["-d", TASK, "-c", "3d_fullres", "-tr", TRAINED, "-f", 0]
    how = ["-device", device.type, "-npp", 1, "-nps", 1]
    commands = {
        "nnUNetv2_predict": ["nnUNetv2_predict"],
        "nnunet_nacl predict": ["nnunet_nacl", "predict"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds):
        for name, (program, *first) in commands.items():
            out = folder / f"predicted_{program}_{number}"
            taken = run(program, *first, "-i", folder / "task" / "scan", "-o", out, *model, *how)
            seconds[name].append(taken)
    stock = statistics.median(seconds["nnUNetv2_predict"])
    result = {}
    for name, found in seconds.items():
        middle = statistics.median(found)
        result[name] = {"s": middle, "x nnU-Net": middle / stock}
    return result


def of_export(folder: Path, shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """CPU seconds of exporting a case of 14 classes on one core, with and without measuring
    (export.py)."""
    import export

    export.make_folder(folder, 14, shape)
    plain = export.run_apart(folder, 14, shape, "plain")["all"]
    measured = export.run_apart(folder, 14, shape, "measured")["all"]
    return {
        "plain": {"s": plain, "x nnU-Net": 1.0},
        "measured": {"s": measured, "x nnU-Net": measured / plain},
    }


def section(found: dict) -> str:
    """The page's section."""
    intro = f"Synthetic data (`research/benchmarks/gpu.py`), {found['device']}. {found['machine']}"
    parts = ["## On a GPU", intro]
    titles = {
        "iteration": "Training iteration, 3D",
        "prediction": "One scan, from image to segmentation",
        "export": "Export of one case, seconds",
    }
    for key, title in titles.items():
        rows = found[key]
        columns = list(next(iter(rows.values())))
        lines = []
        for name, row in rows.items():
            lines.append([name, *(f"{row[column]:.3g}" for column in columns)])
        parts += [f"**{title}**", table(["", *columns], lines)]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="page whose section to rewrite")
    parser.add_argument("-device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument(
        "--scan",
        type=int,
        nargs=3,
        default=(400, 512, 512),
        metavar="N",
        help="default: 400 512 512",
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--small", action="store_true", help="small arrays, two rounds: does everything run?"
    )
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU; -device cpu shows that everything runs.")
    rounds = args.rounds
    scan = tuple(args.scan)
    image_shape = (128, 160, 160)
    if args.small:
        rounds = 2
        scan = (24, 32, 32)
        image_shape = (24, 32, 32)
    device_name = "the CPU in its place"
    if device.type == "cuda":
        device_name = torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place in ("raw", "preprocessed", "results"):
            (folder / place).mkdir()
            os.environ[f"nnUNet_{place}"] = str(folder / place)
        task = folder / f"Task{TASK}_Balls"
        make_task(task, image_shape, scan)
        (folder / "task").symlink_to(task)
        run("nnUNetv2_convert_MSD_dataset", "-i", task, "-np", 2)
        run("nnUNetv2_plan_and_preprocess", "-d", TASK, "-c", "3d_fullres", "-np", 2, "-npfp", 2)
        run("nnUNetv2_train", TASK, "3d_fullres", 0, "-tr", TRAINED, "-device", device.type)
        found = {
            "device": device_name,
            "machine": describe_machine(),
            "prediction": of_prediction(folder, device, max(2, rounds // 5)),
            "iteration": of_iterations(device, rounds),
            "export": of_export(folder / "export", scan),
        }
    args.json.write_text(json.dumps(found, indent=1))
    print(section(found))
    if args.output:
        write_section(args.output, "gpu", section(found))


if __name__ == "__main__":
    main()
