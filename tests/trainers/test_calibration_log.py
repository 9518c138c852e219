"""Calibration while training: its numbers, what --c keeps of them, and that nothing of it can stop
a training."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl_trainers import calibration_log
from nnunet_nacl_trainers.calibration_log import ECE_KEY, NLL_KEY, count_batch
from tests.losses.cases import pairwise
from tests.reference.metrics import class_metrics, region_metrics
from tests.trainers.epochs import log_of, make_batch, observed, run_epoch
from tests.trainers.plans import LABEL_SPACES

NAME = "nnUNetTrainerNACL_8epochs"


def batches(
    label_space: str = "classes", num_axes: int = 2, deep_supervision: bool = True, seeds=(1, 2)
) -> list[dict]:
    return [
        make_batch(label_space, num_axes, seed, 3 if deep_supervision else None) for seed in seeds
    ]


def logged(trainer) -> dict[str, list]:
    return trainer.logger.get_checkpoint()


@pairwise(
    name=["nnUNetTrainerDiceNACL", "nnUNetTrainerDiceCE_8epochs"],
    label_space=list(LABEL_SPACES),
    num_axes=[2, 3],
    deep_supervision=[True, False],
)
def test_the_numbers_are_those_of_the_validation_batches(
    prepared, name: str, label_space: str, num_axes: int, deep_supervision: bool
) -> None:
    trainer = prepared(name, label_space, num_axes, deep_supervision)
    validation = batches(label_space, num_axes, deep_supervision)
    run_epoch(trainer, batches(label_space, num_axes, deep_supervision, (5,)), validation)

    logits, truth, valid = observed(trainer, validation)
    assert 0 < valid.sum() and (valid.all() == ("ignore" not in label_space))
    logits = logits.astype(np.float64)
    if label_space.startswith("regions"):
        probs = 1 / (1 + np.exp(-logits))
        foreground = truth.any(0)
        metrics = region_metrics
    else:
        probs = np.exp(logits) / np.exp(logits).sum(0)
        foreground = truth != 0
        metrics = class_metrics
    assert logged(trainer)[ECE_KEY] == pytest.approx(
        [metrics(probs, truth, foreground & valid)["ECE"]], abs=1e-6
    )
    assert logged(trainer)[NLL_KEY] == pytest.approx(
        [metrics(probs, truth, valid)["NLL"]], rel=1e-5
    )
    assert (
        f"ECE of the foreground {logged(trainer)[ECE_KEY][0]:.4f}, NLL"
        f" {logged(trainer)[NLL_KEY][0]:.4f}" in log_of(trainer)
    )


def test_a_trainer_that_was_continued_or_pickled_goes_on_with_its_values(prepared) -> None:
    # writes its checkpoint after every epoch
    trainer = prepared(NAME)
    data = batches()
    for _ in range(3):
        run_epoch(trainer, data, data)
    path = f"{trainer.output_folder}/checkpoint_latest.pth"
    values = torch.load(path, weights_only=False)["logging"]
    for key in (ECE_KEY, NLL_KEY):
        assert [type(value) for value in values[key]] == [float, float, float]
    after = prepared(NAME)
    after.load_checkpoint(path)
    del after.logger.plot_progress_png  # of the tests
    after = pickle.loads(pickle.dumps(after))
    after.logger.plot_progress_png = lambda folder: None
    run_epoch(after, data, data)
    # progress.png ends with the shortest
    assert all(len(of_key) == 4 for of_key in logged(after).values())
    assert (
        logged(after)[ECE_KEY][:3] == values[ECE_KEY]
        and logged(after)[NLL_KEY][:3] == values[NLL_KEY]
    )


def test_a_failure_is_one_warning_and_the_training_goes_on(
    prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def fail_in_the_second_batch(logits, target, space):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("injected\nwith a second line")
        return count_batch(logits, target, space)

    monkeypatch.setattr(calibration_log, "count_batch", fail_in_the_second_batch)
    trainer = prepared(NAME)
    data = batches()
    for _ in range(3):
        run_epoch(trainer, data, data)
    assert trainer.current_epoch == 3 and {len(values) for values in logged(trainer).values()} == {
        3
    }
    assert [math.isnan(value) for value in logged(trainer)[NLL_KEY]] == [True, False, False]
    log = log_of(trainer)
    assert log.count("WARNING") == 1
    assert (
        "WARNING: calibration in a training, which goes on: RuntimeError: injected with a second"
        " line" in log
    )


def test_the_values_of_all_epochs_are_drawn_and_a_failing_drawing_stops_nothing(
    prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = prepared(NAME)
    data = batches()
    run_epoch(trainer, data, data)
    figure = Path(trainer.output_folder, calibration_log.PROGRESS_FIGURE)
    assert figure.read_bytes().startswith(b"\x89PNG")
    drawn = []

    def fail_after_noting(*arguments) -> None:
        drawn.append(copy.deepcopy(arguments))
        raise OSError("no space left")

    monkeypatch.setattr(calibration_log, "draw_progress", fail_after_noting)
    for _ in range(2):
        run_epoch(trainer, data, data)
    values = logged(trainer)
    assert drawn == [(values[ECE_KEY][:n], values[NLL_KEY][:n], figure) for n in (2, 3)]
    assert trainer.current_epoch == 3
    assert log_of(trainer).count("WARNING") == 1 and "OSError: no space left" in log_of(trainer)


def test_a_validation_that_was_broken_off_is_not_counted_twice(prepared) -> None:
    trainer = prepared(NAME)
    data = batches()
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        trainer.loss(trainer.network(data[0]["data"]), data[0]["target"])
    expected = prepared(NAME)
    for one in (trainer, expected):
        run_epoch(one, data, data)
    assert logged(expected)[ECE_KEY] == logged(trainer)[ECE_KEY]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "space", [LabelSpace(ignore_label=3), LabelSpace(regions=True)], ids=["ignore", "regions"]
)
def test_half_precision_is_counted_in_float32_and_nothing_is_changed(
    space: LabelSpace, dtype: torch.dtype
) -> None:
    target = make_batch("regions_ignore" if space.regions else "ignore", 3, 1)["target"]
    logits = torch.randn(2, 2 if space.regions else 3, *target.shape[2:]).to(dtype)
    before = logits.clone(), target.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = count_batch(logits.requires_grad_(), target, space)
    assert torch.equal(logits, before[0]) and torch.equal(target, before[1])
    for stats, expected in zip(found, count_batch(logits.double(), target, space)):
        np.testing.assert_array_equal(stats.count.sum(), expected.count.sum())
        np.testing.assert_allclose(stats.nll, expected.nll, rtol=1e-6)
