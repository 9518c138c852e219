"""Eight trainings on a SLURM cluster of this machine: a job is cancelled and the node drained."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import tiny_data as tiny
from tests.integration.conftest import workspace  # noqa: F401  (a fixture)
from tests.integration.workspace import Workspace, wait_for

SCRIPT = Path(__file__).with_name("one_node_cluster.sh")
WORKFLOW = Path(__file__).parents[2] / "workflow"
METHODS = ("CE", "LS", "NACL", "MbLS")


def missing() -> str:
    """What this machine must have or be for the test; empty where it has all."""
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "pip install 'nnunet_nacl[workflow]' snakemake-executor-plugin-slurm"
    if not all(shutil.which(name) for name in ("sbatch", "slurmctld", "slurmd", "munged")):
        return "apt-get install slurm-wlm munge"
    if os.getuid() != 0:
        return "run as root, as SLURM's daemons do here"
    if Path("/etc/slurm/slurm.conf").exists():
        return "no other cluster in /etc/slurm"
    return ""


# before any data are prepared
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing()), reason=f"needs a SLURM cluster of this machine: {missing()}"
    ),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster, to which SLURM's commands speak."""
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPT, "start", folder, "2"], check=True, timeout=120)
    yield
    subprocess.run([SCRIPT, "stop", folder], check=True, timeout=60)


def ask(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def running_training(out: Path) -> str:
    """The job of a training whose log has begun; empty where there is none."""
    if not any((out / "logs" / "train").rglob("*.log")):
        return ""
    for job in ask("squeue", "-h", "-t", "R", "-o", "%i %k").splitlines():
        number, _, comment = job.partition(" ")
        if "train" in comment:
            return number
    return ""


def drain_node(seconds: float) -> None:
    """Let the node take no further job for a while."""
    node = ask("sinfo", "-h", "-o", "%n").strip()
    ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    time.sleep(seconds)
    ask("scontrol", "update", f"nodename={node}", "state=resume")


def test_a_cancelled_job_and_a_drained_node_cost_no_training(
    workspace: Workspace,  # noqa: F811
    slurm,
    tmp_path,
) -> None:
    trainers = [f"nnUNetTrainer{method}_2epochs_2iters" for method in METHODS]
    dataset = workspace.dataset_folder(workspace.raw, tiny.TASK_ID).name
    configuration = {
        "datasets": [dataset],
        "configurations": ["2d"],
        "folds": [0, 1],
        "trainers": trainers,
        "device": "cpu",
    }
    path = tmp_path / "eight.yaml"
    path.write_text(json.dumps(configuration))
    out = tmp_path / "out"
    files = ["--snakefile", WORKFLOW / "Snakefile", "--configfile", path, "--directory", out]
    profile = ["--profile", WORKFLOW / "profiles" / "slurm", "--jobs", 2]
    resources = ["--default-resources", "mem_mb=500", "slurm_partition=main"]
    asking = (
        "--slurm-status-command squeue --slurm-no-account"
        " --slurm-init-seconds-before-status-checks 2 --seconds-between-status-checks 2"
    ).split()
    process = workspace.start("snakemake", *files, *profile, *resources, *asking)
    wait_for(lambda: running_training(out), process)
    ask("scancel", running_training(out))
    drain_node(seconds=10)
    output, _ = process.communicate(timeout=3600)
    assert process.returncode == 0, output
    assert "Trying to restart job" in output  # the cancelled one
    models = workspace.results / dataset
    validated = list(models.glob("*_2epochs_2iters__*/fold_*/validation/summary.json"))
    assert len(validated) == 8
    assert (out / "results" / "comparison" / "2d" / "all" / "report.html").is_file()
