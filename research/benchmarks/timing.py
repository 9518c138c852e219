"""What the benchmarks measure with: CPU and wall time, and the memory of a command."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import NamedTuple


class Seconds(NamedTuple):
    """CPU time of processes, and wall time."""

    cpu: float
    wall: float

    def since(self, start: Seconds) -> Seconds:
        """What has passed since the start."""
        return Seconds(self.cpu - start.cpu, self.wall - start.wall)


class Usage(NamedTuple):
    """What a command took: CPU seconds with its processes, largest memory of one of them in GiB."""

    cpu_s: float
    peak_gib: float


def read_clocks() -> Seconds:
    """Now: CPU time of this process and of those that it started and that ended, and wall time."""
    cpu = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        cpu += usage.ru_utime + usage.ru_stime
    return Seconds(cpu, time.perf_counter())


def run_measured(command: list[str], log: Path) -> Usage:
    """Run a command with one thread; what it prints goes into the log.

    Raises:
        SystemExit: It fails; the message ends with what it printed last.
    """
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
    return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)
