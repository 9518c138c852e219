"""nnU-Net's three folders, and its stock commands run on them as a user would."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.processes import FORGET, run_script, run_warm

TIMEOUT_S = 900


class Workspace:
    """A folder with nnU-Net's in it, and the environment without anything of the user's nnU-Net."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.raw = folder / "raw"
        self.preprocessed = folder / "preprocessed"
        self.results = folder / "results"
        folders = {
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
        }
        few_processes = {"nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "1"}
        self.environ = environ | folders | few_processes

    def start(self, command: str, *arguments: object, **environ: str) -> subprocess.Popen:
        """Start a console script of this Python; what it prints is in the process's ``stdout``.

        Args:
            command: The script's name, perhaps with the first words of its command line.
            arguments: Further words, which may hold spaces.
            environ: Further environment variables.
        """
        program, *words = command.split()
        return subprocess.Popen(
            [sys.executable, str(_script(program)), *words, *map(str, arguments)],
            env=self.environ | environ,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
        )

    def run(self, command: str, *arguments: object, **environ: str) -> str:
        """Run a console script in a Python of its own; its output. A failure shows that output."""
        process = self.start(command, *arguments, **environ)
        try:
            output, _ = process.communicate(timeout=TIMEOUT_S)
        except BaseException:
            kill(process)
            raise
        return _checked(output, process.returncode, command, arguments)

    def run_warm(self, command: str, *arguments: object, **environ: str) -> str:
        """Run it in a process that has PyTorch loaded: where the test is not about a new Python."""
        program, *words = command.split()
        words += map(str, arguments)
        return self.call_warm(run_script, _script(program), words, **environ)

    def call_warm(self, function: Callable, *arguments: object, **environ: str) -> str:
        """Call a function in such a process; its output. A failure shows that output."""
        settings = self.environ | environ | {FORGET: "1"}
        ended = run_warm(
            function, *arguments, folder=self.folder, environ=settings, timeout_s=TIMEOUT_S
        )
        return _checked(ended.stdout + ended.stderr, ended.returncode, function.__name__, arguments)

    def model_folder(self, dataset_id: int, trainer: str, plans: str, configuration: str) -> Path:
        """Where nnU-Net keeps the trained model."""
        parent = self.dataset_folder(self.results, dataset_id)
        return parent / f"{trainer}__{plans}__{configuration}"

    def images(self, dataset_id: int) -> Path:
        """The folder of the unlabelled case."""
        return self.dataset_folder(self.raw, dataset_id) / "imagesTs"

    @staticmethod
    def dataset_folder(parent: Path, dataset_id: int) -> Path:
        """The data set's folder in one of nnU-Net's; in results once something was trained."""
        (folder,) = parent.glob(f"Dataset{dataset_id:03d}_*")
        return folder


def _script(command: str) -> Path:
    return Path(sys.executable).parent / command


def _checked(output: str, status: int, command: str, arguments: Sequence[object]) -> str:
    shown = f"{command} {' '.join(map(str, arguments))}"
    assert status == 0, f"{shown} ended with status {status}:\n{output[-6000:]}"
    return output


def kill(process: subprocess.Popen) -> None:
    """Kill a command and all that it started, without a chance to tidy up."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # what it started in another session still holds its output
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=60)


def training_log(fold_folder: Path) -> str:
    """The text of the newest training log."""
    logs = sorted(fold_folder.glob("training_log_*.txt"), key=lambda path: path.stat().st_mtime_ns)
    return logs[-1].read_text() if logs else ""


def epochs_in(log: str) -> list[int]:
    """The epochs that a training log tells of."""
    return [int(epoch) for epoch in re.findall(r"Epoch (\d+) *$", log, re.MULTILINE)]


def wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    """Wait until ``condition()`` holds while the process runs."""
    start = time.monotonic()
    while not condition():
        assert process.poll() is None, f"ended too early:\n{process.communicate()[0][-6000:]}"
        assert time.monotonic() - start < TIMEOUT_S
        time.sleep(0.02)
