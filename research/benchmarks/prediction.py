"""From scans to a review list: nnU-Net's commands beside `nnunet_nacl predict`, on the same scans
in one run.

    python research/benchmarks/prediction.py SCANS -d 4 -c 2d_small -tr TRAINER -f 0 [-members 0 1 2
    3 4] [--output ...]

Every round runs every command once, so that a slow moment hits all alike; ratios are medians of the
rounds' ratios. CPU time is that of a command and all processes that it started. The segmentations
must be nnU-Net's.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from page import describe_machine, table, write_section


class Run(NamedTuple):
    """What a row's commands took: seconds, and bytes of what they wrote."""

    wall_s: float
    cpu_s: float
    written: int


def main() -> None:
    """Measures, prints, and writes the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scans", type=Path)
    parser.add_argument("-d", required=True)
    parser.add_argument("-c", required=True)
    parser.add_argument("-tr", default="nnUNetTrainer")
    parser.add_argument("-f", default="0", help="fold of the single network")
    parser.add_argument(
        "-members",
        nargs="+",
        default=[],
        help="folds of the rows with several; default: no such rows",
    )
    parser.add_argument("-device", default="cpu")
    parser.add_argument("-rounds", type=int, default=2)
    parser.add_argument(
        "-processes", type=int, default=1, help="that read, and that export; 0: all in one process"
    )
    parser.add_argument("--output", type=Path, help="page whose section to rewrite")
    args = parser.parse_args()
    rows = _rows(args)
    with tempfile.TemporaryDirectory() as folder:
        rounds = [
            {name: _run(commands, Path(folder) / name) for name, commands in rows.items()}
            for _ in range(args.rounds)
        ]
        _compare(Path(folder), "stock", "ours")
        if args.members:
            _compare(Path(folder), "stock, members", "ours, members")
    print(text := _text(args, rounds))
    if args.output:
        write_section(args.output, "prediction", f"## From scans to a review list\n\n{text}")


def _rows(args: argparse.Namespace) -> dict[str, list[list[str]]]:
    """The commands of each row; OUT stands for its own folder."""
    n = str(args.processes)
    model = ["-d", args.d, "-c", args.c, "-tr", args.tr]
    rest = ["-device", args.device, "-npp", n, "-nps", n, "--disable_progress_bar"]
    stock = ["nnUNetv2_predict", "-i", str(args.scans), "-o", "OUT", *model, *rest, "-f"]
    ours = ["nnunet_nacl", "predict", *stock[1:]]
    after = [
        "nnunet_nacl",
        "review",
        "-i",
        "OUT",
        "-o",
        "OUT_review",
        "-maps",
        "entropy",
        "-np",
        "1",
    ]
    rows = {
        "stock": [[*stock, args.f]],
        "ours": [[*ours, args.f]],
        "npz": [[*stock, args.f, "--save_probabilities"], after],
    }
    if args.members:
        rows["stock, members"] = [[*stock, *args.members]]
        rows["ours, members"] = [[*ours, *args.members]]
    return rows


def _run(commands: list[list[str]], out: Path) -> Run:
    for folder in out.parent.glob(f"{out.name}*"):
        if folder.name.removeprefix(out.name) in ("", "_review"):
            shutil.rmtree(folder)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for command in commands:
        words = [
            word.replace("OUT", str(out)) if word.startswith("OUT") else word for word in command
        ]
        words[0] = str(Path(sys.executable).parent / words[0])
        subprocess.run(
            [sys.executable, *words],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    folders = [out, out.parent / f"{out.name}_review"]
    sizes = [
        path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()
    ]
    print(
        f"{out.name}: wall {wall:.1f} s, CPU {cpu:.1f} s, {sum(sizes):,} bytes",
        file=sys.stderr,
        flush=True,
    )
    return Run(wall, cpu, sum(sizes))


def _compare(folder: Path, stock: str, ours: str) -> None:
    for path in sorted((folder / stock).glob("*.nii.gz")):
        if path.read_bytes() != (folder / ours / path.name).read_bytes():
            raise SystemExit(f"{path.name} differs between {stock} and {ours}")


def _text(args: argparse.Namespace, rounds: list[dict[str, Run]]) -> str:
    titles = {
        "stock": "nnUNetv2_predict",
        "npz": "nnUNetv2_predict --save_probabilities, then review",
        "ours": "nnunet_nacl predict",
        "stock, members": f"nnUNetv2_predict, {len(args.members)} folds",
        "ours, members": f"nnunet_nacl predict, {len(args.members)} folds",
    }
    goals = {"ours": "1.15; a third of the bytes of the row with npz", "ours, members": "1.3"}
    lines = []
    for name in rounds[0]:
        beside = "stock, members" if "members" in name else "stock"
        ratio = [
            median(getattr(one[name], what) / getattr(one[beside], what) for one in rounds)
            for what in ("wall_s", "cpu_s")
        ]
        taken = [median(getattr(one[name], what) for one in rounds) for what in ("wall_s", "cpu_s")]
        lines.append(
            [
                titles[name],
                *(f"{value:.1f}" for value in taken),
                *(f"{value:.2f}" for value in ratio),
                f"{rounds[-1][name].written / 2**20:.2f}",
                goals.get(name, ""),
            ]
        )
    n_scans = len({path.name.rpartition("_")[0] for path in args.scans.glob("*_0000.*")})
    header = [
        "command",
        "wall s",
        "CPU s",
        "wall x nnUNetv2_predict",
        "CPU x",
        "MiB written",
        "goal: at most (wall x)",
    ]
    intro = (
        f"{n_scans} scans, {args.d} {args.c}, {args.tr}; medians of {len(rounds)} interleaved"
        " rounds, "
    )
    intro += (
        f"{args.processes} process(es) that read and as many that export, device {args.device}."
        " The "
    )
    intro += "segmentations are nnU-Net's, byte by byte."
    return f"{intro}\n\n{table(header, lines)}\n\n{describe_machine()}"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
