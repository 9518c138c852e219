"""Time of an evaluation from disk, on one core.

    taskset -c 0 python benchmarks/evaluation.py VALIDATION_FOLDER

Needs nnU-Net's environment variables. Measures one fold end to end, and what its parts take.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a validation folder with npz files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    from nnunet_nacl.evaluation.cases import PredictionFolder
    from nnunet_nacl.evaluation.evaluate import evaluate_folder
    from nnunet_nacl.evaluation.npz import read_array

    folder = PredictionFolder.open(args.folder)
    files, _ = folder.cases(chill=True)
    folder.load(files[0])  # imports
    megabytes = sum(f.probabilities.stat().st_size for f in files) / 2**20
    print(f"{len(files)} cases, {megabytes:.1f} MiB of npz")
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "calibration.json"
        for name, function in {
            "np.load": lambda: [np.load(f.probabilities)["probabilities"] for f in files],
            "read_array": lambda: [read_array(f.probabilities, "probabilities") for f in files],
            "load (npz, truth, segmentation)": lambda: [folder.load(f) for f in files],
            "evaluate and write": lambda: evaluate_folder(folder, output=output),
            "evaluate again, nothing changed": lambda: evaluate_folder(folder, output=output),
        }.items():
            start, wall = time.process_time(), time.perf_counter()
            function()
            print(f"  {name:34s}{time.process_time() - start:8.3f} s CPU {time.perf_counter() - wall:8.3f} s")


if __name__ == "__main__":
    main()
