"""Where a training stands, from nnU-Net's output."""

from __future__ import annotations

import pytest

from nnunet_nacl.demo.options import TrainingProgress

NAME = "nnUNetTrainerNACL_20epochs_30iters_adam"
AT = "2026-01-01 00:00:00.000000: "


@pytest.mark.parametrize(
    ("lines", "done", "words"),
    [
        ([], 0, "epoch 0/20"),
        (["Epoch 0 ", "Epoch time: 1.0 s", "Epoch 1 "], 1, "epoch 1/20"),
        (["Epoch 15 "], 15, "epoch 15/20"),
        (["Epoch 3 ", "Epoch 15 ", "Epoch time: 1.0 s"], 16, "epoch 16/20"),
        (["Epoch 19 ", "Epoch time: 1.0 s", "Training done.", "predicting a"], 20, "validating"),
        (["Epoch-wise statistics", "This split has 19 training cases.", "Using Epoch 3 x"], 0, "epoch 0/20"),
    ],
)
def test_progress_follows_the_output(tmp_path, lines, done, words):
    log = tmp_path / "log"
    log.write_text("".join(f"{AT}{line}\n" for line in lines))
    training = TrainingProgress(NAME, log)
    assert training.epochs_done == done and training.described() == f"NACL {words}"


def test_without_a_log_nothing_is_done_unless_an_earlier_run_did_it(tmp_path):
    assert TrainingProgress(NAME, tmp_path / "log").epochs_done == 0
    assert TrainingProgress(NAME, tmp_path / "log", trained=True).epochs_done == 20
