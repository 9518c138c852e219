"""One job of a campaign: `python -m nnunet_nacl.campaign.job campaign.json STAGE/...`, as the Snakefile runs it.

Beside its document (``done/<job>.json``, when it is done) a job has a state (``jobs/<job>.json``): since when it runs
and where, touched while it does; or how it failed. The next try takes over the seconds that were spent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnunet_nacl.campaign.gpu_of_job import own_gpu
from nnunet_nacl.campaign.grid import Grid, done_file, log_file
from nnunet_nacl.campaign.shell_commands import Command, CommandFailed, run_side_by_side
from nnunet_nacl.campaign.stages import job_commands
from nnunet_nacl.errors import UserError
from nnunet_nacl.file_lock import locked
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import read_dict

BEAT_S = 20.0
"""So often the state of a running job is touched."""


def state_file(job: str) -> str:
    """Where a job's state lies, in the campaign's folder."""
    return f"jobs/{job}.json"


def run_job(campaign: dict[str, Any], job: str) -> None:
    """Do a job and write its document.

    Raises:
        UserError: It failed; its state says why.
    """
    stage = job.partition("/")[0]
    path, start = Path(state_file(job)), time.time()
    spent = _spent(path)
    state = {
        "state": "running",
        "started": start,
        "seconds_before": spent,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }
    print(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')} {job} on {state['host']}", flush=True)
    taken = f"{job} runs already: a command of an earlier try is alive; end it, or wait."
    needs_gpu = bool(Grid(campaign).gpus(stage))
    with locked(path.with_suffix(".lock"), taken) as lock, own_gpu(needs_gpu) as device, _beating(path, state):
        threads = campaign["threads"] if stage == "train" else 1
        environment = {"OMP_NUM_THREADS": str(threads), **device}

        def show(command: Command) -> None:
            print(f"$ {command.shown()}", flush=True)

        try:
            run_side_by_side([job_commands(campaign, job)], environment, on_start=show, keep_open=lock)
        except BaseException as error:
            ended = {"state": "failed", "why": _why(error), "seconds_before": spent + time.time() - start}
            with contextlib.suppress(UserError):
                write_atomically(path, to_json_text(state | ended))
            raise
    seconds = round(spent + time.time() - start, 1)
    write_atomically(Path(done_file(job)), to_json_text({"job": job, "seconds": seconds, "host": state["host"]}))
    path.unlink(missing_ok=True)


def _why(error: BaseException) -> str:
    """A line: of a command that failed what it was, too."""
    if isinstance(error, KeyboardInterrupt):  # SIGTERM as well: cancelled, preempted, Ctrl-C
        return "stopped from outside; it resumes when it is run again"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[:2])


def _spent(path: Path) -> float:
    """Seconds that earlier tries took, one that was killed included: up to when its state was last touched."""
    try:
        state = read_dict(path)
        running = state["state"] == "running"
        return float(state["seconds_before"]) + (path.stat().st_mtime - state["started"] if running else 0.0)
    except (UserError, KeyError, TypeError, ValueError, OSError):
        return 0.0


@contextlib.contextmanager
def _beating(path: Path, state: dict[str, Any]) -> Iterator[None]:
    """Writes the state, and touches it while the block runs."""
    write_atomically(path, to_json_text(state))
    end = threading.Event()

    def beat() -> None:
        while not end.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _log_to(path: Path) -> None:
    """Standard output and error of this process and its commands go to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())


if __name__ == "__main__":
    _log_to(Path(log_file(sys.argv[2])))
    try:
        run_job(read_dict(Path(sys.argv[1])), sys.argv[2])
    except (UserError, CommandFailed) as failure:
        print(f"{sys.argv[2]}: {failure}", file=sys.stderr)
        sys.exit(1)
