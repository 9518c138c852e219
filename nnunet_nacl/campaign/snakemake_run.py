"""Runs Snakemake on a campaign: the one place that knows its command line."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nnunet_nacl.campaign.campaign_file import INSTALL, NNUNET_FOLDERS
from nnunet_nacl.campaign.shell_commands import termination_as_interrupt
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text, write_atomically

CAMPAIGN_FILE = "campaign.json"
LOG = "logs/snakemake.log"

_SNAKEFILE = Path(__file__).with_name("Snakefile")
_POLL_S = 2.0
_PATIENCE_S = 60.0


def check_engine(executor: str | None) -> None:
    """UserError, with what to install, unless Snakemake is there and has the executor."""
    if sys.version_info < (3, 11):
        raise UserError(f"campaigns need Python 3.11 or newer, as Snakemake does; this is {sys.version.split()[0]}.")
    if importlib.util.find_spec("snakemake") is None:
        raise UserError(f"Snakemake is not installed, which runs campaigns: {INSTALL}")
    plugin = f"snakemake_executor_plugin_{(executor or '').replace('-', '_')}"
    if executor not in (None, "local") and importlib.util.find_spec(plugin) is None:
        raise UserError(f"--executor {executor} is not installed: pip install {plugin.replace('_', '-')}")


def write_campaign(campaign: dict[str, Any], folder: Path, environment: dict[str, str]) -> None:
    """``campaign.json``, which every job reads; UserError where nnU-Net's folders are not set."""
    missing = [name for name in NNUNET_FOLDERS if not environment.get(name)]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be set: nnU-Net's documentation says what they are.")
    kept = {name: value for name, value in environment.items() if name.startswith("nnUNet_")}
    kept |= {name: str(Path(kept[name]).absolute()) for name in NNUNET_FOLDERS}
    write_atomically(folder / CAMPAIGN_FILE, to_json_text(campaign | {"environment": kept}))


def run_engine(
    folder: Path,
    inherited: Sequence[int],
    *,
    cores: int,
    gpus: int | None = None,
    executor: str | None = None,
    jobs: int = 100,
    options: Sequence[str] = (),
    dry_run: bool = False,
    on_poll: Callable[[], None] = lambda: None,
) -> int:
    """Run the workflow, or print the jobs that it would run; Snakemake's exit status.

    Args:
        folder: Of the campaign; ``campaign.json`` lies in it.
        inherited: File descriptors that the engine inherits.
        cores: CPU cores of this machine.
        gpus: GPUs of this machine; None does not count them.
        executor: Snakemake's executor; None or ``local`` runs the jobs here.
        jobs: Jobs at the same time, where they run elsewhere.
        options: Further options of Snakemake.
        dry_run: Only print.
        on_poll: Called every two seconds.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(_SNAKEFILE), "--directory", str(folder)]
    command += ["--configfile", str(folder / CAMPAIGN_FILE), "--keep-going", "--rerun-incomplete", "--nocolor"]
    # finished trainings stay finished whatever becomes of code and parameters; the folder has a lock of ours
    command += ["--rerun-triggers", "mtime", "input", "--nolock"]
    if dry_run:
        return subprocess.run([*command, "--cores", "1", "--dry-run", "--quiet", "host", "reason", *options]).returncode
    here = executor in (None, "local")
    if here:
        command += ["--cores", str(cores)]
        command += [] if gpus is None else ["--resources", f"gpu={gpus}"]
    else:
        # a job that a node or the scheduler killed resumes where it was
        command += ["--executor", str(executor), "--jobs", str(jobs), "--local-cores", "1", "--retries", "2"]
    log = folder / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output, termination_as_interrupt():
        process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=tuple(inherited),
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_POLL_S)
                on_poll()
        finally:
            _end(process, signal.SIGTERM if here else signal.SIGINT)


def submission_errors(folder: Path, since: int) -> list[str]:
    """What Snakemake's log says of jobs that could not be started, which have left no state: each message once.

    Args:
        folder: Of the campaign.
        since: Size of the log before the run.
    """
    with open(folder / LOG, "rb") as file:
        file.seek(since)
        text = file.read().decode(errors="replace")
    found = [line.partition("message:")[2].strip() for line in text.splitlines() if line.strip().startswith("message:")]
    return [message for message in dict.fromkeys(found) if message != "None"]


def _end(process: subprocess.Popen, number: int) -> None:
    """Ends Snakemake and its jobs, if it still runs.

    SIGTERM reaches the jobs of this machine, which are in its process group, and has Snakemake start no other; SIGINT
    has it cancel the jobs that run elsewhere.
    """
    if process.poll() is not None:
        return
    os.killpg(process.pid, number)
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
