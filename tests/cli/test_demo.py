"""`nnunet_nacl demo`: options, errors and the whole of it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import pytest


def start(folder):
    options = [
        "-o",
        str(folder),
        "-device",
        "cpu",
        "-tr",
        "nnUNetTrainerDiceCE_10epochs_100iters_adam",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "nnunet_nacl", "demo", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # a background shell's children ignore it
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.slow
def test_the_whole_demo_interrupted_and_continued(tmp_path):
    pytest.importorskip("nilearn", reason="nilearn (extra demo) is not installed")
    process = start(tmp_path)
    try:
        logs = tmp_path / "logs"
        deadline = time.monotonic() + 900
        while not any("Epoch time" in log.read_text() for log in logs.rglob("train_*.log")):
            assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
            time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, output
    assert "The same command goes on" in output

    process = start(tmp_path)
    output, _ = process.communicate(timeout=3600)  # on a busy machine, too
    assert process.returncode == 0, output
    comparison = tmp_path / "comparison" / "Dataset090_VirtualBrains__2d_small"
    document = json.loads((comparison / "comparison.json").read_text())
    assert [trainer["label"] for trainer in document["trainers"]] == ["as trained", "calibrated"]
    [predicted] = tmp_path.glob("predictions/*nnUNetTrainerDiceCE_10epochs*")
    with open(predicted / "review.csv", newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    # An interrupted training goes on with other random numbers, so that the limit of flags may lie
    # on either side of a scan; that noise is worse than no noise does not depend on them.
    noisy = {f"brain_{number:03d}" for number in range(58, 65, 2)}
    dice = {row["case"]: float(row["predicted_dice"]) for row in listed}
    assert max(dice[case] for case in noisy) < min(dice[case] for case in dice.keys() - noisy)
    num_flagged = sum(row["flag"] == "yes" for row in listed)
    flagged_text = re.search(r"(\d+) of 8 scans", output)
    assert flagged_text is not None
    assert int(flagged_text[1]) == num_flagged
    assert re.search(r"^Right: .*^Wrong: .*^Next: ", output, re.MULTILINE | re.DOTALL)
    lines = [line for line in output.splitlines() if line.strip() and "%|" not in line]
    assert len(lines) <= 25  # beside the progress bars, each of which stays on one line
    assert len(list(predicted.glob("brain_*.nii.gz"))) == 8 and (predicted / "index.html").is_file()
    (dataset,) = document["datasets"]
    assert len(dataset["cases"]) == 40

    moved = tmp_path.with_name(f"{tmp_path.name}_moved")
    tmp_path.rename(moved)
    process = start(moved)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert flagged_text[0] in output
