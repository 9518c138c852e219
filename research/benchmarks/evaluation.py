"""Time of an evaluation from disk, on one core.

    python research/benchmarks/evaluation.py VALIDATION_FOLDER [--core N] [--output PAGE]

Needs nnU-Net's environment variables. Measures one fold end to end, and what its parts take.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from page import join_section, pin_to_one_core, table, write_section
from timing import Seconds, read_clocks

LOAD = "np.load of the npz"


def list_parts(folder, records: Path) -> dict[str, Callable[[], object]]:
    """By name what is measured of a folder of predictions; ``records`` is empty at first."""
    from nnunet_nacl.nnunet.image_files import read_probabilities
    from nnunet_nacl.nnunet.records import Work, records_of

    files = npz_files(folder)
    spatial_shapes = [np.load(file)["probabilities"].shape[1:] for file in files]

    def load() -> None:
        for file in files:
            np.load(file)["probabilities"]

    def read() -> None:
        for file, shape in zip(files, spatial_shapes):
            read_probabilities(file, folder.labels, shape, "")

    def load_cases() -> None:
        for name in folder.names:
            folder.case(name)

    def make_records() -> None:
        dict(records_of(folder, Work(), records))

    return {
        LOAD: load,
        "reading the npz as the evaluation does": read,
        "loading cases: npz, truth, segmentation": load_cases,
        "measuring, with records": make_records,
        "again, nothing changed": make_records,
    }


def npz_files(folder) -> list[Path]:
    """Of the cases of a folder of predictions."""
    return [folder.folder / f"{name}.npz" for name in folder.names]


def measure_parts(folder, rounds: int) -> dict[str, list[Seconds]]:
    """Seconds of each part in each round; every round runs all parts once."""
    seconds: dict[str, list[Seconds]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as records:
            for name, run_part in list_parts(folder, Path(records)).items():
                start = read_clocks()
                run_part()
                seconds.setdefault(name, []).append(read_clocks().since(start))
    return seconds


def main() -> None:
    """Measures, prints, and writes the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="a validation folder with npz files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, help="core to run on; default: the first")
    parser.add_argument("--output", type=Path, help="page whose section to rewrite")
    args = parser.parse_args()
    pin_to_one_core(args.core)
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder

    folder = PredictionFolder.open(args.folder)
    folder.case(folder.names[0])  # imports
    files = npz_files(folder)
    mebibytes = sum(file.stat().st_size for file in files) / 2**20
    millions = sum(math.prod(np.load(file)["probabilities"].shape) for file in files) / 1e6
    seconds = measure_parts(folder, args.rounds)
    reference = median(taken.cpu for taken in seconds[LOAD])
    rows = []
    for name, of_rounds in seconds.items():
        cpu = median(taken.cpu for taken in of_rounds)
        wall = median(taken.wall for taken in of_rounds)
        rows.append([name, f"{cpu:.3f}", f"{wall:.3f}", f"{cpu / reference:.2f}"])
    text = join_section(
        "## Evaluation of a fold",
        f"{len(files)} cases, {mebibytes:.1f} MiB of npz, {millions:.1f} million"
        f" probabilities; medians of {args.rounds} interleaved rounds, one process.",
        table(["part", "CPU s", "wall s", "CPU x np.load"], rows),
    )
    print(text)
    if args.output:
        write_section(args.output, "evaluation", text)


if __name__ == "__main__":
    main()
