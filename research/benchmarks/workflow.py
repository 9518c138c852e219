"""What the engine of the workflow costs: eight short trainings by workflow/Snakefile, and the same
without it.

    python research/benchmarks/workflow.py DATASET CONFIGURATION [--cores N] [--rounds N] [--output
    PAGE]

DATASET is the full name of one that is preprocessed, in nnUNet_raw and nnUNet_preprocessed; results
go to a temporary folder. Fold 0 on the CPU, two iterations each, as many at the same time as there
are cores: Python's start and the validation are most of it. On a busy machine CPU time counts,
which includes all processes that were started.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from page import join_section, table, write_section
from timing import Seconds, read_clocks

METHODS = ("DiceCE", "Focal", "ECP", "LS", "SVLS", "MbLS", "NACL", "CE")
TRAINERS = [f"nnUNetTrainer{method}_1epochs_2iters" for method in METHODS]
WITHOUT = "without the engine"
SCRIPTS = Path(sys.executable).parent
SNAKEFILE = Path(__file__).parents[2] / "workflow" / "Snakefile"


def by_workflow(dataset: str, configuration: str, cores: int, folder: Path) -> None:
    """All trainings of one configuration file; nothing is compared."""
    content = {
        "datasets": [dataset],
        "configurations": [configuration],
        "folds": [0],
        "trainers": TRAINERS,
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(content | {"comparisons": {}, "device": "cpu"}), encoding="utf-8")
    command = ["snakemake", "--snakefile", SNAKEFILE, "--configfile", path]
    command += ["--directory", folder / "out", "--cores", cores]
    _run(command, folder)


def by_hand(dataset: str, configuration: str, cores: int, folder: Path) -> None:
    """The trainings that the workflow's jobs run, as many at a time."""

    def train(trainer: str) -> None:
        command = ["nnUNetv2_train", dataset, configuration, 0]
        command += ["-tr", trainer, "-p", "nnUNetPlans", "-device", "cpu"]
        _run(command, folder)

    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(train, TRAINERS))  # which raises what a training raised


def _run(command: list, folder: Path) -> None:
    environment = {**os.environ, "nnUNet_results": str(folder / "results"), "OMP_NUM_THREADS": "1"}
    arguments = [str(SCRIPTS / command[0]), *map(str, command[1:])]
    result = subprocess.run(
        arguments,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode:
        raise SystemExit(
            f"{' '.join(arguments)} ended with status {result.returncode}:\n{result.stdout[-3000:]}"
        )


def main() -> None:
    """Measures, prints, and writes the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, help="page whose section is replaced")
    args = parser.parse_args()
    ways = {WITHOUT: by_hand, "workflow": by_workflow}
    seconds: dict[str, list[Seconds]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, train_all in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                start = read_clocks()
                train_all(args.dataset, args.configuration, args.cores, Path(folder))
                seconds[name].append(read_clocks().since(start))
    cpu = {name: median(taken.cpu for taken in found) for name, found in seconds.items()}
    wall = {name: median(taken.wall for taken in found) for name, found in seconds.items()}
    rows = []
    for name in ways:
        ratios = [f"{wall[name] / wall[WITHOUT]:.2f}", f"{cpu[name] / cpu[WITHOUT]:.2f}"]
        rows.append([name, f"{wall[name]:.0f} s", f"{cpu[name]:.0f} s", *ratios])
    more_a_job = (cpu["workflow"] - cpu[WITHOUT]) / len(TRAINERS)
    text = join_section(
        "## Workflow",
        f"Eight trainings of 2 iterations with their validation, {args.cores} at a time, medians of"
        f" {args.rounds} rounds.",
        table(["way", "wall", "CPU", "x wall", "x CPU"], rows),
        f"The workflow takes {more_a_job:+.1f} s of CPU time a job more.",
    )
    print(text)
    if args.output:
        write_section(args.output, "workflow", text)


if __name__ == "__main__":
    main()
