"""Where a training stands, from nnU-Net's output."""

from __future__ import annotations

import pytest

from nnunet_nacl.demo.options import TrainingProgress

NAME = "nnUNetTrainerNACL_20epochs_30iters_adam"


@pytest.fixture
def training():
    return TrainingProgress(NAME)


def test_progress_follows_the_output(training):
    for line in (
        "2026-01-01 00:00:00.000000: Epoch 0 ",
        "2026-01-01 00:00:01.000000: Epoch time: 1.0 s",
        "2026-01-01 00:00:01.000000: Epoch 1 ",
    ):
        training.on_line(line)
    assert training.epochs_done == 1
    assert training.described().endswith("epoch 1/20")
    for _ in range(19):
        training.on_line("2026-01-01 00:00:01.000000: Epoch time: 1.0 s")
    training.on_line("2026-01-01 00:00:01.000000: predicting a")
    assert (training.epochs_done, training.epochs_before) == (20, 0)
    assert training.described().endswith("validating")


def test_a_continued_training_counts_from_where_it_was(training):
    training.on_line("2026-01-01 00:00:00.000000: Epoch 15 ")
    assert (training.epochs_done, training.epochs_before) == (15, 15)
    training.on_line("2026-01-01 00:00:01.000000: Epoch time: 1.0 s")
    assert (training.epochs_done, training.epochs_before) == (16, 15)


def test_other_lines_are_no_progress(training):
    for line in ("", "Epoch-wise statistics", "This split has 19 training and 5 validation cases.", "Using Epoch 3 x"):
        training.on_line(line)
    assert training.epochs_done == 0 and not training.validating
