"""Loss and derivatives of one case, against loops and autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from nnunet_nacl.calibration.calibration_map import clipped
from nnunet_nacl.calibration.likelihood import Voxels, case_loss, case_terms
from tests.calibration.problems import chosen
from tests.reference.calibration import mean_loss

NUM = 3


def some_voxels(regions: bool, weighted: bool = True, spread: float = 9.0, voxels: int = 200, seed: int = 0) -> Voxels:
    """Some log-odds beyond the clipping, some of certain background; half of the truths are as predicted."""
    rng = np.random.default_rng(seed)
    odds = torch.from_numpy(rng.normal(-2, spread, (NUM, voxels)).astype(np.float32))
    odds[:, :20] -= 20
    label = chosen(odds, regions)
    other = torch.from_numpy(rng.integers(0, 2 if regions else NUM + 1, label.shape))
    target = torch.where(torch.from_numpy(rng.random(label.shape) < 0.5), label, other)
    weights = torch.from_numpy(rng.uniform(0.5, 9, voxels)) if weighted else None
    return Voxels(odds, label, target, weights)


def some_map(regions: bool, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (2 if regions else NUM + 1, NUM)
    return rng.uniform(0.4, 1.4, shape), rng.normal(size=shape)


def torch_loss(voxels: Voxels, rows: torch.Tensor) -> torch.Tensor:
    """Mean loss under (P, 2m) slopes and offsets, which autograd can derive."""
    odds, num = voxels.log_odds, len(voxels.log_odds)
    certain = odds.amax(0) <= np.log(1e-6)
    u = torch.where(certain, odds, clipped(odds, voxels.regions)).double()
    label = voxels.label.long()
    if voxels.regions:
        a, b = (torch.stack([part[label[r], r] for r in range(num)]) for part in (rows[:, :num], rows[:, num:]))
    else:
        a, b = rows[label, :num].T, rows[label, num:].T
    x = torch.where(certain, u, a * u + b)
    if voxels.regions:
        loss = binary_cross_entropy_with_logits(x, voxels.target.double(), reduction="none").mean(0)
    else:
        loss = cross_entropy(torch.cat([0 * x[:1], x]).T, voxels.target.long(), reduction="none")
    return (loss * voxels.all_weights).sum() / voxels.all_weights.sum()


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_that_of_loops_over_voxels(regions, weighted):
    voxels, (slopes, offsets) = some_voxels(regions, weighted), some_map(regions)
    odds, weights = voxels.log_odds.double().T.tolist(), voxels.all_weights.tolist()
    logits = odds if regions else [[0.0, *one] for one in odds]
    target = voxels.target.numpy().T.tolist()
    expected = mean_loss(logits, target, weights, slopes, offsets, regions)
    assert case_terms(voxels, slopes, offsets).loss == pytest.approx(expected, rel=1e-6)  # log-odds in float32
    assert case_loss(voxels, slopes, offsets) == pytest.approx(case_terms(voxels, slopes, offsets).loss, rel=1e-12)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_derivatives_are_those_of_autograd(regions, weighted, monkeypatch):
    monkeypatch.setattr("nnunet_nacl.calibration.likelihood._BLOCK", 37)
    voxels, (slopes, offsets) = some_voxels(regions, weighted), some_map(regions)
    rows = torch.from_numpy(np.concatenate([slopes, offsets], 1))
    terms = case_terms(voxels, slopes, offsets)
    assert terms.loss == pytest.approx(float(torch_loss(voxels, rows)), rel=1e-12)
    leaf = rows.clone().requires_grad_()
    torch_loss(voxels, leaf).backward()
    np.testing.assert_allclose(terms.gradient, leaf.grad.numpy(), atol=1e-12)
    hessian = torch.autograd.functional.hessian(lambda r: torch_loss(voxels, r), rows).numpy()
    np.testing.assert_allclose(terms.hessian, np.einsum("pipj->pij", hessian), atol=1e-12)


def test_derivatives_by_matrices_are_those_of_autograd(monkeypatch):
    monkeypatch.setattr("nnunet_nacl.calibration.likelihood._BLOCK", 37)
    voxels, rng = some_voxels(False, True), np.random.default_rng(2)
    size = NUM * (NUM + 1)
    rows = torch.from_numpy(rng.normal(size=(NUM + 1, size + NUM)) / 2)
    certain = voxels.log_odds.amax(0) <= np.log(1e-6)
    u = torch.where(certain, voxels.log_odds, clipped(voxels.log_odds, False)).double()

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        own = rows[voxels.label.long()]
        features = torch.cat([u, torch.logsumexp(torch.cat([0 * u[:1], u]), 0)[None]])
        x = torch.einsum("nkf,fn->kn", own[:, :size].reshape(-1, NUM, NUM + 1), features) + own[:, size:].T
        x = torch.where(certain, u, x)
        loss = cross_entropy(torch.cat([0 * x[:1], x]).T, voxels.target.long(), reduction="none")
        return (loss * voxels.all_weights).sum() / voxels.all_weights.sum()

    terms = case_terms(voxels, rows[:, :size].reshape(-1, NUM, NUM + 1).numpy(), rows[:, size:].numpy())
    assert terms.loss == pytest.approx(float(loss_of(rows)), rel=1e-12)
    leaf = rows.clone().requires_grad_()
    loss_of(leaf).backward()
    np.testing.assert_allclose(terms.gradient, leaf.grad.numpy(), atol=1e-12)
    hessian = torch.autograd.functional.hessian(loss_of, rows).numpy()
    np.testing.assert_allclose(terms.hessian, np.einsum("pipj->pij", hessian), atol=1e-12)


@pytest.mark.parametrize("regions", [False, True])
def test_each_label_is_a_convex_problem_of_its_own(regions):
    voxels, (slopes, offsets) = some_voxels(regions), some_map(regions)
    terms = case_terms(voxels, slopes, offsets)
    for block in terms.hessian:
        np.testing.assert_allclose(block, block.T, atol=1e-12)
        assert np.linalg.eigvalsh(block).min() > -1e-12
    slopes[1], offsets[1] = 0.5, -1.0
    moved = case_terms(voxels, slopes, offsets)
    for name in ("gradient", "hessian"):
        same = np.isclose(getattr(moved, name), getattr(terms, name), atol=0).reshape(len(slopes), -1).all(1)
        assert list(np.flatnonzero(~same)) == [1]


def test_a_label_that_a_case_lacks_leaves_no_trace():
    voxels = some_voxels(False)
    keep = voxels.label != 2
    without = Voxels(voxels.log_odds[:, keep], voxels.label[keep], voxels.target[keep], voxels.weights[keep])
    terms = case_terms(without, *some_map(False))
    assert not terms.gradient[2].any() and not terms.hessian[2].any() and np.isfinite(terms.loss)
    np.testing.assert_array_equal(without.labels_there, np.array([[True], [True], [False], [True]]).repeat(NUM, 1))


@pytest.mark.parametrize("regions", [False, True])
def test_certain_background_has_a_loss_but_no_part_in_the_fit(regions):
    odds = torch.full((NUM, 4), -14.0)
    label = torch.zeros((NUM, 4) if regions else 4, dtype=torch.long)
    target = label.clone()
    target[..., 0] = 1
    voxels = Voxels(odds, label, target)
    terms = case_terms(voxels, *some_map(regions))
    tiny = np.exp(-14)
    # each region is a case of its own; of the classes three share the rest
    one, rest = (tiny / (1 + tiny), 1 / (1 + tiny)) if regions else (tiny / (1 + 3 * tiny), 1 / (1 + 3 * tiny))
    assert terms.loss == pytest.approx(-(np.log(one) + 3 * np.log(rest)) / 4, rel=1e-6)
    assert not terms.gradient.any() and not voxels.labels_there.any()


@pytest.mark.parametrize("regions", [False, True])
def test_integers_booleans_and_bytes_are_labels_alike(regions):
    voxels, (slopes, offsets) = some_voxels(regions), some_map(regions)
    for dtype in (torch.uint8, torch.bool) if regions else (torch.uint8, torch.int32):
        other = replace(voxels, label=voxels.label.to(dtype), target=voxels.target.to(dtype))
        assert case_loss(other, slopes, offsets) == case_loss(voxels, slopes, offsets)


def test_huge_log_odds_give_finite_terms():
    odds = torch.tensor([[65504.0, -65504.0, 0.0], [-65504.0, 65504.0, 65504.0]])
    voxels = Voxels(odds, chosen(odds, False), torch.tensor([2, 1, 0]))
    terms = case_terms(voxels, np.ones((3, 2)), np.zeros((3, 2)))
    # u = (15, 0), (0, 15), (0, 15), each wrong by 15
    assert terms.loss == pytest.approx(15 + np.log(1 + 2 * np.exp(-15)), rel=1e-6)
    assert np.isfinite(terms.gradient).all() and np.isfinite(terms.hessian).all()
