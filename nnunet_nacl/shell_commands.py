"""Command lines: shown as one would type them, run at the same time, logged, and stopped together."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nnunet_nacl.errors import UserError
from nnunet_nacl.interruption import termination_as_interrupt

_LAST_LINES = 15
_POLL_S = 0.5
_PATIENCE_S = 5.0


class CommandFailed(UserError):
    """A command ended with an error; the message names its log file and holds its last lines."""


def assignments(environment: Mapping[str, str]) -> str:
    """Variables as a shell takes them: of an `export`, or before a command."""
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())


def run_side_by_side(
    commands: Sequence[tuple[Sequence[str], Path | None]],
    environment: Mapping[str, str],
    *,
    on_poll: Callable[[], None] = lambda: None,
) -> None:
    """Runs commands at the same time, each in a process group of its own, and waits for all of them.

    If one fails, or this process is interrupted (Ctrl-C, SIGTERM), all groups are stopped before the exception goes on.

    Args:
        commands: Program and arguments, and the file at whose end the output goes; None leaves it to the terminal.
        environment: Variables added to this process's.
        on_poll: Called twice a second, for a progress bar.

    Raises:
        CommandFailed: A command failed.
        UserError: A program is not installed.
    """
    running: list[subprocess.Popen] = []
    with termination_as_interrupt(), contextlib.ExitStack() as logs:
        try:
            for command, path in commands:
                log = None
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    log = logs.enter_context(open(path, "a", encoding="utf-8"))
                    print(f"\n[{time.strftime('%Y-%m-%d %H:%M:%S')}] $ {shlex.join(command)}", file=log, flush=True)
                process = subprocess.Popen(
                    [find_program(command[0]), *command[1:]],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=None if log is None else subprocess.STDOUT,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                    start_new_session=True,
                )
                running.append(process)
            while statuses := [process.poll() for process in running]:
                for (command, path), status in zip(commands, statuses):
                    if status:
                        raise CommandFailed(_failure(command, path, status))
                on_poll()
                if None not in statuses:
                    break
                time.sleep(_POLL_S)
        finally:
            _stop([process for process in running if process.poll() is None])


def find_program(name: str) -> str:
    """Path of a console script of this Python's environment, else of the PATH."""
    beside = Path(sysconfig.get_path("scripts")) / name
    path = shutil.which(str(beside)) or shutil.which(name)
    if path is None:
        raise UserError(f"{name} is neither in {beside.parent} nor on the PATH; is nnunetv2 installed here?")
    return path


def _failure(command: Sequence[str], log: Path | None, status: int) -> str:
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    message = f"this command {how}:\n  $ {shlex.join(command)}"
    if log is None:
        return message
    last = log.read_text(encoding="utf-8", errors="replace").rstrip().split("\n")[-_LAST_LINES:]
    return "\n".join([message, f"Its log is {log}; it ends with", *(f"  | {line}" for line in last)])


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    """Ends process groups, first by asking, then by force: workers that outlive their parent, too."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                (os.killpg if hasattr(os, "killpg") else os.kill)(process.pid, number)  # Windows knows no groups
        deadline = time.monotonic() + _PATIENCE_S
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
