"""How far a campaign is: what is done, runs, failed and waits, and how long the rest will take."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from nnunet_nacl.campaign.grid import STAGES, Grid, done_file, log_file
from nnunet_nacl.campaign.job import BEAT_S, state_file
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.show.text_table import aligned


@dataclass(frozen=True)
class Progress:
    """Where the jobs of a campaign stand.

    Attributes:
        folder: Of the campaign.
        jobs: All, by stage and in order.
        done: Seconds of those that are done.
        running: Seconds since when the others have run.
        failed: Why; those that ended with an error and those that were killed.
    """

    folder: Path
    jobs: list[str]
    done: dict[str, float]
    running: dict[str, float]
    failed: dict[str, str]

    @property
    def trainings(self) -> str:
        """One line: trainings, and the time left."""
        trainings, done, running, failed, waiting = self._counts("train")
        lost = f", {failed} failed" if failed else ""
        return f"trainings: {done} of {trainings} done, {running} running, {waiting} waiting{lost}; {self._left()}"

    def table(self) -> str:
        """One line a stage, then what runs and what failed, with the logs."""
        rows = [["stage", "jobs", "done", "running", "failed", "waiting"]]
        for stage in STAGES:
            number, *counts = self._counts(stage)
            rows += [[stage, *map(str, (number, *counts))]] if number else []
        lines = [
            *aligned(rows, indent=""),
            *(f"running for {_duration(seconds)}: {job}" for job, seconds in self.running.items()),
        ]
        return "\n".join([*lines, *self.failures(), self.trainings])

    def failures(self) -> list[str]:
        """A line for each failed job."""
        return [f"failed: {job}: {why} (log: {self.folder / log_file(job)})" for job, why in self.failed.items()]

    def _counts(self, stage: str) -> tuple[int, int, int, int, int]:
        """Jobs of a stage: all, done, running, failed, waiting."""
        jobs = [job for job in self.jobs if job.startswith(f"{stage}/")]
        done, running, failed = (sum(job in found for job in jobs) for found in (self.done, self.running, self.failed))
        return len(jobs), done, running, failed, len(jobs) - done - running - failed

    def _left(self) -> str:
        """Time left for the trainings, from the mean of those done of the same data set and configuration, else of all.

        As if as many went on running at the same time as do now.
        """
        trainings = [job for job in self.jobs if job.startswith("train/")]
        known = {job: seconds for job, seconds in self.done.items() if job in trainings}
        todo = [job for job in trainings if job not in self.done and job not in self.failed]
        if not todo:
            return "none left"
        if not known:
            return "time left not known before the first is done"
        left = 0.0
        for job in todo:
            alike = [seconds for other, seconds in known.items() if other.split("/")[1:3] == job.split("/")[1:3]]
            left += max(0.0, fmean(alike or known.values()) - self.running.get(job, 0.0))
        at_once = max(1, sum(job in self.running for job in trainings))
        return f"about {_duration(left / at_once)} left with {at_once} at the same time"


def progress_of(campaign: dict[str, Any], folder: Path) -> Progress:
    """Read the documents and states of all jobs."""
    jobs = list(Grid(campaign).jobs())
    done: dict[str, float] = {}
    running: dict[str, float] = {}
    failed: dict[str, str] = {}
    for job in jobs:
        try:
            if (folder / done_file(job)).is_file():
                done[job] = float(read_dict(folder / done_file(job))["seconds"])
                continue
            path = folder / state_file(job)
            if not path.is_file():
                continue
            state, age = read_dict(path), time.time() - path.stat().st_mtime
        except (UserError, OSError, KeyError, TypeError, ValueError):
            continue  # being replaced at this moment
        if state.get("state") == "failed":
            failed[job] = str(state.get("why"))
        elif age > 4 * BEAT_S:
            failed[job] = f"killed on {state.get('host')}; it resumes when the campaign is run again"
        else:
            running[job] = time.time() - float(state["started"]) + float(state["seconds_before"])
    return Progress(folder, jobs, done, running, failed)


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
