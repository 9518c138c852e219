"""The streaming metric: batches and ranks."""

from __future__ import annotations

import os

import pytest
import torch
import torch.multiprocessing

from nnunet_nacl.numbers import count_masks
from nnunet_nacl.numbers.calibration_error import mask_metrics
from nnunet_nacl.numbers.counting import CalibrationMetric


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
    probs = torch.softmax(torch.cat([logits for logits, _ in everything]), 1).transpose(0, 1)
    stats = count_masks(probs, torch.cat([target for _, target in everything])[:, 0])[mask]
    assert metric.compute() == pytest.approx(mask_metrics(stats), abs=1e-9)
    first = CalibrationMetric(3, mask=mask)
    first.update(*everything[0])
    assert metric(*everything[0]) == first.compute() and metric.to("cpu") is metric  # of this batch alone
    assert metric.stats.n_voxels == stats.n_voxels + first.stats.n_voxels
    metric.reset()
    assert metric.stats.n_voxels == 0 and metric.compute()["ECE"] != metric.compute()["ECE"]


def test_regions_ignore_label_mask_probabilities_and_classifiers():
    logits, target = next(batches(1))
    inside = torch.arange(3).view(1, 3, 1, 1) == target
    regions = CalibrationMetric(3, regions=True)
    regions.update(logits, inside)
    expected = count_masks(torch.sigmoid(logits).transpose(0, 1), inside.transpose(0, 1), regions=True)["all"]
    assert regions.compute() == pytest.approx(mask_metrics(expected))
    for target_or_map, valid in ((target, target != 1), (target[:, 0], (target != 1)[:, 0])):
        ignoring = CalibrationMetric(3, ignore_label=2, from_logits=False)
        ignoring.update(torch.softmax(logits, 1), target_or_map, valid)
        assert ignoring.stats.n_voxels == int((target == 0).sum())
    classifier = CalibrationMetric(3)
    classifier.update(torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]))
    assert classifier.stats.n_voxels == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CalibrationMetric(3, mask="boundary"), "boundary"),
        (lambda: CalibrationMetric(2).update(torch.zeros(1, 3, 4), torch.zeros(1, 4)), r"\(B, 2, \*spatial\)"),
        (lambda: CalibrationMetric(2).update(torch.zeros(1, 2, 4), torch.zeros(1, 5)), r"\(1, 4\), got \(1, 5\)"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    metric = CalibrationMetric(3)
    for logits, target in list(batches(7, count=3))[rank::2]:  # the ranks have different numbers of batches
        metric.update(logits, target)
    torch.save(metric.compute(), f"{folder}/{rank}.pt")
    torch.distributed.barrier()  # a rank that leaves first would cut the other's connection
    torch.distributed.destroy_process_group()


def test_ranks_merge(tmp_path):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.multiprocessing.start_processes(_rank, (str(tmp_path),), nprocs=2, start_method="forkserver")
    alone = CalibrationMetric(3)
    for logits, target in batches(7, count=3):
        alone.update(logits, target)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(alone.compute(), abs=1e-12)
