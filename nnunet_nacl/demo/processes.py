"""Runs commands side by side, each with a log, and stops all of them together."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_nacl.utilities.errors import UserError

_POLL_S = 0.5
_SHOWN_OF_A_LOG = 1000  # characters


@dataclass(frozen=True)
class LoggedCommand:
    """A command, word by word, and the file that takes what it prints."""

    words: tuple[str, ...]
    log: Path


def _do_nothing() -> None:
    """The default of what is called while commands run."""


def run_together(
    commands: Sequence[LoggedCommand],
    environment: Mapping[str, str],
    while_waiting: Callable[[], None] = _do_nothing,
) -> None:
    """Runs commands at the same time; whatever ends this, they and their workers have ended, too.

    Args:
        commands: What to run. A log that exists is written on.
        environment: Environment variables of all commands.
        while_waiting: Called twice a second, and once when all have ended.

    Raises:
        UserError: A command failed, the end of whose log is shown; the others are stopped.
    """
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            running.append(_start(command, environment))
        statuses = _wait(running, while_waiting)
        for command, status in zip(commands, statuses):
            if status:
                end = command.log.read_text(errors="replace")[-_SHOWN_OF_A_LOG:]
                raise UserError(
                    f"this command ended with status {status}:\n"
                    f"  $ {shlex.join(command.words)}; the end of {command.log}:\n{end}"
                )
    finally:
        for process in running:
            _stop(process)


def _start(command: LoggedCommand, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with open(command.log, "a") as log:
        return subprocess.Popen(
            command.words,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # so that its workers are stopped with it
        )


def _wait(
    running: Sequence[subprocess.Popen[bytes]], while_waiting: Callable[[], None]
) -> list[int | None]:
    """Waits until all commands have ended or one has failed; their statuses, None if still
    running."""
    while True:
        statuses = [process.poll() for process in running]
        while_waiting()
        if None not in statuses or any(statuses):
            return statuses
        time.sleep(_POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stops a command with all processes that it has started, and waits for it."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGTERM)
        else:  # Windows has no groups of processes
            process.terminate()
    except ProcessLookupError:
        pass  # all have ended already
    process.wait()
