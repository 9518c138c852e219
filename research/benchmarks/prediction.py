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
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from page import describe_machine, table, write_section
from timing import Seconds, read_clocks

GOALS = {"ours": "1.15; a third of the bytes of the row with npz", "ours, members": "1.3"}
HEADER = [
    "command",
    "wall s",
    "CPU s",
    "wall x nnUNetv2_predict",
    "CPU x",
    "MiB written",
    "goal: at most (wall x)",
]


@dataclass(frozen=True)
class Run:
    """What a row's commands took, and bytes of what they wrote."""

    seconds: Seconds
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
    commands_by_row = _rows(args)
    rounds = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for _ in range(args.rounds):
            runs = {}
            for row, commands in commands_by_row.items():
                runs[row] = _run(commands, folder / row)
            rounds.append(runs)
        _compare(folder, "stock", "ours")
        if args.members:
            _compare(folder, "stock, members", "ours, members")
    text = _text(args, rounds)
    print(text)
    if args.output:
        write_section(args.output, "prediction", f"## From scans to a review list\n\n{text}")


def _rows(args: argparse.Namespace) -> dict[str, list[list[str]]]:
    """The commands of each row; OUT stands for its own folder."""
    workers = str(args.processes)
    model = ["-d", args.d, "-c", args.c, "-tr", args.tr]
    how = ["-device", args.device, "-npp", workers, "-nps", workers, "--disable_progress_bar"]
    options = ["-i", str(args.scans), "-o", "OUT", *model, *how, "-f"]
    stock = ["nnUNetv2_predict", *options]
    ours = ["nnunet_nacl", "predict", *options]
    review = ["nnunet_nacl", "review", "-i", "OUT", "-o", "OUT_review"]
    review += ["-maps", "entropy", "-np", "1"]
    rows = {
        "stock": [[*stock, args.f]],
        "ours": [[*ours, args.f]],
        "npz": [[*stock, args.f, "--save_probabilities"], review],
    }
    if args.members:
        rows["stock, members"] = [[*stock, *args.members]]
        rows["ours, members"] = [[*ours, *args.members]]
    return rows


def _run(commands: list[list[str]], out: Path) -> Run:
    """What the commands of a row took, which write into its own folders."""
    folders = [out, out.parent / f"{out.name}_review"]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    start = read_clocks()
    for program, *arguments in commands:
        words = [sys.executable, str(Path(sys.executable).parent / program)]
        for argument in arguments:
            is_folder = argument.startswith("OUT")
            words.append(argument.replace("OUT", str(out)) if is_folder else argument)
        quiet = subprocess.DEVNULL
        subprocess.run(words, check=True, stdout=quiet, stderr=quiet)
    seconds = read_clocks().since(start)
    written = 0
    for folder in folders:
        written += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(
        f"{out.name}: wall {seconds.wall:.1f} s, CPU {seconds.cpu:.1f} s, {written:,} bytes",
        file=sys.stderr,
        flush=True,
    )
    return Run(seconds, written)


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
    lines = [[titles[row], *_cells(row, rounds), GOALS.get(row, "")] for row in rounds[0]]
    n_scans = len({path.name.rpartition("_")[0] for path in args.scans.glob("*_0000.*")})
    intro = (
        f"{n_scans} scans, {args.d} {args.c}, {args.tr}; medians of {len(rounds)} interleaved"
        f" rounds, {args.processes} process(es) that read and as many that export, device"
        f" {args.device}. The segmentations are nnU-Net's, byte by byte."
    )
    return f"{intro}\n\n{table(HEADER, lines)}\n\n{describe_machine()}"


def _cells(row: str, rounds: list[dict[str, Run]]) -> list[str]:
    """Seconds of a row, their ratios to nnU-Net's in the same round, and the MiB that it wrote."""
    stock = "stock, members" if "members" in row else "stock"
    seconds = [runs[row].seconds for runs in rounds]
    stock_seconds = [runs[stock].seconds for runs in rounds]
    wall_ratios = [ours.wall / other.wall for ours, other in zip(seconds, stock_seconds)]
    cpu_ratios = [ours.cpu / other.cpu for ours, other in zip(seconds, stock_seconds)]
    return [
        f"{median(taken.wall for taken in seconds):.1f}",
        f"{median(taken.cpu for taken in seconds):.1f}",
        f"{median(wall_ratios):.2f}",
        f"{median(cpu_ratios):.2f}",
        f"{rounds[-1][row].written / 2**20:.2f}",
    ]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
