"""What the observer adds up, in every precision and chunking, and that it never waits for a GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.metrics import count_masks
from nnunet_nacl.metrics.calibration_error import ece
from nnunet_nacl_trainers import observation
from nnunet_nacl_trainers.observation import LogitObserver

SPACES = {"classes": LabelSpace(), "ignore": LabelSpace(ignore_label=4), "regions": LabelSpace(regions=True)}


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


def sums(space: str, logits, target):
    observer = LogitObserver(SPACES[space], logits.shape[1])
    observer.observe(logits, target)
    return observer.fetch()


def assert_equal(found, expected, rounding: float = 0.0, largest: float = 10.0) -> None:
    """Counts are the same, and sums differ by no more than rounding.

    Args:
        found: Sums.
        expected: Sums of the same voxels.
        rounding: Relative error of each summand, for sums of logits relative to the ``largest`` logit: those of both
            signs cancel, so that the sum itself says nothing of its error.
        largest: No logit is larger.
    """
    for name in ("count", "correct", "max_logit_count", "class_count", "not_finite"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=rounding + 1e-12)
    summands = {"max_logit_sum": expected.max_logit_count.sum(-1), "logit_sum": expected.class_count[:, None]}
    for name, number in summands.items():
        error = np.abs(getattr(found, name) - getattr(expected, name))
        assert (error <= (rounding + 1e-12) * largest * number).all(), f"{name} differs by up to {error.max():.3g}"


SINGLE = 5e-7
"""Four units in the last place of single precision: what the order of a sum of a thousand terms may change."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 40, 31), (2, 6, 17, 19)])
@pytest.mark.parametrize("space", SPACES)
def test_the_bins_are_those_of_the_evaluation(space: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    logits, target = problem(space, shape)
    logits = logits.to(dtype)
    found = sums(space, logits, target)
    probs = logits.transpose(0, 1).double().sigmoid() if space == "regions" else logits.transpose(0, 1).softmax(0)
    if space == "regions":
        expected = count_masks(probs, target[:, :4].transpose(0, 1), valid=~target[:, 4], regions=True)
    else:
        expected = count_masks(probs, target[:, 0], ignore_label=SPACES[space].ignore_label)
    # Two softmaxes along axes of other strides need not round alike.
    rounding = SINGLE if dtype == torch.float32 else 1e-12
    for mask in ("foreground", "predicted", "all"):
        stats = found.bins(mask)
        assert (stats.count == expected[mask].count).all() and (stats.correct == expected[mask].correct).all()
        np.testing.assert_allclose(stats.confidence, expected[mask].confidence, rtol=rounding)
        assert ece(stats) == pytest.approx(ece(expected[mask]), abs=rounding)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, SINGLE), (torch.float64, 0.0)])
@pytest.mark.parametrize("space", SPACES)
def test_batches_and_chunks_add_up(
    space: str, dtype: torch.dtype, rounding: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, target = problem(space, (3, 50, 47))
    logits = logits.to(dtype)
    whole = sums(space, logits, target)
    observer = LogitObserver(SPACES[space], 4)
    for part in (slice(0, 1), slice(1, 3)):
        observer.observe([logits[part], "not looked at"], [target[part], "not looked at"])
    assert_equal(observer.fetch(), whole, rounding)
    for voxels in (40, 12, 1024, 2 * 50 * 47):  # of all four channels: parts of a sample, and more than one sample
        monkeypatch.setattr(observation, "_CHUNK_CPU", 4 * voxels)
        assert_equal(sums(space, logits, target), whole, rounding)
    observer.start()
    assert observer.fetch() is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("space", SPACES)
def test_every_precision_is_counted_like_single(space: str, dtype: torch.dtype) -> None:
    logits, target = problem(space)
    logits = logits.to(torch.bfloat16)
    logits = logits.to(dtype)  # without a loss: every type holds these numbers
    assert_equal(sums(space, logits, target), sums(space, logits.float(), target), SINGLE)


@pytest.mark.parametrize("space", SPACES)
def test_autocast_changes_nothing(space: str) -> None:
    logits, target = problem(space)
    logits = logits.bfloat16()
    expected = sums(space, logits, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sums(space, logits, target)
    assert_equal(found, expected)


def test_the_batch_stays_as_it_is_and_gets_no_gradient() -> None:
    logits, target = problem("ignore")
    logits.requires_grad_()
    before = logits.detach().clone(), target.clone()
    sums("ignore", logits, target)
    assert torch.equal(logits, before[0]) and torch.equal(target, before[1]) and logits.grad is None


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
def test_a_gpu_is_not_waited_for(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = problem(space)
    expected = sums(space, logits, target)
    monkeypatch.setattr(observation, "_on_cpu", lambda tensor: False)
    observer = LogitObserver(SPACES[space], 4)
    with NothingThatWaits():
        for _ in range(2):
            observer.observe(logits, target)
    assert_equal(observer.fetch(), expected + expected, SINGLE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("space", SPACES)
def test_a_gpu_gives_the_same_sums_without_waiting(space: str) -> None:
    logits, target = problem(space)
    observer = LogitObserver(SPACES[space], 4)
    on_gpu = logits.cuda(), target.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda"):
            observer.observe(*on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_equal(observer.fetch(), sums(space, logits, target), SINGLE)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("space", SPACES)
def test_voxels_without_finite_logits_are_counted_apart(space: str, value: float) -> None:
    logits, target = problem(space)
    broken = logits.clone()
    broken[0, 1, :5] = value
    found = sums(space, broken, target)
    if space == "regions":
        target = target.clone()
        lost = ~target[0, 4, :5]
        target[0, 4, :5] = True
        expected = sums(space, logits, target)
    else:
        lost = target[0, 0, :5] != 4
        ignoring = torch.where(torch.arange(40)[:, None] < 5, 4, target[0, 0])
        target = torch.cat([ignoring[None, None].to(target.dtype), target[1:]])
        expected = sums("ignore", logits, target)
    assert found.not_finite[0] == lost.sum() > 0
    assert_equal(found, replace(expected, not_finite=found.not_finite), SINGLE)
    assert np.isfinite(found.logit_sum).all() and np.isfinite(found.confidence).all()


def test_a_label_that_is_no_class_is_no_index() -> None:
    """On a GPU an index out of range would end the process."""
    logits, target = problem("classes")
    target[0, 0, 0, :2] = torch.tensor([77, -5], dtype=torch.int16)
    found = sums("classes", logits, target)
    assert found.class_count.sum() == target.numel() - 2 and found.count.sum() == target.numel()


def test_wide_ranges_of_logits_fall_into_the_open_bins() -> None:
    logits = torch.tensor([[-1000.0, -10.0, -9.9, 0.0, 39.9, 40.0, 1000.0]]).repeat(2, 1)[None, :, None]
    found = sums("classes", logits, torch.zeros(1, 1, 1, 7))
    assert np.flatnonzero(found.max_logit_count.sum((0, 1))).tolist() == [0, 1, 41, 200, 201]
    assert found.max_logit_sum.sum() == pytest.approx(logits[0, 0].sum().item())
