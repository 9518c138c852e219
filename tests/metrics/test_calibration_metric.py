"""The metric over batches: the same as of everything at once, and of all processes."""

from __future__ import annotations

import math
import os

import pytest
import torch
import torch.multiprocessing

from nnunet_nacl.metrics import count_masks
from nnunet_nacl.metrics.calibration_error import mask_metrics
from nnunet_nacl.metrics.calibration_metric import CalibrationMetric


def batches(seed: int, count: int = 3, classes: int = 3, shape=(2, 6, 5)):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        logits = torch.randn(shape[0], classes, *shape[1:], generator=generator) * 3
        yield logits, torch.randint(0, classes, (shape[0], 1, *shape[1:]), generator=generator)


@pytest.mark.parametrize("mask", ["all", "foreground", "predicted", "union"])
def test_batches_give_the_same_as_everything_at_once(mask):
    metric = CalibrationMetric(3, mask=mask)
    everything = list(batches(0))
    for logits, target in everything:
        metric.update(logits, target)
    all_logits = torch.cat([logits for logits, _ in everything])
    all_targets = torch.cat([target for _, target in everything])
    probs = torch.softmax(all_logits, 1).transpose(0, 1)
    stats = count_masks(probs, all_targets[:, 0])[mask]
    assert metric.compute() == pytest.approx(mask_metrics(stats), abs=1e-9)


def test_a_call_gives_the_metrics_of_its_batch_alone_and_keeps_those_before():
    first, second, _ = batches(0)
    metric = CalibrationMetric(3)
    metric.update(*first)
    of_second = CalibrationMetric(3)
    of_second.update(*second)
    assert metric(*second) == of_second.compute()
    assert metric.stats.n_voxels == 2 * of_second.stats.n_voxels


def test_the_metric_stays_where_it_is_and_forgets_everything_when_it_is_reset():
    metric = CalibrationMetric(3)
    assert metric.to("cpu") is metric
    metric.update(*next(batches(0)))
    metric.reset()
    assert metric.stats.n_voxels == 0
    assert math.isnan(metric.compute()["ECE"])


def test_regions_are_overlapping_maps_with_a_channel_each():
    logits, target = next(batches(1))
    inside = torch.arange(3).view(1, 3, 1, 1) == target
    metric = CalibrationMetric(3, regions=True)
    metric.update(logits, inside)
    probs = torch.sigmoid(logits).transpose(0, 1)
    expected = count_masks(probs, inside.transpose(0, 1), regions=True)["all"]
    assert metric.compute() == pytest.approx(mask_metrics(expected))


@pytest.mark.parametrize("has_channel", [True, False])
def test_ignored_voxels_are_those_of_the_label_and_of_the_mask(has_channel):
    logits, target = next(batches(1))
    number_of_label_0 = int((target == 0).sum())
    if not has_channel:
        target = target[:, 0]
    metric = CalibrationMetric(3, ignore_label=2, from_logits=False)
    metric.update(torch.softmax(logits, 1), target, valid=target != 1)
    assert metric.stats.n_voxels == number_of_label_0


def test_a_classifier_has_no_spatial_axes():
    metric = CalibrationMetric(3)
    metric.update(torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]))
    assert metric.stats.n_voxels == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CalibrationMetric(3, mask="boundary"), "boundary"),
        (
            lambda: CalibrationMetric(2).update(torch.zeros(1, 3, 4), torch.zeros(1, 4)),
            r"\(B, 2, \*spatial\)",
        ),
        (
            lambda: CalibrationMetric(2).update(torch.zeros(1, 2, 4), torch.zeros(1, 5)),
            r"\(1, 4\), got \(1, 5\)",
        ),
    ],
)
def test_bad_arguments_of_the_metric_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    metric = CalibrationMetric(3)
    # the ranks have different numbers of batches
    for logits, target in list(batches(7, count=3))[rank::2]:
        metric.update(logits, target)
    torch.save(metric.compute(), f"{folder}/{rank}.pt")
    torch.distributed.barrier()  # a rank that leaves first would cut the other's connection
    torch.distributed.destroy_process_group()


def test_ranks_merge(tmp_path):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.multiprocessing.start_processes(
        _rank, (str(tmp_path),), nprocs=2, start_method="forkserver"
    )
    alone = CalibrationMetric(3)
    for logits, target in batches(7, count=3):
        alone.update(logits, target)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(alone.compute(), abs=1e-12)
