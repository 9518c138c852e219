"""Processes of tests, forked from a server that has PyTorch and nnU-Net loaded.

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
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
        "scipy.stats",
        "SimpleITK",
    ]
)


class _Process(ForkServerProcess):
    """Has the environment and the folder that are set when it is made, as a spawned process has."""

    def __init__(self, *arguments, environ: Mapping[str, str] | None = None, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self._environ = dict(os.environ if environ is None else environ)
        self._folder = os.getcwd()

    def __reduce__(self) -> tuple:
        forkserver._forkserver.ensure_running()
        server = forkserver._forkserver._forkserver_address
        state = bytes(ForkingPickler.dumps(self.__dict__))
        return _as_spawned, (type(self), self._environ, self._folder, server, state)


def _as_spawned(
    kind: type, environ: dict[str, str], folder: str, server: str, state: bytes
) -> _Process:
    """The process, as it sees itself: with the environment and the folder it was made with.

    Its own processes come from the same server.
    """
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
"""Environment variable: new processes load nnU-Net again, which then reads its folders'
variables."""

FORGOTTEN = ("nnunetv2", "nnunet_nacl", "nnunet_nacl_trainers", "nnunet_nacl_bridge")


def forget_nnunet() -> None:
    """Leave this process as if neither nnU-Net nor this package had been loaded.

    To load these again takes a moment; PyTorch, which takes seconds, stays.
    """
    for name in list(sys.modules):
        if name.split(".")[0] in FORGOTTEN:
            del sys.modules[name]
    random.seed()  # the server's state is every process's
    numpy.random.seed()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    importlib.import_module("nnunet_nacl.registration._startup")  # as Python does when it starts


def spawn_warm() -> None:
    """From now on what this process starts as nnU-Net does, by `spawn`, comes from the server."""
    multiprocessing.context._concrete_contexts["spawn"] = WARM


def run_script(path: Path, arguments: Sequence[str]) -> None:
    """Run a console script in this process; what it spawns comes from the server."""
    spawn_warm()
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


@dataclass(frozen=True)
class Ended:
    """Exit status of a process (minus the signal that killed it), and what it wrote."""

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
    """Call a function in a process of its own, which is killed after ``timeout_s``.

    Args:
        function: Any that can be pickled, as can its arguments; what it returns is the exit status.
        folder: Holds a temporary folder with what the process prints, until it has ended.
        environ: The process's environment variables; by default those of this process.
    """
    with tempfile.TemporaryDirectory(prefix=".printed_", dir=folder) as printed:
        stdout = Path(printed) / "stdout"
        stderr = Path(printed) / "stderr"
        process = WARM.Process(
            target=_call_redirected, args=(function, arguments, stdout, stderr), environ=environ
        )
        process.start()
        process.join(timeout_s)
        process.kill()
        process.join()
        return Ended(process.exitcode, _read_output(stdout), _read_output(stderr))


def _call_redirected(function: Callable, arguments: tuple, stdout: Path, stderr: Path) -> None:
    for stream, path in ((1, stdout), (2, stderr)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    sys.exit(function(*arguments))


def _read_output(path: Path) -> str:
    """What a process wrote; nothing where it ended before it opened the file."""
    if not path.exists():
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def full_disk(largest_file: int) -> Iterator[None]:
    """Meanwhile a file that grows over ``largest_file`` bytes is an error, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    try:
        yield
    finally:  # before pytest reports: its own output may be a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


ZOMBIE = "Z"
"""The state of a process that has ended and that its parent has not noticed yet."""


def children(parent: int) -> set[int]:
    """The running children of a process."""
    running = set()
    for folder in Path("/proc").glob("[0-9]*"):
        process = int(folder.name)
        try:
            state, parent_of_process = _state_and_parent(process)
        except OSError:  # it has ended since the folders were listed
            continue
        if parent_of_process == parent and state != ZOMBIE:
            running.add(process)
    return running


def is_alive(process: int) -> bool:
    """Whether a process runs; one that only waits to be noticed does not."""
    try:
        state, _ = _state_and_parent(process)
    except OSError:
        return False
    return state != ZOMBIE


def _state_and_parent(process: int) -> tuple[str, int]:
    """Two fields of Linux's /proc/<process>/stat, whose second, the name, may hold any sign."""
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
    state, parent = after_name.split()[:2]
    return state, int(parent)
