"""Processes of tests: forked from a server that has PyTorch and nnU-Net loaded, and found through Linux's /proc.

A new Python takes seconds until it has loaded them. Where a test is about the new Python itself, it starts one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

multiprocessing.set_forkserver_preload(
    ["matplotlib.figure", "nibabel", "nnunetv2.inference.predict_from_raw_data", "pandas", "pytest", "scipy.optimize"]
    + ["nnunetv2.training.nnUNetTrainer.nnUNetTrainer", "scipy.stats", "SimpleITK"]
)


class _Process(ForkServerProcess):
    """Has the environment and the folder that are set when it is made, as a process that is spawned."""

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self._given = dict(os.environ), os.getcwd()

    def run(self) -> None:
        environ, folder = self._given
        os.environ.clear()
        os.environ.update(environ)
        os.chdir(folder)
        super().run()


class _Context(ForkServerContext):
    Process = _Process


WARM = _Context()


@dataclass(frozen=True)
class Ended:
    """How a process ended (minus the signal that killed it), and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def run_warm(function: Callable, *arguments: object, folder: Path) -> Ended:
    """Calls a function in a process of its own, and waits for it.

    Args:
        function: Can be pickled; the process ends with the status that it returns or exits with.
        arguments: Of the function.
        folder: For what it prints, until it has ended.
    """
    outputs = [folder / f".{stream}" for stream in ("stdout", "stderr")]
    process = WARM.Process(target=_redirected, args=(function, arguments, outputs))
    process.start()
    process.join()
    written = [path.read_text(encoding="utf-8", errors="replace") if path.exists() else "" for path in outputs]
    for path in outputs:
        path.unlink(missing_ok=True)
    return Ended(process.exitcode, *written)


def _redirected(function: Callable, arguments: tuple, outputs: list[Path]) -> None:
    for stream, path in enumerate(outputs, 1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    sys.exit(function(*arguments))


@contextlib.contextmanager
def full_disk(largest_file: int) -> Iterator[None]:
    """No file of this process grows over so many bytes meanwhile; more is an error, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    try:
        yield
    finally:  # before pytest reports: its own output may be a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def children(parent: int) -> set[int]:
    """The running children of a process."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, its_parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(its_parent) == parent and state != "Z":
            found.add(int(path.parent.name))
    return found


def is_alive(process: int) -> bool:
    """Whether a process runs; one that only waits to be noticed does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
