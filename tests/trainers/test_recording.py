"""The record of calibration: its numbers, what --c keeps of it, and that nothing of it can stop a training."""

from __future__ import annotations

import errno
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.training.logging import nnunet_logger

from nnunet_nacl.show import calibration_progress
from nnunet_nacl.training_record import FILE_NAME, read_training_record
from nnunet_nacl_trainers import recording
from nnunet_nacl_trainers.observation import LogitObserver
from tests.reference.metrics import class_metrics, region_metrics
from tests.trainers.epochs import make_batch, observed, prepare, run_epoch

LABEL_SPACES = ("classes", "ignore", "regions", "regions_ignore")


@pytest.fixture
def recorded(make_trainer):
    """Makes a trainer that is ready to go through epochs."""

    def make(
        name: str = "nnUNetTrainerNACL_8epochs",
        label_space: str = "classes",
        num_axes: int = 2,
        deep_supervision: bool = True,
    ):
        trainer = prepare(
            make_trainer(name, label_space, num_axes=num_axes), num_axes=num_axes, deep_supervision=deep_supervision
        )
        trainer.calibration_recorder.on_train_start()
        return trainer

    return make


def batches(label_space: str, num_axes: int, deep_supervision: bool, seeds=(1, 2)) -> list[dict]:
    return [make_batch(label_space, num_axes, seed, 3 if deep_supervision else None) for seed in seeds]


def record_of(trainer) -> dict:
    return read_training_record(trainer.output_folder)


def log_of(trainer) -> str:
    with open(trainer.log_file) as file:
        return file.read()


@pytest.mark.parametrize("deep_supervision", [True, False])
@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("label_space", LABEL_SPACES)
@pytest.mark.parametrize("name", ["nnUNetTrainerDiceNACL", "nnUNetTrainerDiceCE_8epochs"])
def test_the_numbers_are_those_of_the_validation_batches(
    recorded, name: str, label_space: str, num_axes: int, deep_supervision: bool
) -> None:
    trainer = recorded(name, label_space, num_axes, deep_supervision)
    validation = batches(label_space, num_axes, deep_supervision)
    run_epoch(trainer, batches(label_space, num_axes, deep_supervision, (5,)), validation)

    logits, truth, valid = observed(trainer, validation)
    assert 0 < valid.sum() and (valid.all() == ("ignore" not in label_space))
    (entry,) = record_of(trainer)["epochs"]
    regions = label_space.startswith("regions")
    if regions:
        probs = 1 / (1 + np.exp(-logits.astype(np.float64)))
        foreground, predicted, max_logits = truth.any(0), (probs > 0.5).any(0), np.abs(logits)
        members = [~foreground, *truth]
        metrics = region_metrics
    else:
        probs = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(0)
        foreground, predicted, max_logits = truth != 0, probs.argmax(0) != 0, logits.max(0)[None]
        members = [truth == k for k in range(3)]
        metrics = class_metrics
    masks = {"foreground": foreground & valid, "predicted": predicted & valid, "all": valid}
    for mask, voxels in masks.items():
        found = entry["calibration"][mask]
        assert found["n_voxels"] == voxels.sum() > 0
        assert found["ECE"] == pytest.approx(metrics(probs, truth, voxels)["ECE"], abs=1e-6)
        assert entry["max_logit"][mask]["mean"] == pytest.approx(max_logits[:, voxels].mean(), rel=1e-5)
        assert histogram(entry, mask) == pytest.approx(
            np.histogram(max_logits[:, voxels], np.r_[-np.inf, -10 + 0.25 * np.arange(201), np.inf])[0], abs=0
        )
    for k, member in enumerate(members):
        assert entry["n_class_voxels"][k] == (member & valid).sum()
        assert entry["mean_logits"][k] == pytest.approx(logits[:, member & valid].mean(1), rel=1e-4, abs=1e-5)
    assert entry["n_not_finite"] == 0


def histogram(entry: dict, mask: str) -> list[int]:
    of_mask, counts = entry["max_logit"][mask], np.zeros(202, dtype=int)
    counts[of_mask["first_bin"] : of_mask["first_bin"] + len(of_mask["counts"])] = of_mask["counts"]
    return counts.tolist()


def test_the_heading_says_what_was_recorded(recorded) -> None:
    trainer = recorded(label_space="regions_ignore")
    run_epoch(trainer, batches("regions_ignore", 2, True), batches("regions_ignore", 2, True))
    record = record_of(trainer)
    assert record["regions"] and record["channels"] == ["whole", "core"]
    assert record["true_classes"] == ["outside all regions", "whole", "core"]
    assert (record["trainer"], record["fold"], record["n_bins"]) == ("nnUNetTrainerNACL_8epochs", 0, 15)


def test_training_iterations_are_not_observed(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(LogitObserver, "observe", lambda self, output, target: seen.append(len(output)))
    trainer = recorded()
    run_epoch(trainer, batches("classes", 2, True, (1, 2, 3)), batches("classes", 2, True, (4, 5)))
    assert seen == [3, 3]  # two batches, each with all its scales
    assert not trainer.loss._forward_pre_hooks


def test_what_nnunet_trains_is_the_same_with_and_without(make_trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, losses = [], []
    for observing in (True, False):
        if not observing:
            monkeypatch.setattr(LogitObserver, "observe", lambda self, output, target: None)
        trainer = prepare(make_trainer("nnUNetTrainerDiceNACL", "ignore"))
        for _ in range(2):
            run_epoch(trainer, batches("ignore", 2, True), batches("ignore", 2, True, (3,)))
        weights.append(trainer.network.layer.weight)
        losses.append(trainer.logger.get_value("val_losses", None))
    assert torch.equal(*weights) and losses[0] == losses[1]


def test_an_epoch_is_told_in_the_log(recorded) -> None:
    trainer = recorded()
    run_epoch(trainer, batches("classes", 2, True), batches("classes", 2, True))
    ece = record_of(trainer)["epochs"][0]["calibration"]["foreground"]["ECE"]
    assert f"Calibration on validation batches: ECE foreground {ece:.4f}" in log_of(trainer)


def continued(make_trainer, trainer, name: str = "nnUNetTrainerNACL_8epochs"):
    """Another trainer that has loaded the checkpoint of the last epoch, as --c does."""
    after = prepare(make_trainer(name))
    after.load_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    after.calibration_recorder.on_train_start()
    return after


def test_a_continued_training_drops_the_epochs_after_its_checkpoint(make_trainer, recorded) -> None:
    trainer = recorded()  # writes its checkpoint after every epoch
    data = batches("classes", 2, True)
    for _ in range(3):
        run_epoch(trainer, data, data)
    checkpoint = f"{trainer.output_folder}/checkpoint_latest.pth"
    kept = open(checkpoint, "rb").read()
    run_epoch(trainer, data, data)
    before = record_of(trainer)["epochs"]
    assert [entry["epoch"] for entry in before] == [0, 1, 2, 3]
    with open(checkpoint, "wb") as file:
        file.write(kept)  # killed after the record of epoch 3, before its checkpoint

    after = continued(make_trainer, trainer)
    assert after.current_epoch == 3
    run_epoch(after, data, data)
    found = record_of(after)["epochs"]
    assert [entry["epoch"] for entry in found] == [0, 1, 2, 3]
    assert found[:3] == before[:3] and found[3]["epoch_start_timestamp"] > before[3]["epoch_start_timestamp"]


def test_the_record_is_written_before_the_checkpoint(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a training that is killed between the two would go on with an epoch missing."""
    trainer = recorded()
    found = []

    def save(filename: str) -> None:
        found.append(len(record_of(trainer)["epochs"]))

    monkeypatch.setattr(trainer, "save_checkpoint", save)
    data = batches("classes", 2, True)
    run_epoch(trainer, data, data)
    assert found and set(found) == {1}


def test_a_fresh_training_starts_a_fresh_record(recorded) -> None:
    data = batches("classes", 2, True)
    first = recorded()
    for _ in range(3):
        run_epoch(first, data, data)
    first.calibration_recorder.on_train_end()
    assert first.calibration_recorder.path.with_suffix(".png").exists()
    second = recorded()
    assert len(record_of(second)["epochs"]) == 3  # nnU-Net keeps its old checkpoints too until it writes new ones
    run_epoch(second, data, data)
    assert len(record_of(second)["epochs"]) == 1
    assert not second.calibration_recorder.path.with_suffix(".png").exists()


def test_epochs_of_another_training_than_the_checkpoints_are_dropped(make_trainer, recorded) -> None:
    data = batches("classes", 2, True)
    first = recorded()
    for _ in range(3):
        run_epoch(first, data, data)
    second = recorded()
    second.save_checkpoint = lambda filename: None  # killed before its first checkpoint
    run_epoch(second, data, data)
    third = continued(make_trainer, first)
    run_epoch(third, data, data)
    assert [entry["epoch"] for entry in record_of(third)["epochs"]] == [3]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "{",
        lambda text: "[]",
        lambda text: '{"schema_version": 99, "epochs": []}',
        lambda text: text.replace('"b"', '"c"'),  # of other classes
        lambda text: text.replace('"epoch": 1', '"epoch": "one"'),
        lambda text: text.replace('"epoch": 1', '"epoch": NaN'),
        lambda text: text.replace('"n_not_finite": 0', '"n_not_finite": NaN'),
    ],
)
def test_a_record_that_cannot_be_continued_is_set_aside(make_trainer, recorded, change) -> None:
    data = batches("classes", 2, True)
    trainer = recorded()
    for _ in range(2):
        run_epoch(trainer, data, data)
    path = trainer.calibration_recorder.path
    content = change(path.read_text())
    assert content != path.read_text()
    path.write_text(content)
    after = continued(make_trainer, trainer)
    run_epoch(after, data, data)
    assert [entry["epoch"] for entry in record_of(after)["epochs"]] == [2]
    assert path.with_name("calibration_progress.old.json").read_text() == content
    assert "WARNING" in log_of(after)


class FakeRun:
    """As a run of Weights & Biases: what belongs to an earlier step than the last one is not taken."""

    def __init__(self) -> None:
        self.values: dict[str, list] = {}
        self.step, self.config, self.summary = 0, {}, {}

    def log(self, values: dict[str, float], step: int) -> None:
        assert step >= self.step
        self.step = step
        for key, value in values.items():
            assert np.isscalar(value)
            self.values.setdefault(key, []).append((step, value))


@pytest.fixture
def wandb_run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """nnU-Net's own logger for Weights & Biases, switched on as its users do; only the service is not there."""
    run = FakeRun()
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setattr(nnunet_logger, "wandb", SimpleNamespace(init=lambda **settings: run))
    return run


def test_values_arrive_at_weights_and_biases(wandb_run: FakeRun, recorded) -> None:
    trainer, data = recorded(), batches("classes", 2, True)
    for _ in range(2):
        run_epoch(trainer, data, data)
    entries = record_of(trainer)["epochs"]
    assert wandb_run.values["calibration/ECE_foreground"] == [
        (entry["epoch"], entry["calibration"]["foreground"]["ECE"]) for entry in entries
    ]
    assert wandb_run.values["calibration/mean_max_logit_all"][1] == (1, entries[1]["max_logit"]["all"]["mean"])
    assert {"calibration/ECE_predicted", "calibration/ECE_all", "val_losses", "mean_fg_dice"} <= set(wandb_run.values)
    assert not any(key.startswith("calibration") for key in trainer.logger.local_logger.my_fantastic_logging)
    assert "WARNING" not in log_of(trainer)


def fail(*args, **kwargs):
    raise RuntimeError("injected\nwith a second line")


def fail_at_our_keys(self, values: dict, step: int) -> None:
    if any(key.startswith("calibration") for key in values):
        fail()


def fail_in_the_second_batch():
    calls = []
    observe = LogitObserver.observe

    def action(self, output, target):
        calls.append(1)
        if len(calls) == 2:
            fail()
        observe(self, output, target)

    return action


FAILURES = {
    "in a batch": (LogitObserver, "observe", fail_in_the_second_batch(), "observation"),
    "in the sums": (LogitObserver, "fetch", fail, "observation"),
    "in the entry": (recording.EpochSums, "entry", fail, "observation"),
    "in the names": (recording.Labels, "of", fail, "observation"),
    "in writing": (recording.TrainingRecord, "write", fail, "file"),
    "in the text": (recording, "describe_epoch", fail, "line in the log"),
    "in the figure": (calibration_progress, "draw_calibration_progress", fail, "figure"),
    "in a logger": (FakeRun, "log", fail_at_our_keys, "external loggers"),
}


@pytest.mark.parametrize("where", FAILURES)
def test_a_failure_is_one_warning_and_the_training_goes_on(
    wandb_run, make_trainer, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    owner, name, replacement, part = FAILURES[where]
    # real ones take long
    monkeypatch.setattr(calibration_progress, "draw_calibration_progress", lambda record, path: None)
    monkeypatch.setattr(owner, name, replacement)
    monkeypatch.setattr(recording, "DRAWING_SHARE", float("inf"))  # a picture in every epoch
    trainer = prepare(make_trainer("nnUNetTrainerNACL_8epochs"))
    trainer.calibration_recorder.on_train_start()
    data = batches("classes", 2, True)
    for _ in range(3):
        run_epoch(trainer, data, data)
    trainer.calibration_recorder.on_train_end()
    assert trainer.current_epoch == 3 and len(trainer.logger.get_value("val_losses", None)) == 3
    log = log_of(trainer)
    assert log.count("WARNING") == 1
    after = "This is tried again after every epoch" if part == "file" else "The training goes on without"
    assert f"WARNING: calibration during training, {part}: RuntimeError: injected. {after}." in log
    assert not trainer.loss._forward_pre_hooks
    if part not in ("observation", "file"):
        assert len(record_of(trainer)["epochs"]) == 3


def test_a_disk_that_was_full_for_a_while_costs_no_epoch(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, data = recorded(), batches("classes", 2, True)
    replace = os.replace

    def refuse(source, target) -> None:
        if str(target).endswith(FILE_NAME):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as full:
        full.setattr(os, "replace", refuse)
        run_epoch(trainer, data, data)
        assert not trainer.calibration_recorder.path.exists()
        left = [name for name in os.listdir(trainer.output_folder) if FILE_NAME in name or name.endswith(".tmp")]
        assert not left
    assert f"{FILE_NAME}: cannot be written (No space left on device); free some space" in log_of(trainer)
    run_epoch(trainer, data, data)
    assert [entry["epoch"] for entry in record_of(trainer)["epochs"]] == [0, 1]


def test_a_log_that_cannot_be_written_stops_nothing(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, data = recorded(), batches("classes", 2, True)
    write_line = trainer.print_to_log_file

    def full(*args, **kwargs):
        if "alibration" in str(args):
            raise OSError("no space left")
        write_line(*args, **kwargs)

    monkeypatch.setattr(trainer, "print_to_log_file", full)
    run_epoch(trainer, data, data)
    assert len(record_of(trainer)["epochs"]) == 1


def test_a_validation_that_was_broken_off_is_not_counted_twice(recorded) -> None:
    trainer, data = recorded(), batches("classes", 2, True)
    trainer.calibration_recorder.on_validation_epoch_start()
    run_epoch(trainer, data, data)
    expected = recorded()
    run_epoch(expected, data, data)
    assert record_of(expected)["epochs"][0]["calibration"] == record_of(trainer)["epochs"][0]["calibration"]
    assert not trainer.loss._forward_pre_hooks


def test_a_loss_that_is_no_module_is_left_alone(recorded) -> None:
    trainer, data = recorded(), batches("classes", 2, True)
    loss = trainer.loss
    trainer.loss = lambda output, target: loss(output, target)
    run_epoch(trainer, data, data)
    assert trainer.current_epoch == 1 and log_of(trainer).count("WARNING") == 1


def test_a_compiled_loss_is_observed_from_outside(recorded) -> None:
    trainer = recorded("nnUNetTrainerCE_8epochs", deep_supervision=False)  # little to compile
    data = batches("classes", 2, False)
    trainer.loss = torch.compile(trainer.loss, backend="eager")
    run_epoch(trainer, data, data)
    assert len(record_of(trainer)["epochs"]) == 1 and "WARNING" not in log_of(trainer)


def test_logits_of_all_kinds_of_nonsense_are_left_out_and_counted(recorded) -> None:
    trainer, data = recorded(label_space="ignore"), batches("ignore", 2, True)
    run_epoch(trainer, data, data)
    with torch.no_grad():
        trainer.network.layer.weight.fill_(float("nan"))
    record_epoch(trainer, data)
    entry = record_of(trainer)["epochs"][-1]
    assert entry["n_not_finite"] == sum(int((batch["target"][0] != 3).sum()) for batch in data) > 0
    assert entry["calibration"]["all"] == {"n_voxels": 0, "ECE": None, "accuracy": None, "confidence": None}
    assert "foreground undefined" in log_of(trainer) and "logits are not finite" in log_of(trainer)


def test_pictures_take_little_of_a_trainings_time(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, drawn = [0.0], []
    monkeypatch.setattr(recording.time, "monotonic", lambda: clock[0])

    def draw(record, path):
        drawn.append(len(record["epochs"]))
        clock[0] += 0.4

    monkeypatch.setattr(calibration_progress, "draw_calibration_progress", draw)
    trainer, data = recorded(), batches("classes", 2, True)
    for _ in range(60):
        clock[0] += 10
        record_epoch(trainer, data)
    assert drawn and 0.4 * len(drawn) <= recording.DRAWING_SHARE * clock[0]
    assert drawn[0] == 34 and drawn[1] - drawn[0] <= 14  # 1 s expected at first, then 0.4 s
    trainer.calibration_recorder.on_train_end()
    assert drawn[-1] == 60


def record_epoch(trainer, data: list[dict]) -> None:
    """The part of an epoch that is recorded."""
    recorder = trainer.calibration_recorder
    recorder.on_validation_epoch_start()
    with torch.no_grad():
        for batch in data:
            trainer.loss(trainer.network(batch["data"]), batch["target"])
    recorder.on_validation_epoch_end()
    trainer.current_epoch += 1


def test_the_record_is_drawn_at_the_end(recorded) -> None:
    trainer, data = recorded(), batches("classes", 2, True)
    trainer.calibration_recorder.on_train_end()  # nothing to draw: no file, no warning
    assert not trainer.calibration_recorder.path.with_suffix(".png").exists()
    record_epoch(trainer, data)
    trainer.calibration_recorder.on_train_end()
    assert trainer.calibration_recorder.path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "WARNING" not in log_of(trainer)


def test_only_the_first_rank_writes(recorded) -> None:
    trainer, data = recorded(), batches("classes", 2, True)
    trainer.local_rank = 1
    record_epoch(trainer, data)
    trainer.calibration_recorder.on_train_end()
    assert (
        not trainer.calibration_recorder.path.exists()
        and not trainer.calibration_recorder.path.with_suffix(".png").exists()
    )


def test_the_file_is_json_that_any_reader_takes(recorded) -> None:
    trainer, data = recorded(), batches("classes", 2, True)
    record_epoch(trainer, data)

    def refuse(constant: str):
        raise AssertionError(constant)

    with open(f"{trainer.output_folder}/{FILE_NAME}") as file:
        json.load(file, parse_constant=refuse)
