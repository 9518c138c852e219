"""Time of an evaluation from disk, on one core.

    python research/benchmarks/evaluation.py VALIDATION_FOLDER [--core N] [--output PAGE]

Needs nnU-Net's environment variables. Measures one fold end to end, and what its parts take.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
from page import describe_machine, pin_to_one_core, table, write_section


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="a validation folder with npz files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, help="core to run on; default: the first")
    parser.add_argument("--output", type=Path, help="page whose section to rewrite")
    args = parser.parse_args()
    pin_to_one_core(args.core)
    from nnunet_nacl.nnunet.image_files import read_probabilities
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
    from nnunet_nacl.nnunet.records import Work, records_of

    folder = PredictionFolder.open(args.folder)
    source = folder
    cases = source.names
    folder.case(cases[0])  # imports
    files = [folder.folder / f"{case}.npz" for case in cases]
    megabytes = sum(file.stat().st_size for file in files) / 2**20
    shapes = [np.load(file)["probabilities"].shape for file in files]
    voxels = sum(map(math.prod, shapes)) / 1e6
    times: dict[str, list[tuple[float, float]]] = {}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as temporary:
            for name, function in {
                "np.load of the npz": lambda: [np.load(file)["probabilities"] for file in files],
                "reading the npz as the evaluation does": lambda: [
                    read_probabilities(file, folder.labels, shape[1:], "")
                    for file, shape in zip(files, shapes)
                ],
                "loading cases: npz, truth, segmentation": lambda: [
                    folder.case(case) for case in cases
                ],
                "measuring, with records": lambda: dict(
                    records_of(source, Work(), Path(temporary))
                ),  # noqa: B023
                "again, nothing changed": lambda: dict(records_of(source, Work(), Path(temporary))),  # noqa: B023
            }.items():
                start, wall = time.process_time(), time.perf_counter()
                function()
                times.setdefault(name, []).append(
                    (time.process_time() - start, time.perf_counter() - wall)
                )
    medians = {name: np.median(values, axis=0) for name, values in times.items()}
    reference = medians["np.load of the npz"][0]
    text = "\n\n".join(
        [
            "## Evaluation of a fold",
            (
                f"{len(files)} cases, {megabytes:.1f} MiB of npz, {voxels:.1f} million"
                f" probabilities; medians of {args.rounds} interleaved rounds, one process."
            ),
            table(
                ["part", "CPU s", "wall s", "CPU x np.load"],
                [
                    [name, f"{cpu:.3f}", f"{wall:.3f}", f"{cpu / reference:.2f}"]
                    for name, (cpu, wall) in medians.items()
                ],
            ),
            f"Machine: {describe_machine()}.",
        ]
    )
    print(text)
    if args.output:
        write_section(args.output, "evaluation", text)


if __name__ == "__main__":
    main()
