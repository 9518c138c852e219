"""Where a training stands, from nnU-Net's own files and output."""

from __future__ import annotations

import json
import zipfile

import pytest

from nnunet_nacl.demo.fold_training import Training

NAME = "nnUNetTrainerNACL_20epochs_30iters_adam"


@pytest.fixture
def training(tmp_path):
    return Training(tmp_path / "results", "Dataset004_Hippocampus", NAME, "2d_small", "1", "cpu")


def checkpoint(training, name, whole=True):
    path = training.fold_folder / f"checkpoint_{name}.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", "x" * 1000)
    if not whole:
        path.write_bytes(path.read_bytes()[:500])
    return path


def validation(training, cases=("a", "b"), without_npz=()):
    folder = training.validation_folder
    folder.mkdir(parents=True, exist_ok=True)
    for case in set(cases) - set(without_npz):
        (folder / f"{case}.npz").touch()
    per_case = [{"prediction_file": f"/elsewhere/{case}.nii.gz", "reference_file": "", "metrics": {}} for case in cases]
    (folder / "summary.json").write_text(json.dumps({"metric_per_case": per_case}))


def arguments(training, tmp_path, threads=1):
    return training.command(tmp_path / "logs", threads).shown()


def test_the_command_is_the_stock_one(training, tmp_path):
    assert arguments(training, tmp_path) == (f"nnUNetv2_train 4 2d_small 1 -tr {NAME} -p nnUNetPlans --npz -device cpu")
    assert arguments(training, tmp_path, threads=2).startswith("OMP_NUM_THREADS=2 nnUNetv2_train")


def test_a_new_training_starts_from_scratch(training):
    assert training.state() == "new"


@pytest.mark.parametrize("name", ["latest", "best"])
def test_a_broken_off_training_is_continued(training, tmp_path, name):
    checkpoint(training, name)
    assert training.state() == "continue"
    assert arguments(training, tmp_path).endswith("--npz -device cpu --c")


def test_a_checkpoint_cut_off_while_written_gives_way_to_the_one_before(training):
    latest, best = checkpoint(training, "latest", whole=False), checkpoint(training, "best")
    assert training.state() == "continue"
    assert not latest.exists() and best.exists()
    best.write_bytes(b"")
    assert training.state() == "new"


@pytest.mark.parametrize("broken", ["no validation", "no summary", "no npz", "bad summary", "null"])
def test_a_trained_network_without_all_predictions_is_validated(training, tmp_path, broken):
    checkpoint(training, "final")
    if broken != "no validation":
        validation(training, without_npz=("b",) if broken == "no npz" else ())
    if broken == "no summary":
        (training.validation_folder / "summary.json").unlink()
    if broken == "bad summary":
        (training.validation_folder / "summary.json").write_text("{")
    if broken == "null":
        (training.validation_folder / "summary.json").write_text('{"metric_per_case": null}')
    assert training.state() == "validate"
    assert arguments(training, tmp_path).endswith("--npz -device cpu --val")
    assert training.epochs_done == training.epochs_before == 20


def test_a_finished_training_is_done(training):
    checkpoint(training, "final")
    validation(training)
    assert training.state() == "done"


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
