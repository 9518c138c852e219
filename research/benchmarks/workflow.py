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
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from page import describe_machine, table, write_section

METHODS = ("DiceCE", "Focal", "ECP", "LS", "SVLS", "MbLS", "NACL", "CE")
TRAINERS = [f"nnUNetTrainer{method}_1epochs_2iters" for method in METHODS]
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
    options = [
        "--snakefile",
        SNAKEFILE,
        "--configfile",
        path,
        "--directory",
        folder / "out",
        "--cores",
        cores,
    ]
    _run(["snakemake", *options], folder)


def by_hand(dataset: str, configuration: str, cores: int, folder: Path) -> None:
    """The trainings that the workflow's jobs run, as many at a time."""
    with ThreadPoolExecutor(cores) as pool:
        commands = [
            [
                "nnUNetv2_train",
                dataset,
                configuration,
                0,
                "-tr",
                trainer,
                "-p",
                "nnUNetPlans",
                "-device",
                "cpu",
            ]
            for trainer in TRAINERS
        ]
        list(pool.map(lambda command: _run(command, folder), commands))


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
    seconds: dict[str, list[tuple[float, float]]] = {}
    for _ in range(args.rounds):
        for name, way in (("without the engine", by_hand), ("workflow", by_workflow)):
            with tempfile.TemporaryDirectory() as folder:
                wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
                way(args.dataset, args.configuration, args.cores, Path(folder))
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                seconds.setdefault(name, []).append((time.perf_counter() - wall, cpu))
    medians = {name: [median(values) for values in zip(*found)] for name, found in seconds.items()}
    plain = medians["without the engine"]
    rows = [
        [name, f"{wall:.0f} s", f"{cpu:.0f} s", f"{wall / plain[0]:.2f}", f"{cpu / plain[1]:.2f}"]
        for name, (wall, cpu) in medians.items()
    ]
    per_job = (medians["workflow"][1] - plain[1]) / len(TRAINERS)
    text = (
        f"## Workflow\n\nEight trainings of 2 iterations with their validation, {args.cores} at a"
        f" time, medians of {args.rounds}"
        f" rounds.\n\n{table(['way', 'wall', 'CPU', 'x wall', 'x CPU'], rows)}\n\nThe workflow"
        f" takes {per_job:+.1f} s of CPU time a job more.\n\nMachine: {describe_machine()}."
    )
    print(text)
    if args.output:
        write_section(args.output, "workflow", text)


if __name__ == "__main__":
    main()
