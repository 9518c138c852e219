"""Whole commands of two environments beside each other, such as a release and the one before.

    python research/benchmarks/commands.py -now '/new/bin/nnunet_nacl review -i {input} -o {out}' \\
        -before '/old/bin/nnunet_nacl review -i {input} -o {out}' -input predictions

Every round runs both once, in turns first and second, so that a slow moment hits both; each gets a
fresh copy of the input and an empty output folder. Ratios are medians of the rounds' ratios, now /
before, with the smallest and the largest in brackets. CPU time is that of a command and all
processes that it started: other work on the machine disturbs it less than wall time. A command that
needs the shell is written as `sh -c '...'`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from timing import Seconds, read_clocks


def main() -> None:
    """Measures and prints one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-now", required=True, help="command; {input} and {out} stand for folders")
    parser.add_argument("-before", required=True, help="the same in the other environment")
    parser.add_argument("-input", type=Path, help="folder; every run gets a copy of it")
    parser.add_argument("-rounds", type=int, default=5)
    parser.add_argument(
        "-statuses", type=int, nargs="+", default=[0], help="exit statuses that are no failure"
    )
    parser.add_argument("-name", default="", help="first word of the line")
    args = parser.parse_args()
    commands = {"now": args.now, "before": args.before}
    seconds: dict[str, list[Seconds]] = {"now": [], "before": []}
    with tempfile.TemporaryDirectory() as folder:
        for command in commands.values():  # not counted: files and libraries come into the cache
            run(command, args.input, Path(folder), args.statuses)
        for number in range(args.rounds):
            for name in sorted(commands, reverse=number % 2 == 1):
                taken = run(commands[name], args.input, Path(folder), args.statuses)
                seconds[name].append(taken)
    cpu = compare(
        "CPU", [one.cpu for one in seconds["now"]], [one.cpu for one in seconds["before"]]
    )
    wall = compare(
        "wall", [one.wall for one in seconds["now"]], [one.wall for one in seconds["before"]]
    )
    print(f"{args.name}: {cpu}; {wall}; {args.rounds} rounds", flush=True)


def compare(clock: str, now: list[float], before: list[float]) -> str:
    """Medians of the seconds of two commands by a clock, and their ratio, in words."""
    ratios = sorted(seconds / earlier for seconds, earlier in zip(now, before))
    ratio = f"x {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return f"{clock} {median(now):.1f} s, before {median(before):.1f} s, {ratio}"


def run(command: str, source: Path | None, folder: Path, statuses: list[int]) -> Seconds:
    """What a command took on a fresh copy of its input."""
    copy = folder / "input"
    out = folder / "out"
    for path in (copy, out):
        shutil.rmtree(path, ignore_errors=True)
    if source:
        shutil.copytree(source, copy)
    out.mkdir()
    words = shlex.split(command.replace("{input}", str(copy)).replace("{out}", str(out)))
    start = read_clocks()
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    taken = read_clocks().since(start)
    if done.returncode not in statuses:
        raise SystemExit(f"status {done.returncode}: {command}\n{done.stdout}")
    return taken


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
