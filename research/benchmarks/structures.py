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
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from page import join_section, table, write_section
from timing import Usage, run_measured

ENDING = ".nii.gz"
PROBABLE = 1e-4


def make_case(rng: np.random.Generator, classes: int, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """(classes, edge, edge, edge) float32 probabilities, and (edge, edge, edge) uint8 truth.

    Seeds divide the cube among the classes, the background among them. The truth is the division
    seen through one smooth displacement; the network's logits follow the distances to the seeds
    through a displacement that is a little different, are too sure, and have noise.
    """
    centres = (np.arange(edge, dtype=np.float32) + 0.5) / edge
    grid = np.stack(np.meshgrid(centres, centres, centres, indexing="ij"))
    seen_by_truth, seen_by_network = _displace(grid, rng)
    # the same in every case
    seeds = np.random.default_rng(classes).random((classes, 3)).astype(np.float32)
    lacking = rng.permutation(np.arange(1, classes))[: (classes - 1) // 10]
    smallest_distance = np.full((edge,) * 3, np.inf, np.float32)
    truth = np.zeros((edge,) * 3, np.uint8)
    logits = np.empty((classes, *(edge,) * 3), np.float32)
    for k, seed in enumerate(seeds):
        distance = _distance_to_seed(seen_by_truth, seed, k, classes)
        distance_in_network = _distance_to_seed(seen_by_network, seed, k, classes)
        if k in lacking:
            distance_in_network += 1
        else:
            is_nearer = distance < smallest_distance
            truth[is_nearer] = k
            smallest_distance[is_nearer] = distance[is_nearer]
        logits[k] = -8 * distance_in_network
    highest = logits.max(0)
    # a network is not as sure of what is far away as distances say
    floor = 6 + 0.7 * np.log(classes)
    for layer in logits:
        np.maximum(layer, highest - floor, out=layer)
        layer += rng.normal(0, 1.5, layer.shape).astype(np.float32)
    np.exp(logits - logits.max(0), out=logits)
    logits /= logits.sum(0)
    return logits, truth


def _displace(grid: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The (3, *cube) places that truth and network see where the grid is."""
    from scipy.ndimage import zoom

    field, error = rng.normal(0, 0.03, (2, 3, 5, 5, 5)).astype(np.float32)
    factors = (1, *[grid.shape[-1] / 5] * 3)
    of_truth = zoom(field, factors, order=1)
    of_network = zoom(field + error / 4, factors, order=1)
    return grid + of_truth, grid + of_network


def _distance_to_seed(
    places: np.ndarray, seed: np.ndarray, number: int, classes: int
) -> np.ndarray:
    """(*cube) squared distance to the seed of a class, in cells; each tenth class is flat."""
    weights = [1.0, 1.0, 1.0]
    if number % 10 == 1 and number > 1:
        weights = [16.0, 0.5, 0.5]
    cell = classes ** (-1 / 3)
    in_cells = (places - seed[:, None, None, None]) / cell
    return (in_cells**2 * np.array(weights, np.float32)[:, None, None, None]).sum(0)


def soft_share(probabilities: np.ndarray) -> float:
    """Share of the voxels with more than eight classes above ``PROBABLE``."""
    return float(((probabilities > PROBABLE).sum(0) > 8).mean())


def make_folder(
    root: Path, classes: int, cases: int, edge: int, regions: bool
) -> tuple[Path, Path]:
    """Predictions as nnU-Net saves them, and their ground truth; of as many regions as there are
    structures."""
    predictions = root / "predictions"
    truths = root / "truth"
    if (root / "complete").exists():
        return predictions, truths
    for folder in (predictions, truths):
        folder.mkdir(parents=True, exist_ok=True)
    dataset = _dataset_json(classes, cases, regions)
    (predictions / "dataset.json").write_text(json.dumps(dataset))
    (predictions / "plans.json").write_text(json.dumps(_PLANS))
    rng = np.random.default_rng(0)
    for number in range(cases):
        probabilities, truth = make_case(rng, classes, edge)
        name = f"case_{number:03d}"
        predicted = probabilities.argmax(0).astype(np.uint8)
        if regions:
            probabilities = np.minimum(probabilities[::-1].cumsum(0)[-2::-1], 1)
            predicted = (probabilities > 0.5).sum(0).astype(np.uint8)
        np.savez_compressed(predictions / f"{name}.npz", probabilities=probabilities)
        _write_labels(predicted, predictions / f"{name}{ENDING}")
        _write_labels(truth, truths / f"{name}{ENDING}")
        if number == 0 and not regions:
            share = soft_share(probabilities)
            print(f"{classes} classes: {share:.0%} of the voxels are soft", flush=True)
    (root / "complete").touch()
    return predictions, truths


_PLANS = {
    "dataset_name": "Dataset999_Synthetic",
    "image_reader_writer": "SimpleITKIO",
    "label_manager": "LabelManager",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {},
}


def _dataset_json(classes: int, cases: int, regions: bool) -> dict[str, object]:
    labels: dict[str, int | list[int]] = {"background": 0}
    for number in range(1, classes):
        labels[f"structure_{number}"] = list(range(number, classes)) if regions else number
    dataset: dict[str, object] = {
        "labels": labels,
        "file_ending": ENDING,
        "channel_names": {"0": "CT"},
        "numTraining": cases,
    }
    if regions:
        dataset["regions_class_order"] = list(range(1, classes))
    return dataset


def _write_labels(label_map: np.ndarray, path: Path) -> None:
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(label_map), str(path))


@dataclass(frozen=True)
class Row:
    """What calibrating a folder took, first from probabilities and again from records.

    Attributes:
        name: Number of classes, or of regions.
        first, again: The two runs.
        num_values: Probabilities of the folder.
        num_sampled: Voxels of all samples.
        num_cases: Cases of the folder.
        largest_record: In bytes.
    """

    name: str
    first: Usage
    again: Usage
    num_values: int
    num_sampled: int
    num_cases: int
    largest_record: int

    def cells(self) -> list[str]:
        """Of the table."""
        ns_per_value = 1e9 * self.first.cpu_s / self.num_values
        us_per_sampled_voxel = 1e6 * self.again.cpu_s / self.num_sampled
        voxels_per_sample = self.num_sampled / self.num_cases
        largest_record_mb = self.largest_record / 1e6
        return [
            self.name.replace("_", " "),
            f"{self.first.cpu_s:.1f}",
            f"{ns_per_value:.0f}",
            f"{self.first.peak_gib:.2f}",
            f"{self.again.cpu_s:.1f}",
            f"{us_per_sampled_voxel:.0f}",
            f"{self.again.peak_gib:.2f}",
            f"{voxels_per_sample:.0f}",
            f"{largest_record_mb:.2f}",
        ]


def measure_calibrate(work: Path, number: int, regions: bool, cases: int, edge: int) -> Row:
    """Calibrate as many classes, or regions, twice."""
    name = f"{number}_regions" if regions else str(number)
    root = work / f"{name}_{cases}_{edge}"
    classes = number + regions  # the background is no region
    # apart, since the peak of a command begins at the memory of the process that starts it
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        folders = apart.submit(make_folder, root, classes, cases, edge, regions)
        predictions, truths = folders.result()
    calibration_map = predictions / "calibration_map.json"
    calibration_map.unlink(missing_ok=True)
    (predictions / "calibration.json").unlink(missing_ok=True)
    shutil.rmtree(predictions / "records", ignore_errors=True)
    program = str(Path(sys.executable).parent / "nnunet_nacl")
    command = [program, "calibrate", "-i", str(predictions), "-gt", str(truths), "-np", "1"]
    first = run_measured(command, root / "first.log")
    calibration_map.unlink()
    again = run_measured(command, root / "again.log")
    records = list((predictions / "records").glob("*.npz"))
    return Row(
        name=name,
        first=first,
        again=again,
        num_values=cases * edge**3 * number,
        num_sampled=sum(len(np.load(path)["sample_target"]) for path in records),
        num_cases=cases,
        largest_record=max(path.stat().st_size for path in records),
    )


HEADER = [
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
    folders = [(number, False) for number in args.classes]
    folders += [(number, True) for number in args.regions]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        for number, regions in folders:
            row = measure_calibrate(work, number, regions, args.cases, args.edge)
            rows.append(row.cells())
            print(rows[-1], flush=True)
    text = join_section(
        "## By the number of structures",
        f"{args.cases} cases of {args.edge}^3 voxels.",
        table(HEADER, rows),
    )
    print(text)
    if args.output:
        write_section(args.output, "structures", text)


if __name__ == "__main__":
    main()
