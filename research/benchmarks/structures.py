"""Time and memory by the number of structures: calibrating, exporting and evaluating synthetic
predictions.

    python research/benchmarks/structures.py [--classes 3 14 50 118] [--regions 12] [--cases 6]
    [--edge 64]
        [--work FOLDER] [--output PAGE]

The predictions are soft: most voxels have more than eight classes above 1e-4. Structures touch;
each tenth is thin, and each case lacks a tenth of them. Regions are nested: each holds the
structures from one number on. `calibrate` runs twice as a user runs it, first from the
probabilities, then from the records that the first run left; each in a process of its own, whose
CPU time and largest memory count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from page import describe_machine, table, write_section

ENDING = ".nii.gz"
PROBABLE = 1e-4


def make_case(rng: np.random.Generator, classes: int, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """(classes, edge, edge, edge) float32 probabilities, and (edge, edge, edge) uint8 truth.

    Seeds divide the cube among the classes, the background among them. The truth is the division
    seen through one smooth displacement; the network's logits follow the distances to the seeds
    through a displacement that is a little different, are too sure, and have noise.
    """
    from scipy.ndimage import zoom

    grid = np.stack(
        np.meshgrid(*[(np.arange(edge, dtype=np.float32) + 0.5) / edge] * 3, indexing="ij")
    )
    coarse = rng.normal(0, 0.03, (2, 3, 5, 5, 5)).astype(np.float32)
    moved = [
        zoom(field, (1, *[edge / 5] * 3), order=1)
        for field in (coarse[0], coarse[0] + coarse[1] / 4)
    ]
    # the same in every case
    seeds = np.random.default_rng(classes).random((classes, 3)).astype(np.float32)
    lacking = rng.permutation(np.arange(1, classes))[: (classes - 1) // 10]
    cell, smallest = classes ** (-1 / 3), np.full((edge,) * 3, np.inf, np.float32)
    truth, logits = np.zeros((edge,) * 3, np.uint8), np.empty((classes, *(edge,) * 3), np.float32)
    for k, seed in enumerate(seeds):
        for displaced, network in zip(moved, (False, True)):
            is_flat = k % 10 == 1 and k > 1
            shape = np.array([16, 0.5, 0.5] if is_flat else [1, 1, 1], np.float32)[
                :, None, None, None
            ]
            distance = (((grid + displaced - seed[:, None, None, None]) / cell) ** 2 * shape).sum(0)
            if k in lacking:
                distance += 1
            if network:
                logits[k] = -8 * distance
            elif k not in lacking:
                nearer = distance < smallest
                truth[nearer], smallest[nearer] = k, distance[nearer]
    top = logits.max(0)
    # a network is not as sure of what is far away as distances say
    floor = 6 + 0.7 * np.log(classes)
    for layer in logits:
        np.maximum(layer, top - floor, out=layer)
        layer += rng.normal(0, 1.5, layer.shape).astype(np.float32)
    np.exp(logits - logits.max(0), out=logits)
    logits /= logits.sum(0)
    return logits, truth


def soft_share(probabilities: np.ndarray) -> float:
    """Share of the voxels with more than eight classes above ``PROBABLE``."""
    return float(((probabilities > PROBABLE).sum(0) > 8).mean())


def make_folder(
    root: Path, classes: int, cases: int, edge: int, regions: bool
) -> tuple[Path, Path]:
    """Predictions as nnU-Net saves them, and their ground truth; of as many regions as there are
    structures."""
    import SimpleITK as sitk

    predictions, truths = root / "predictions", root / "truth"
    if (root / "complete").exists():
        return predictions, truths
    for folder in (predictions, truths):
        folder.mkdir(parents=True, exist_ok=True)
    labels: dict[str, int | list[int]] = {"background": 0}
    labels |= {
        f"structure_{k}": list(range(k, classes)) if regions else k for k in range(1, classes)
    }
    order = {"regions_class_order": list(range(1, classes))} if regions else {}
    dataset = {
        "labels": labels,
        **order,
        "file_ending": ENDING,
        "channel_names": {"0": "CT"},
        "numTraining": cases,
    }
    plans = {
        "dataset_name": "Dataset999_Synthetic",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {},
    }
    for name, content in (("dataset.json", dataset), ("plans.json", plans)):
        (predictions / name).write_text(json.dumps(content))
    rng = np.random.default_rng(0)
    for number in range(cases):
        probabilities, truth = make_case(rng, classes, edge)
        name = f"case_{number:03d}"
        predicted = probabilities.argmax(0).astype(np.uint8)
        if regions:
            probabilities = np.minimum(probabilities[::-1].cumsum(0)[-2::-1], 1)
            predicted = (probabilities > 0.5).sum(0).astype(np.uint8)
        np.savez_compressed(predictions / f"{name}.npz", probabilities=probabilities)
        for folder, labels_of in ((predictions, predicted), (truths, truth)):
            sitk.WriteImage(sitk.GetImageFromArray(labels_of), str(folder / f"{name}{ENDING}"))
        if not number and not regions:
            print(
                f"{classes} classes: {soft_share(probabilities):.0%} of the voxels are soft",
                flush=True,
            )
    (root / "complete").touch()
    return predictions, truths


def measure(command: list[str], log: Path) -> tuple[float, float]:
    """CPU seconds of a command with its processes, and the largest resident memory of one of them
    in GiB."""
    with open(log, "w") as file:
        pid = os.posix_spawn(
            command[0],
            command,
            {**os.environ, "OMP_NUM_THREADS": "1"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, file.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, file.fileno(), 2),
            ],
        )
        _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"status {status}: {' '.join(command)}\n{log.read_text()[-3000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main() -> None:
    """Measures, prints, and writes the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, nargs="+", default=[3, 14, 50, 118])
    parser.add_argument("--regions", type=int, nargs="*", default=[12])
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--edge", type=int, default=64)
    parser.add_argument(
        "--work", type=Path, help="folder to keep the predictions in (default: a temporary one)"
    )
    parser.add_argument("--output", type=Path, help="page whose section to rewrite")
    args = parser.parse_args()
    program = str(Path(sys.executable).parent / "nnunet_nacl")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, regions in [
            *((n, False) for n in args.classes),
            *((n, True) for n in args.regions),
        ]:
            name = f"{number}_regions" if regions else str(number)
            root = (args.work or Path(temporary)) / f"{name}_{args.cases}_{args.edge}"
            # apart, since the peak of a command begins at the memory of the process that starts it
            with ProcessPoolExecutor(1, get_context("spawn")) as apart:
                asked = apart.submit(
                    make_folder, root, number + regions, args.cases, args.edge, regions
                )
                predictions, truths = asked.result()
            out = predictions / "calibration_map.json"
            for left in (out, predictions / "calibration.json"):
                left.unlink(missing_ok=True)
            shutil.rmtree(predictions / "records", ignore_errors=True)
            command = [program, "calibrate", "-i", str(predictions), "-gt", str(truths), "-np", "1"]
            first = measure(command, root / "first.log")
            out.unlink()
            again = measure(command, root / "again.log")
            records = list((predictions / "records").glob("*.npz"))
            voxels = sum(len(np.load(path)["sample_target"]) for path in records)
            values = args.cases * args.edge**3 * number
            rows.append(
                [
                    name.replace("_", " "),
                    f"{first[0]:.1f}",
                    f"{1e9 * first[0] / values:.0f}",
                    f"{first[1]:.2f}",
                    f"{again[0]:.1f}",
                    f"{1e6 * again[0] / voxels:.0f}",
                    f"{again[1]:.2f}",
                    f"{voxels / args.cases:.0f}",
                    f"{max(path.stat().st_size for path in records) / 1e6:.2f}",
                ]
            )
            print(rows[-1], flush=True)
    header = [
        "classes",
        "calibrate, CPU s",
        "ns a voxel and channel",
        "peak GiB",
        "again, CPU s",
        "us a sampled voxel",
        "peak GiB",
        "voxels a sample",
        "MB a record",
    ]
    size = f"{args.cases} cases of {args.edge}^3 voxels."
    text = "\n\n".join(
        [
            "## By the number of structures",
            size,
            table(header, rows),
            f"Machine: {describe_machine()}.",
        ]
    )
    print(text)
    if args.output:
        write_section(args.output, "structures", text)


if __name__ == "__main__":
    main()
