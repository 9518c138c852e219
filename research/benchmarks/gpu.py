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
from pathlib import Path

os.environ.setdefault("nnUNet_n_proc_DA", "4")

import numpy as np
import torch
from page import describe_machine, table, write_section

TASK = 995
TRAINED = "nnUNetTrainerDiceCE_1epochs_2iters"


def ball_image(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image (float32) of forty balls of two kinds, and their labels."""
    image, labels = rng.normal(0, 0.3, shape).astype(np.float32), np.zeros(shape, np.uint8)
    for i in range(40):
        radius = int(rng.integers(4, max(5, min(shape) // 6)))
        centre = [int(rng.integers(0, n)) for n in shape]
        box = tuple(
            slice(max(0, c - radius), min(n, c + radius + 1)) for c, n in zip(centre, shape)
        )
        axes = np.ogrid[box]
        inside = sum((axis - c) ** 2 for axis, c in zip(axes, centre)) <= radius**2
        labels[box][inside], image[box][inside] = 1 + i % 2, image[box][inside] + 1 + i % 2
    return image, labels


def make_task(folder: Path, shape: tuple[int, ...], scan: tuple[int, ...]) -> None:
    """A Decathlon task of ten images, and the scan that is predicted."""
    import SimpleITK as sitk

    rng, files = np.random.default_rng(0), []
    for place in ("imagesTr", "labelsTr", "imagesTs", "scan"):
        (folder / place).mkdir(parents=True)

    def write(array: np.ndarray, path: Path) -> None:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.8, 0.8, 1.0))
        sitk.WriteImage(image, str(path))

    for i in range(10):
        for array, place in zip(ball_image(shape, rng), ("imagesTr", "labelsTr")):
            write(array, folder / place / f"balls_{i:02}.nii.gz")
        files.append(
            {"image": f"./imagesTr/balls_{i:02}.nii.gz", "label": f"./labelsTr/balls_{i:02}.nii.gz"}
        )
    write(ball_image(scan, rng)[0], folder / "scan" / "scan_0000.nii.gz")
    labels = {"0": "background", "1": "small", "2": "bright"}
    content = {
        "labels": labels,
        "modality": {"0": "CT"},
        "training": files,
        "numTraining": 10,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps({"name": "Balls", **content}))


def run(*command: object, **environ: str) -> float:
    """Seconds that a command took; what it prints is shown where it fails."""
    words = [str(word) for word in command]
    script = Path(sys.executable).parent / words[0]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *([str(script)] if script.exists() else [words[0]]), *words[1:]],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return time.perf_counter() - start


def of_iterations(device: torch.device, rounds: int) -> dict[str, dict[str, float]]:
    """Time and peak memory of nnU-Net's training iteration and of ours, on the same batches, eager
    and compiled."""
    import training_iteration

    result = {}
    for name, method in (
        (name, method) for name in ("eager", "compiled") for method in ("NACL", "DiceNACL")
    ):
        os.environ["nnUNet_compile"] = str(name == "compiled")
        args = argparse.Namespace(
            dataset=str(TASK),
            configuration="3d_fullres",
            fold="0",
            p="nnUNetPlans",
            tr=f"nnUNetTrainer{method}",
            rounds=rounds,
            batches=2,
        )
        seconds, facts = training_iteration.measure(args, device)
        stock, ours = np.median(seconds, axis=0)
        ratio = float(np.median(seconds[:, 1] / seconds[:, 0]))
        memory = dict(
            zip(("nnU-Net MiB", "ours MiB"), (peak / 2**20 for peak in facts["peak_bytes"]))
        )
        result[f"{method}, {name}"] = {
            "nnU-Net ms": 1e3 * stock,
            "ours ms": 1e3 * ours,
            "ratio": ratio,
            **memory,
        }
    return result


def of_prediction(folder: Path, device: torch.device, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of the commands on the scan, the network of fold 0."""
    model = (
        "-d",
        TASK,
        "-c",
        "3d_fullres",
        "-tr",
        TRAINED,
        "-f",
        0,
        "-device",
        device.type,
        "-npp",
        1,
        "-nps",
        1,
    )
    seconds: dict[str, list[float]] = {"nnUNetv2_predict": [], "nnunet_nacl predict": []}
    for i in range(rounds):
        for name in seconds:
            out = folder / f"predicted_{name.partition(' ')[0]}_{i}"
            seconds[name].append(
                run(*name.split(), "-i", folder / "task" / "scan", "-o", out, *model)
            )
    stock = statistics.median(seconds["nnUNetv2_predict"])
    return {
        name: {"s": statistics.median(found), "x nnU-Net": statistics.median(found) / stock}
        for name, found in seconds.items()
    }


def of_export(folder: Path, shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """CPU seconds of exporting a case of 14 classes on one core, with and without measuring
    (export.py)."""
    import export

    export.make_folder(folder, 14, shape)
    result = {}
    for which in ("plain", "measured"):
        size = ["--classes", "14", "--shape", *map(str, shape), "--run", str(folder), which]
        done = subprocess.run(
            [sys.executable, export.__file__, *size], check=True, capture_output=True, text=True
        )
        result[which] = {"s": json.loads(done.stdout.splitlines()[-1])["all"]}
    return {
        name: {**row, "x nnU-Net": row["s"] / result["plain"]["s"]} for name, row in result.items()
    }


def section(found: dict) -> str:
    """The page's section."""
    parts = [
        f"## On a GPU\n\nSynthetic data (`research/benchmarks/gpu.py`), {found['device']}."
        f" {found['machine']}"
    ]
    for title, key in (
        ("Training iteration, 3D", "iteration"),
        ("One scan, from image to segmentation", "prediction"),
        ("Export of one case, seconds", "export"),
    ):
        rows = found[key]
        columns = list(next(iter(rows.values())))
        lines = [
            [name, *(f"{row[column]:.3g}" for column in columns)] for name, row in rows.items()
        ]
        parts.append(f"**{title}**\n\n{table(['', *columns], lines)}")
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
    rounds, scan = (2, (24, 32, 32)) if args.small else (args.rounds, tuple(args.scan))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place in ("raw", "preprocessed", "results"):
            (folder / place).mkdir()
            os.environ[f"nnUNet_{place}"] = str(folder / place)
        make_task(folder / "task", (24, 32, 32) if args.small else (128, 160, 160), scan)
        (folder / "task").rename(folder / f"Task{TASK}_Balls")
        (folder / "task").symlink_to(folder / f"Task{TASK}_Balls")
        run("nnUNetv2_convert_MSD_dataset", "-i", folder / f"Task{TASK}_Balls", "-np", 2)
        run("nnUNetv2_plan_and_preprocess", "-d", TASK, "-c", "3d_fullres", "-np", 2, "-npfp", 2)
        run("nnUNetv2_train", TASK, "3d_fullres", 0, "-tr", TRAINED, "-device", device.type)
        found = {
            "device": (
                torch.cuda.get_device_name() if device.type == "cuda" else "the CPU in its place"
            ),
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
