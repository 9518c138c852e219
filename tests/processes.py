"""Processes of tests: forked from a server that has PyTorch and nnU-Net loaded, and found through
Linux's /proc.

A new Python takes seconds until it has loaded them. Where a test is about the new Python itself, it
starts one.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import pickle
import random
import resource
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy
import torch

multiprocessing.set_forkserver_preload(
    [
        "matplotlib.figure",
        "nibabel",
        "nnunetv2.inference.predict_from_raw_data",
        "pandas",
        "pytest",
        "scipy.optimize",
    ]
    + ["nnunetv2.training.nnUNetTrainer.nnUNetTrainer", "scipy.stats", "SimpleITK"]
)


class _Process(ForkServerProcess):
    """Has the environment and the folder that are set when it is made, as a process that is
    spawned."""

    def __init__(self, *arguments, environ: Mapping[str, str] | None = None, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self._given = dict(os.environ if environ is None else environ), os.getcwd()

    def __reduce__(self) -> tuple:
        forkserver._forkserver.ensure_running()
        state = bytes(ForkingPickler.dumps(self.__dict__))
        return _as_spawned, (
            type(self),
            *self._given,
            forkserver._forkserver._forkserver_address,
            state,
        )


def _as_spawned(
    kind: type, environ: dict[str, str], folder: str, server: str, state: bytes
) -> _Process:
    """The process, in itself, once all is as it was where it was made; its own processes come from
    the same server."""
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    if os.environ.get(FORGET):
        forget_nnunet()
    forkserver._forkserver._forkserver_address = server
    forkserver._forkserver.ensure_running = resource_tracker.ensure_running
    process = kind.__new__(kind)
    process.__dict__.update(pickle.loads(state))
    return process


class _Context(ForkServerContext):
    Process = _Process


WARM = _Context()

FORGET = "NNUNET_NACL_TESTS_FORGET_NNUNET"
"""Environment variable: new processes load nnU-Net themselves, which reads its folders from the
environment then."""


def forget_nnunet() -> None:
    """As if neither nnU-Net nor this package had been loaded: it takes a moment to load them,
    PyTorch takes seconds."""
    for name in list(sys.modules):
        if name.split(".")[0] in (
            "nnunetv2",
            "nnunet_nacl",
            "nnunet_nacl_trainers",
            "nnunet_nacl_bridge",
        ):
            del sys.modules[name]
    random.seed()  # the server's state is every process's
    numpy.random.seed()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    importlib.import_module("nnunet_nacl.registration._startup")  # as Python does when it starts


def spawn_warm() -> None:
    """What this process starts as nnU-Net does, by `spawn`, comes from the server from now on."""
    multiprocessing.context._concrete_contexts["spawn"] = WARM


def run_script(path: Path, arguments: Sequence[str]) -> None:
    """Runs a console script in this process, and its processes from the server."""
    spawn_warm()
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


@dataclass(frozen=True)
class Ended:
    """How a process ended (minus the signal that killed it), and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def run_warm(
    function: Callable,
    *arguments: object,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> Ended:
    """Calls a function, which can be pickled, in a process of its own; what it prints lies in
    ``folder`` until then."""
    with tempfile.TemporaryDirectory(prefix=".printed_", dir=folder) as printed:
        outputs = [Path(printed) / stream for stream in ("stdout", "stderr")]
        process = WARM.Process(
            target=_redirected, args=(function, arguments, outputs), environ=environ
        )
        process.start()
        process.join(timeout_s)
        process.kill()
        process.join()
        written = [
            path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            for path in outputs
        ]
    return Ended(process.exitcode, *written)


def _redirected(function: Callable, arguments: tuple, outputs: list[Path]) -> None:
    for stream, path in enumerate(outputs, 1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    sys.exit(function(*arguments))


@contextlib.contextmanager
def full_disk(largest_file: int) -> Iterator[None]:
    """No file of this process grows over so many bytes meanwhile; more is an error, as on a disk
    that is full."""
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
