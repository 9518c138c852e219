"""Eight trainings on a SLURM cluster of this one machine: one job cancelled and the node drained on the way."""

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
from tests.integration.workspace import Workspace

SCRIPT = Path(__file__).with_name("one_node_cluster.sh")
METHODS = ("CE", "LS", "NACL", "MbLS")


def missing() -> str:
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "pip install 'nnunet_nacl[campaign]' snakemake-executor-plugin-slurm"
    if not all(shutil.which(name) for name in ("sbatch", "slurmctld", "slurmd", "munged")):
        return "apt-get install slurm-wlm munge"
    if os.getuid() != 0:
        return "run as root, as SLURM's daemons do here"
    return "no other cluster in /etc/slurm" if Path("/etc/slurm/slurm.conf").exists() else ""


# before any data are prepared
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(missing()), reason=f"needs a SLURM cluster of this machine: {missing()}"),
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


def test_a_cancelled_job_and_a_drained_node_cost_no_training(workspace: Workspace, slurm, tmp_path) -> None:  # noqa: F811
    trainers = [f"nnUNetTrainer{method}_2epochs_2iters" for method in METHODS]
    content = {"datasets": [tiny.TASK_ID], "configurations": ["2d"], "folds": [0, 1], "trainers": trainers}
    path, out = tmp_path / "eight.yaml", tmp_path / "out"
    path.write_text(json.dumps(content | {"device": "cpu"}))
    options = "--slurm-status-command squeue --slurm-no-account --slurm-init-seconds-before-status-checks 2 "
    options += "--seconds-between-status-checks 2 --default-resources mem_mb=500 slurm_partition=main"
    arguments = ("--executor", "slurm", "--jobs", "2", f"-snakemake={options}")
    process = workspace.start("nnunet_nacl", "campaign", path, "-o", out, *arguments)
    cancelled = wait_for_training(out, process)
    ask("scancel", cancelled["slurm_job"])
    node = ask("sinfo", "-h", "-o", "%n").strip()
    ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    time.sleep(10)
    ask("scontrol", "update", f"nodename={node}", "state=resume")
    output, _ = process.communicate(timeout=3600)
    assert process.returncode == 0, output
    assert "trainings: 8 of 8 done, 0 running, 0 waiting; none left" in output
    log = (out / "logs" / f"{cancelled['job']}.log").read_text()
    assert log.count("$ nnUNetv2_train") == 2
    assert (out / "comparison" / "2d" / "all" / "report.html").is_file()


def wait_for_training(out: Path, process: subprocess.Popen) -> dict[str, str]:
    """The state of the first training that runs."""
    while process.poll() is None:
        for path in out.glob("jobs/train/**/fold_*.json"):
            job = str(path.relative_to(out / "jobs").with_suffix(""))
            return json.loads(path.read_text()) | {"job": job}
        time.sleep(0.5)
    raise AssertionError(process.communicate()[0])
