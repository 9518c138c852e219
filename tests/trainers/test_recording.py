"""Calibration while training: its numbers, what --c keeps of them, and that nothing of it can stop a training."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.training.logging import nnunet_logger
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.metrics import count_masks
from nnunet_nacl.metrics.calibration_error import ece, nll
from nnunet_nacl.show.calibration_progress import ECE_KEY, NLL_KEY
from nnunet_nacl_trainers import recording
from nnunet_nacl_trainers.recording import sums_of, values_of
from tests.reference.metrics import class_metrics, region_metrics
from tests.trainers.epochs import make_batch, observed, prepare, run_epoch

LABEL_SPACES = ("classes", "ignore", "regions", "regions_ignore")
SPACES = {"classes": LabelSpace(), "ignore": LabelSpace(ignore_label=4), "regions": LabelSpace(regions=True)}
NAME = "nnUNetTrainerNACL_8epochs"


@pytest.fixture
def recorded(make_trainer):
    """Makes a trainer that is ready to go through epochs; it has loaded a checkpoint if there is one to load."""

    def make(name: str = NAME, label_space: str = "classes", num_axes: int = 2, deep_supervision=True, checkpoint=None):
        trainer = make_trainer(name, label_space, num_axes=num_axes)
        prepare(trainer, num_axes=num_axes, deep_supervision=deep_supervision)
        if checkpoint is not None:
            trainer.load_checkpoint(checkpoint)
        return trainer

    return make


def batches(label_space: str = "classes", num_axes: int = 2, deep_supervision: bool = True, seeds=(1, 2)) -> list[dict]:
    return [make_batch(label_space, num_axes, seed, 3 if deep_supervision else None) for seed in seeds]


def logged(trainer) -> dict[str, list]:
    return trainer.logger.get_checkpoint()


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
    logits = logits.astype(np.float64)
    if label_space.startswith("regions"):
        probs, foreground, metrics = 1 / (1 + np.exp(-logits)), truth.any(0), region_metrics
    else:
        probs, foreground, metrics = np.exp(logits) / np.exp(logits).sum(0), truth != 0, class_metrics
    assert logged(trainer)[ECE_KEY] == pytest.approx([metrics(probs, truth, foreground & valid)["ECE"]], abs=1e-6)
    assert logged(trainer)[NLL_KEY] == pytest.approx([metrics(probs, truth, valid)["NLL"]], rel=1e-5)
    assert f"ECE of the foreground {logged(trainer)[ECE_KEY][0]:.4f}, NLL {logged(trainer)[NLL_KEY][0]:.4f}" in log_of(
        trainer
    )


def test_training_iterations_are_not_observed(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(recording, "sums_of", lambda logits, *_: seen.append(logits.shape) or torch.ones(1, 18))
    trainer = recorded()
    run_epoch(trainer, batches(seeds=(1, 2, 3)), batches(seeds=(4, 5)))
    assert seen == [(2, 3, 16, 16)] * 2  # two batches at their highest resolution
    assert not trainer.loss._forward_pre_hooks


def test_what_nnunet_trains_is_the_same_with_and_without(make_trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, losses = [], []
    for observing in (True, False):
        if not observing:
            monkeypatch.setattr(recording, "sums_of", lambda *_: torch.ones(1, 18))
        trainer = prepare(make_trainer("nnUNetTrainerDiceNACL", "ignore"))
        for _ in range(2):
            run_epoch(trainer, batches("ignore"), batches("ignore", seeds=(3,)))
        weights.append(trainer.network.layer.weight)
        losses.append(trainer.logger.get_value("val_losses", None))
    assert torch.equal(*weights) and losses[0] == losses[1]


def test_a_continued_training_goes_on_with_the_values_of_its_checkpoint(recorded) -> None:
    trainer, data = recorded(), batches()  # writes its checkpoint after every epoch
    for _ in range(3):
        run_epoch(trainer, data, data)
    path = f"{trainer.output_folder}/checkpoint_latest.pth"
    values = torch.load(path, weights_only=False)["logging"]
    assert all([type(value) for value in values[key]] == [float] * 3 for key in (ECE_KEY, NLL_KEY))
    after = recorded(checkpoint=path)
    run_epoch(after, data, data)
    assert all(len(of_key) == 4 for of_key in logged(after).values())  # progress.png ends with the shortest
    assert logged(after)[ECE_KEY][:3] == values[ECE_KEY] and logged(after)[NLL_KEY][:3] == values[NLL_KEY]


def test_epochs_of_a_checkpoint_without_these_values_have_none(recorded) -> None:
    """As an earlier version of this package wrote it."""
    trainer, data = recorded(), batches()
    for _ in range(2):
        run_epoch(trainer, data, data)
    path = f"{trainer.output_folder}/checkpoint_latest.pth"
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint["logging"][ECE_KEY]
    del checkpoint["logging"][NLL_KEY][1:]  # and this one was continued by it
    torch.save(checkpoint, path)
    after = recorded(checkpoint=path)
    run_epoch(after, data, data)
    assert [math.isnan(value) for value in logged(after)[ECE_KEY]] == [True, True, False]
    assert [math.isnan(value) for value in logged(after)[NLL_KEY]] == [False, True, False]
    assert "WARNING" not in log_of(after)


class FakeRun:
    """As a run of Weights & Biases: what belongs to an earlier step than the last one is not taken."""

    def __init__(self) -> None:
        self.values: dict[str, list] = {}
        self.step, self.config, self.summary = 0, {}, {}

    def log(self, values: dict[str, float], step: int) -> None:
        assert step >= self.step
        self.step = step
        for key, value in values.items():
            self.values.setdefault(key, []).append((step, value))


@pytest.fixture
def wandb_run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """nnU-Net's own logger for Weights & Biases, switched on as its users do; only the service is not there."""
    run = FakeRun()
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setattr(nnunet_logger, "wandb", SimpleNamespace(init=lambda **settings: run))
    return run


def test_values_arrive_at_weights_and_biases(wandb_run: FakeRun, recorded) -> None:
    trainer, data = recorded(), batches()
    for _ in range(2):
        run_epoch(trainer, data, data)
    for key in (ECE_KEY, NLL_KEY, "mean_fg_dice"):
        assert wandb_run.values[key] == list(enumerate(logged(trainer)[key]))


def fail(*args, **kwargs):
    raise RuntimeError("injected\nwith a second line")


def fail_at_our_keys(self, values: dict, step: int) -> None:
    if ECE_KEY in values:
        fail()


def fail_in_the_second_batch(logits, target, space):
    _CALLS.append(1)
    return fail() if len(_CALLS) == 2 else sums_of(logits, target, space)


_CALLS: list[int] = []

FAILURES = {
    "in a batch": (recording, "sums_of", fail_in_the_second_batch, "measuring"),
    "in the figure": (recording, "draw_calibration_progress", fail, "figure"),
    "in a logger": (FakeRun, "log", fail_at_our_keys, "logger"),
}


@pytest.mark.parametrize("where", FAILURES)
def test_a_failure_is_one_warning_and_the_training_goes_on(
    wandb_run, recorded, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    owner, name, replacement, part = FAILURES[where]
    _CALLS.clear()
    monkeypatch.setattr(recording, "draw_calibration_progress", lambda *_, **__: None)  # real ones take long
    monkeypatch.setattr(owner, name, replacement)
    monkeypatch.setattr(recording, "DRAWING_EVERY_S", 0)  # a picture in every epoch
    trainer, data = recorded(), batches()
    for _ in range(3):
        run_epoch(trainer, data, data)
    assert trainer.current_epoch == 3 and {len(values) for values in logged(trainer).values()} == {3}
    missing = [True, False, False] if part == "measuring" else [False] * 3
    assert [math.isnan(value) for value in logged(trainer)[NLL_KEY]] == missing
    log = log_of(trainer)
    assert log.count("WARNING") == 1
    assert f"WARNING: calibration during training, {part}: RuntimeError: injected. The training goes on." in log
    assert not trainer.loss._forward_pre_hooks


def test_a_log_that_cannot_be_written_stops_nothing(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, data = recorded(), batches()
    write_line = trainer.print_to_log_file

    def full(*args, **kwargs):
        if "alibration" in str(args):
            raise OSError("no space left")
        write_line(*args, **kwargs)

    monkeypatch.setattr(trainer, "print_to_log_file", full)
    run_epoch(trainer, data, data)
    assert len(logged(trainer)[ECE_KEY]) == 1


def test_a_validation_that_was_broken_off_is_not_counted_twice(recorded) -> None:
    trainer, data = recorded(), batches()
    trainer.calibration_recorder.on_validation_epoch_start()
    run_epoch(trainer, data, data)
    expected = recorded()
    run_epoch(expected, data, data)
    assert logged(expected)[ECE_KEY] == logged(trainer)[ECE_KEY]
    assert not trainer.loss._forward_pre_hooks


def test_a_loss_that_is_no_module_is_left_alone(recorded) -> None:
    trainer, data = recorded(), batches()
    loss = trainer.loss
    trainer.loss = lambda output, target: loss(output, target)
    run_epoch(trainer, data, data)
    assert math.isnan(logged(trainer)[ECE_KEY][0]) and log_of(trainer).count("WARNING") == 1


def test_a_compiled_loss_is_observed_from_outside(recorded) -> None:
    trainer = recorded("nnUNetTrainerCE_8epochs", deep_supervision=False)  # little to compile
    data = batches(deep_supervision=False)
    trainer.loss = torch.compile(trainer.loss, backend="eager")
    run_epoch(trainer, data, data)
    assert logged(trainer)[ECE_KEY][0] > 0 and "WARNING" not in log_of(trainer)


def test_logits_that_are_no_number_give_none(recorded) -> None:
    trainer, data = recorded(), batches()
    with torch.no_grad():
        trainer.network.layer.weight.fill_(float("nan"))
    record_epoch(trainer, data)
    assert math.isnan(logged(trainer)[ECE_KEY][0]) and math.isnan(logged(trainer)[NLL_KEY][0])
    assert "WARNING" not in log_of(trainer)


def record_epoch(trainer, data: list[dict]) -> None:
    """The part of an epoch that is recorded."""
    recorder = trainer.calibration_recorder
    recorder.on_validation_epoch_start()
    with torch.no_grad():
        for batch in data:
            trainer.loss(trainer.network(batch["data"]), batch["target"])
    recorder.on_validation_epoch_end()
    trainer.current_epoch += 1


def test_a_picture_is_drawn_now_and_then_and_by_the_first_rank_alone(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(recording.time, "monotonic", lambda: clock[0])
    trainer, data = recorded(), batches()
    picture = Path(trainer.output_folder) / recording.FIGURE
    for second, rank, drawn in ((100, 0, False), (400, 1, False), (401, 0, True), (500, 0, False)):
        clock[0], trainer.local_rank = second, rank
        record_epoch(trainer, data)
        assert picture.exists() == drawn
        picture.unlink(missing_ok=True)
    trainer.calibration_recorder.draw()
    assert picture.read_bytes().startswith(b"\x89PNG") and "WARNING" not in log_of(trainer)


def problem(space: str, shape=(3, 40, 31), seed: int = 0):
    """Logits of four channels and a target; with regions the ignore mask is the last channel."""
    generator = torch.Generator().manual_seed(seed)
    batch, *spatial = shape
    labels = torch.randint(5 if space != "classes" else 4, (batch, 1, *spatial), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.7] = 0
    logits = torch.randn(batch, 4, *spatial, generator=generator)
    logits.scatter_add_(1, labels.clamp_max(3), torch.full_like(logits, 3.0))
    if space == "regions":
        return logits, torch.cat([labels > 0, labels > 1, labels > 2, labels == 3, labels == 4], 1)
    return logits, labels.to(torch.int16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("space", SPACES)
def test_the_values_are_those_of_the_evaluation(space: str, dtype: torch.dtype) -> None:
    logits, target = problem(space, (2, 6, 17, 19))
    logits = logits.to(dtype)
    before = logits.clone(), target.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums = sums_of(logits.requires_grad_(), target, SPACES[space])
    assert torch.equal(logits, before[0]) and torch.equal(target, before[1]) and not sums.requires_grad
    logits = logits.detach().double().transpose(0, 1)
    if space == "regions":
        expected = count_masks(logits.sigmoid(), target[:, :4].transpose(0, 1), valid=~target[:, 4], regions=True)
    else:
        expected = count_masks(logits.softmax(0), target[:, 0], ignore_label=SPACES[space].ignore_label)
    values = values_of(sums.numpy())
    assert values == {
        ECE_KEY: pytest.approx(ece(expected["foreground"]), abs=1e-6),
        NLL_KEY: pytest.approx(nll(expected["all"]), rel=1e-6),
    }


class NothingThatWaits(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU."""

    WAITING = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "bincount",
        "unique",
        "is_nonzero",
        "equal.default",
        "index.Tensor",
        "index_put",
    )

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(name in str(function) for name in self.WAITING):
            raise AssertionError(f"{function} waits")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("space", SPACES)
def test_a_gpu_is_not_waited_for(space: str) -> None:
    logits, target = problem(space)
    with NothingThatWaits():
        sums_of(logits, target, SPACES[space])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("space", SPACES)
def test_a_gpu_gives_the_same_sums_without_waiting(space: str) -> None:
    logits, target = problem(space)
    on_gpu = logits.cuda(), target.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda"):
            sums = sums_of(*on_gpu, SPACES[space])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(sums.cpu(), sums_of(logits, target, SPACES[space]), rtol=1e-5, atol=1e-4)


def test_a_label_that_is_no_class_is_no_index() -> None:
    """On a GPU an index out of range would end the process."""
    logits, target = problem("classes")
    target[0, 0, 0, :2] = torch.tensor([77, -5], dtype=torch.int16)
    assert sums_of(logits, target, SPACES["classes"])[0, -1] == target.numel()


def test_nothing_counted_is_no_number() -> None:
    logits, target = problem("ignore")
    values = values_of(sums_of(logits, torch.full_like(target, 4), SPACES["ignore"]).numpy())
    assert all(math.isnan(value) for value in values.values())
