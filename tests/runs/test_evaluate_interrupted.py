"""Killed runs, dying workers and interrupted ones: what was finished is kept, nothing is left running or half done."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import encode
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.runs.evaluate import evaluate_folder
from tests.processes import children, is_alive, run_warm


def evaluate_and_die(at):
    """Kills itself at the moment when a finished temporary file would take its name: the worst one."""
    count, replace = 0, os.replace

    def replace_or_die(*arguments):
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*arguments)

    os.replace = replace_or_die
    return main(["evaluate", "-d", "999", "-c", "3d_fullres", "-np", "1"])


@pytest.mark.parametrize("at", [1, 3])
def test_a_kill_between_writing_and_naming(make_validated, measured, tmp_path, at):
    model = make_validated(cases=4)
    output = model.validation() / "calibration.json"
    output.write_text("the old file")
    names = {path.name for path in model.validation().iterdir()}
    result = run_warm(evaluate_and_die, at, folder=tmp_path)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert output.read_text() == "the old file"
    finished = sorted((model.validation() / "calibration.json.partial").glob("*.json"))
    assert len(finished) == at - 1 and all(json.loads(path.read_text())["case"] == path.stem for path in finished)
    for path in finished[:1]:
        path.write_text('{"case": "case_00", ')  # damaged since
    resumed = evaluate_folder(model.validation(), output=output)
    assert measured == [f"case_0{i}" for i in range(4) if i in (0, at - 1) or i >= at]
    assert {path.name for path in model.validation().iterdir()} == names  # and no leftovers
    assert encode(resumed)["calibration"] == encode(evaluate_folder(model.validation()))["calibration"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="finds child processes through /proc")
@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_parallel_runs_end_with_their_parent(make_validated, with_signal):
    model = make_validated(cases=40, shape=(16, 64, 64))
    output = model.validation() / "calibration.json"
    partial = model.validation() / "calibration.json.partial"
    command = [sys.executable, "-m", "nnunet_nacl", "evaluate", "-d", "999", "-c", "3d_fullres", "-np", "2"]
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background shell's children ignore it
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=heed)
    try:
        deadline = time.monotonic() + 400  # a busy computer starts Python slowly
        while not (partial.is_dir() and len(list(partial.glob("*.json"))) >= 2):
            assert process.poll() is None and time.monotonic() < deadline, process.stderr.read().decode()
            time.sleep(0.01)
        workers = children(process.pid)
        assert len(workers) >= 2
        process.send_signal(with_signal)
        process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == (130 if with_signal == signal.SIGINT else -with_signal)
    deadline = time.monotonic() + 30
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, "the workers outlive the run"
        time.sleep(0.1)
    assert not output.exists()
    finished = [json.loads(path.read_text())["case"] for path in partial.glob("*.json")]
    assert 2 <= len(finished) < 40
    assert evaluate_folder(model.validation(), output=output).cases and not partial.exists()


class DeadlyFolder(PredictionFolder):
    """One case kills the process that reads it, as too little memory or a damaged file can do."""

    def load(self, files):
        if files.case == "case_01":
            os._exit(9)
        return super().load(files)


def test_a_killed_worker_ends_the_run_and_what_is_finished_is_kept(make_validated, measured):
    model = make_validated(cases=4)
    output = model.validation() / "calibration.json"
    with pytest.raises(UserError, match="a worker process was killed"):
        evaluate_folder(DeadlyFolder.open(model.validation()), output=output, num_processes=2)
    kept = {path.stem for path in (model.validation() / "calibration.json.partial").glob("case_*.json")}
    assert len(evaluate_folder(model.validation(), output=output).cases) == 4 and kept.isdisjoint(measured)
