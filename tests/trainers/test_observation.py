"""What the observer adds up, in every precision and chunking, and that it never waits for a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.metrics import count_masks
from nnunet_nacl.metrics.calibration import ece
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


def equal(first, second, rtol: float = 1e-9) -> bool:
    return all(np.allclose(getattr(first, name), getattr(second, name), rtol=rtol, atol=1e-7)
               for name in first.__dataclass_fields__)


@pytest.mark.parametrize("shape", [(3, 40, 31), (2, 6, 17, 19)])
@pytest.mark.parametrize("space", SPACES)
def test_the_bins_are_those_of_the_evaluation(space: str, shape: tuple[int, ...]) -> None:
    logits, target = problem(space, shape)
    found = sums(space, logits, target)
    probs = logits.transpose(0, 1).double().sigmoid() if space == "regions" else logits.transpose(0, 1).softmax(0)
    if space == "regions":
        expected = count_masks(probs, target[:, :4].transpose(0, 1), valid=~target[:, 4], regions=True)
    else:
        expected = count_masks(probs, target[:, 0], ignore_label=SPACES[space].ignore_label)
    for mask in ("foreground", "predicted", "all"):
        stats = found.bins(mask)
        assert (stats.count == expected[mask].count).all() and (stats.correct == expected[mask].correct).all()
        np.testing.assert_allclose(stats.confidence, expected[mask].confidence, rtol=1e-12)
        assert ece(stats) == pytest.approx(ece(expected[mask]), abs=1e-12)


@pytest.mark.parametrize("space", SPACES)
def test_batches_and_chunks_add_up(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = problem(space, (3, 50, 47))
    whole = sums(space, logits, target)
    observer = LogitObserver(SPACES[space], 4)
    for part in (slice(0, 1), slice(1, 3)):
        observer.observe([logits[part], "not looked at"], [target[part], "not looked at"])
    assert equal(observer.fetch(), whole, 1e-6)
    for limit in (4, 3 * 4, 2 * 4 * 50 * 47):
        monkeypatch.setattr(observation, "_CHUNK_CPU", limit if limit > 12 else 40 * limit)
        assert equal(sums(space, logits, target), whole, 1e-6)
    observer.start()
    assert observer.fetch() is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("space", SPACES)
def test_half_precision_is_counted_in_single(space: str, dtype: torch.dtype) -> None:
    logits, target = problem(space)
    logits = logits.to(torch.bfloat16)
    found = sums(space, logits.to(dtype) if dtype != torch.float16 else logits.half(), target)
    expected = sums(space, logits.half().float() if dtype == torch.float16 else logits.float(), target)
    assert equal(found, expected, 1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_autocast_changes_nothing(space: str) -> None:
    logits, target = problem(space)
    logits = logits.bfloat16()
    expected = sums(space, logits, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sums(space, logits, target)
    assert equal(found, expected, 1e-12)


def test_the_batch_stays_as_it_is_and_gets_no_gradient() -> None:
    logits, target = problem("ignore")
    logits.requires_grad_()
    before = logits.detach().clone(), target.clone()
    sums("ignore", logits, target)
    assert torch.equal(logits, before[0]) and torch.equal(target, before[1]) and logits.grad is None


class NothingThatWaits(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "is_nonzero", "equal.default",
               "index.Tensor", "index_put")

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
    twice = expected + expected
    assert equal(observer.fetch(), twice)


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
    assert equal(observer.fetch(), sums(space, logits, target), 1e-6)


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
    assert equal(found, expected.__class__(**{**vars(expected), "not_finite": found.not_finite}))
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
