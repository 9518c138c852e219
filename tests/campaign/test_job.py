"""One job: its document, its state, and what a try leaves for the next."""

from __future__ import annotations

import json
import sys
import time

import pytest

from nnunet_nacl.campaign import job as module
from nnunet_nacl.campaign.gpu_of_job import own_gpu
from nnunet_nacl.campaign.shell_commands import Command
from nnunet_nacl.errors import UserError
from nnunet_nacl.file_lock import locked

JOB = "compare/2d/all"
CAMPAIGN = {"device": "cpu", "threads": 1, "cases": "validation"}


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Sets the one command of the job."""
    monkeypatch.chdir(tmp_path)

    def set_to(code: str) -> None:
        run = Command((sys.executable, "-c", code))
        monkeypatch.setattr(module, "job_commands", lambda campaign, job: iter([run]))

    return set_to


def test_a_failed_try_says_why_and_the_next_adds_its_time(tmp_path, command) -> None:
    command("import sys; sys.exit(3)")
    with pytest.raises(UserError):
        module.run_job(CAMPAIGN, JOB)
    state = json.loads((tmp_path / f"jobs/{JOB}.json").read_text())
    assert state["state"] == "failed" and "ended with status 3" in state["why"]
    assert not (tmp_path / f"done/{JOB}.json").exists()

    killed = {"state": "running", "started": time.time() - 1000, "seconds_before": 500.0}
    (tmp_path / f"jobs/{JOB}.json").write_text(json.dumps(killed))
    command("pass")
    module.run_job(CAMPAIGN, JOB)
    assert json.loads((tmp_path / f"done/{JOB}.json").read_text())["seconds"] == pytest.approx(1500, abs=30)
    assert not (tmp_path / f"jobs/{JOB}.json").exists()


def test_a_job_is_not_run_beside_an_earlier_try_of_it(command, tmp_path) -> None:
    command("pass")
    with locked(tmp_path / f"jobs/{JOB}.lock", "taken"), pytest.raises(UserError, match="runs already"):
        module.run_job(CAMPAIGN, JOB)


def test_jobs_that_share_a_node_get_a_gpu_each(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    with own_gpu() as first, own_gpu() as second:
        assert [first, second] == [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "5"}]
        with pytest.raises(UserError, match="2, 5 are all taken"), own_gpu():
            pass
    with own_gpu() as again:
        assert again == first
    with pytest.raises(BlockingIOError), own_gpu():  # of the job itself: no word on the GPU
        raise BlockingIOError
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # the scheduler has given one
    with own_gpu() as alone:
        assert alone == {}
