"""Command lines: how they are shown, run side by side, logged and stopped."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_nacl.errors import UserError

_LAST_LINES = 15
_POLL_S = 0.5
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Command:
    """One command line.

    Attributes:
        arguments: Program and arguments.
        log_file: Where its output goes; None leaves it where this process's goes.
        environment: Variables of this command alone, shown before it.
    """

    arguments: tuple[str, ...]
    log_file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def shown(self) -> str:
        """The command as one would type it."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*assignments, shlex.join(self.arguments)])


class CommandFailed(UserError):
    """A command ended with an error; the message names its log file and holds its last lines."""


def export_line(environment: Mapping[str, str]) -> str:
    """One `export` for these variables."""
    return "export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())


def run_side_by_side(
    jobs: Sequence[Iterable[Command]],
    environment: Mapping[str, str],
    *,
    on_start: Callable[[Command], None] = lambda command: None,
    on_poll: Callable[[], None] = lambda: None,
    keep_open: Sequence[int] = (),
) -> None:
    """Runs jobs at the same time, the commands of each one after the other, and waits for all of them.

    The next command of a job is asked for when the one before has ended: what a job does in this process, between its
    commands, delays the others. Each command runs in a process group of its own. If one fails, or this process is
    interrupted (Ctrl-C, SIGTERM), all groups are stopped before the exception goes on.

    Args:
        jobs: The commands of each.
        environment: Variables added to this process's for all of them.
        on_start: Called with each command before it starts.
        on_poll: Called twice a second, for a progress bar.
        keep_open: File descriptors that the commands inherit.

    Raises:
        CommandFailed: If a command failed.
        UserError: If a program is not installed.
    """

    def start(command: Command) -> _Running:
        on_start(command)
        return _Running(command, environment, keep_open)

    started = [map(start, job) for job in jobs]
    running: list[_Running | None] = [None] * len(started)
    with termination_as_interrupt():
        try:
            while True:
                for i, job in enumerate(started):
                    if (current := running[i]) is None or not current.poll():
                        running[i] = next(job, None)
                on_poll()
                if not any(running):
                    break
                time.sleep(_POLL_S)
        finally:
            _stop([one for one in running if one])


def find_program(name: str) -> str:
    """Path of a console script of this Python's environment, else of the PATH."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = shutil.which(str(beside)) or shutil.which(name)
    if found is None:
        raise UserError(f"{name} is neither in {beside.parent} nor on the PATH; is nnunetv2 installed here?")
    return found


class _Running:
    """A started command."""

    def __init__(self, command: Command, environment: Mapping[str, str], keep_open: Sequence[int]):
        self.command = command
        with contextlib.ExitStack() as stack:
            log = None
            if command.log_file is not None:
                command.log_file.parent.mkdir(parents=True, exist_ok=True)
                log = stack.enter_context(open(command.log_file, "ab"))
                log.write(f"\n[{time.strftime('%Y-%m-%d %H:%M:%S')}] $ {command.shown()}\n".encode())
                log.flush()
            self.process = subprocess.Popen(
                [find_program(command.arguments[0]), *command.arguments[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=None if log is None else subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment, **command.environment},
                start_new_session=True,
                pass_fds=tuple(keep_open),
            )

    def poll(self) -> bool:
        """Whether the command still runs.

        Raises:
            CommandFailed: If it has ended with an error.
        """
        status = self.process.poll()
        if status:
            raise CommandFailed(self._failure(status))
        return status is None

    def _failure(self, status: int) -> str:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        message = f"this command {how}:\n  $ {self.command.shown()}"
        if self.command.log_file is None:
            return message
        text = self.command.log_file.read_text(encoding="utf-8", errors="replace").rstrip().split("\n")
        last = "\n".join(f"  | {line}" for line in text[-_LAST_LINES:])
        return f"{message}\nIts log is {self.command.log_file}; it ends with\n{last}"


def _stop(running: Sequence[_Running]) -> None:
    """Ends the process groups of the commands that still run, first by asking, then by force."""
    alive = [one for one in running if one.process.poll() is None]
    for one in alive:
        _signal_group(one, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_S
    for one in alive:
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.process.wait(max(0.0, deadline - time.monotonic()))
    for one in alive:
        _signal_group(one, getattr(signal, "SIGKILL", signal.SIGTERM))  # workers that outlive their parent, too
        one.process.wait()


def _signal_group(one: _Running, number: int) -> None:
    if not hasattr(os, "killpg"):  # Windows knows no process groups
        one.process.terminate()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(one.process.pid, number)


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt within, with their number, so that what tidies up is run.

    One that is ignored, as by ``nohup``, stays so.
    """
    previous = {}
    try:
        for number in _TERMINATIONS:
            with contextlib.suppress(ValueError):  # not in the main thread: signals are not ours to handle
                if signal.getsignal(number) is not signal.SIG_IGN:
                    previous[number] = signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_TERMINATIONS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def _end_as_usual() -> None:
    """In a worker that was forked within: Python's handlers wait for its next step, and it may wait for a lock."""
    for number in _TERMINATIONS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_as_usual)
