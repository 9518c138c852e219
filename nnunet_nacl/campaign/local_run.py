"""Jobs of a campaign run here, in this process's order, without an engine: each command is shown when it starts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_nacl.campaign.shell_commands import Command, run_side_by_side
from nnunet_nacl.campaign.stages import job_commands

__all__ = ["LocalRun", "write_line"]


@dataclass(frozen=True)
class LocalRun:
    """Where jobs run, and with what.

    Attributes:
        campaign: As :func:`~nnunet_nacl.campaign.campaign_file.read_campaign` gives it, with its environment.
        logs: Folder of the logs, one a job.
        inherited: File descriptors that the commands inherit.
    """

    campaign: dict[str, Any]
    logs: Path
    inherited: Sequence[int]

    def run(
        self,
        jobs: Iterable[str],
        *,
        threads: int = 1,
        on_line: Mapping[str, Callable[[str], None]] | None = None,
        on_poll: Callable[[], None] = lambda: None,
    ) -> None:
        """Jobs at the same time.

        Args:
            jobs: Their names.
            threads: Of each command; 1 leaves them to the environment.
            on_line: By job: called with each line of its output.
            on_poll: Called twice a second.

        Raises:
            CommandFailed: A command failed; the others were stopped.
        """
        environment = {} if threads == 1 else {"OMP_NUM_THREADS": str(threads)}

        def commands(job: str) -> Iterator[Command]:
            for command in job_commands(self.campaign, job):
                yield replace(command, environment=environment, on_line=(on_line or {}).get(job))

        self.run_commands({job: commands(job) for job in jobs}, on_poll)

    def run_commands(self, jobs: Mapping[str, Iterable[Command]], on_poll: Callable[[], None] = lambda: None) -> None:
        """Commands by the names of their jobs, at the same time."""
        if len(jobs) > 1:
            write_line(f"{len(jobs)} at the same time:")
        self._run([self._logged(job, commands) for job, commands in jobs.items()], on_poll)

    def show(self, *commands: Command) -> None:
        """Commands one after the other, whose output goes to the terminal."""
        self._run([commands])

    def _logged(self, job: str, commands: Iterable[Command]) -> Iterator[Command]:
        for command in commands:
            yield replace(command, log_file=self.logs / f"{job.replace('/', '_')}.log")

    def _run(self, jobs: Sequence[Iterable[Command]], on_poll: Callable[[], None] = lambda: None) -> None:
        def start(command: Command) -> None:
            write_line(f"$ {command.shown()}")

        environment = self.campaign["environment"]
        run_side_by_side(jobs, environment, on_start=start, on_poll=on_poll, keep_open=self.inherited)


def write_line(text: str) -> None:
    """Writes to standard output, above a bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
