"""Loss and derivatives, against loops and autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from nnunet_nacl.calibration.case_voxels import Voxels
from nnunet_nacl.calibration.fitting import shares_above
from nnunet_nacl.calibration.likelihood import AffineProblem, LabelProblem, case_loss
from nnunet_nacl.calibration.log_odds import clipped
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
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


def some_map(regions: bool, full: bool = False, seed: int = 1) -> LogOddsMap:
    rng = np.random.default_rng(seed)
    labels = 2 if regions else NUM + 1
    slopes = rng.uniform(0.4, 1.4, (labels, NUM))
    if full:
        more = rng.uniform(-0.3, 0.3, (labels, NUM, 1 if regions else NUM + 1))
        slopes = np.concatenate([slopes[..., None], more], 2) if regions else more + slopes[..., None] * np.eye(NUM, 4)
    return LogOddsMap(slopes, rng.normal(size=(labels, NUM)), regions)


def torch_loss(voxels: Voxels, coefficients: torch.Tensor) -> torch.Tensor:
    """Mean loss under ``LogOddsMap.coefficients``, which autograd can derive."""
    odds, num, label = voxels.log_odds, len(voxels.log_odds), voxels.label.long()
    certain = odds.amax(0) <= np.log(1e-6)
    u = torch.where(certain, odds, clipped(odds, voxels.regions)).double()
    ones = torch.ones_like(u)
    if voxels.regions:
        rows = torch.stack([coefficients[label[r], r] for r in range(num)])  # (R, N, 3)
        x = (rows * torch.stack([u, torch.log1p(u.exp()), ones], -1)).sum(-1)
        x = torch.where(certain, u, x)
        loss = binary_cross_entropy_with_logits(x, voxels.target.double(), reduction="none").mean(0)
    else:
        features = torch.cat([u, torch.log1p(u.exp().sum(0, keepdim=True)), ones[:1]])
        x = torch.where(certain, u, torch.einsum("nkf,fn->kn", coefficients[label], features))
        loss = cross_entropy(torch.cat([0 * x[:1], x]).T, voxels.target.long(), reduction="none")
    return (loss * voxels.all_weights).sum() / voxels.all_weights.sum()


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_that_of_loops_over_voxels(regions, weighted):
    voxels, calibration = some_voxels(regions, weighted), some_map(regions)
    odds, weights = voxels.log_odds.double().T.tolist(), voxels.all_weights.tolist()
    logits = odds if regions else [[0.0, *each] for each in odds]
    target = voxels.target.numpy().T.tolist()
    expected = mean_loss(logits, target, weights, calibration.slopes, calibration.offsets, regions)
    assert case_loss(voxels, calibration) == pytest.approx(expected, rel=1e-6)  # log-odds in float32
    full = some_map(regions, full=True)
    expected = float(torch_loss(voxels, torch.from_numpy(full.coefficients())))
    assert case_loss(voxels, full) == pytest.approx(expected, rel=1e-9)


def compare(terms, loss_of, change) -> None:
    """Loss but for a constant, gradient and Hessian, against autograd's."""
    change = torch.from_numpy(change)
    got, zero = terms(change.numpy()), terms(np.zeros(len(change)))
    assert got.loss - zero.loss == pytest.approx(float(loss_of(change) - loss_of(0 * change)), abs=1e-10)
    leaf = change.clone().requires_grad_()
    loss_of(leaf).backward()
    np.testing.assert_allclose(got.gradient, leaf.grad.numpy(), atol=1e-10)
    hessian = torch.autograd.functional.hessian(loss_of, change).numpy()
    np.testing.assert_allclose(got.hessian, hessian, atol=1e-10)


@pytest.mark.parametrize(
    "structures, crossed", [([0, 1, 2], [0, 1, 2]), ([0, 2], [0, 2]), ([0, 1, 2], [1, 2]), ([1], [])]
)
def test_derivatives_of_a_label_are_those_of_autograd(structures, crossed, monkeypatch):
    monkeypatch.setattr("nnunet_nacl.calibration.likelihood._BLOCK", 37)
    cases, centre, label = [some_voxels(False, seed=i) for i in range(3)], some_map(False, full=True), 2
    cases[1] = Voxels(*(table[..., cases[1].label != label] for table in vars(cases[1]).values()))  # has none of it
    problem = LabelProblem(cases, label, None, centre, structures, crossed, 0.01)
    rows = np.zeros((NUM + 1, NUM, NUM + 2), bool)
    for structure in structures:
        rows[label, structure, [structure, NUM, NUM + 1]] = True
    for structure in crossed:
        rows[label, structure, crossed] = True
    assert problem.free.sum() == rows.sum()
    table, where = torch.from_numpy(centre.coefficients()), torch.from_numpy(rows)

    def loss_of(change):
        return sum(torch_loss(case, table.masked_scatter(where, table[where] + change)) for case in cases) / 3

    change = np.random.default_rng(0).normal(0, 0.3, int(rows.sum()))
    compare(problem.terms, loss_of, change)
    each = problem.gradients(change)
    np.testing.assert_allclose(each.sum(0) / 3, problem.terms(change).gradient, atol=1e-12)
    assert not each[1].any() and each[0].any()
    added, _ = problem.to_rows(change, np.eye(len(change)))
    np.testing.assert_allclose(added[problem.free], change)


def test_derivatives_of_a_region_are_those_of_autograd():
    cases, centre = [some_voxels(True, seed=i) for i in range(2)], some_map(True, full=True)
    problem = LabelProblem(cases, 1, 2, centre, [0], [0], 0.01)

    def loss_of(change):
        rows = torch.from_numpy(centre.coefficients())
        turned = torch.stack([change[0], change[1] - change[0], change[2]])  # log p = u - v, -log(1 - p) = v
        added = torch.zeros_like(rows).index_put((torch.tensor([1]), torch.tensor([2])), turned[None])
        return sum(torch_loss(case, rows + added) for case in cases) / 2

    change = np.random.default_rng(0).normal(0, 0.3, 3)
    compare(problem.terms, loss_of, change)
    rows, variances = problem.to_rows(change, np.diag([1.0, 4, 9]))
    np.testing.assert_allclose(rows[0], [change[0], change[1] - change[0], change[2]])
    np.testing.assert_allclose(variances[0], [1, 5, 9])


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("offsets", [False, True])
def test_derivatives_of_affine_maps_are_those_of_autograd(regions, offsets):
    cases = [some_voxels(regions, seed=i) for i in range(2)]
    problem = AffineProblem(cases, offsets, 0.01)

    def loss_of(change):
        shift = change[1:] if offsets else torch.zeros(NUM).double()
        rows = torch.zeros(2 if regions else NUM + 1, NUM, 3 if regions else NUM + 2).double()
        slopes = (1 + change[0]) * (torch.tensor([1.0, 0]) if regions else torch.eye(NUM, NUM + 1)).double()
        rows = rows + torch.cat([slopes.expand(NUM, -1), shift[:, None]], 1)
        return sum(torch_loss(case, rows) for case in cases) / 2

    change = np.random.default_rng(0).normal(0, 0.3, 1 + NUM * offsets)
    compare(problem.terms, loss_of, change)
    single = [problem.terms(change, [i]).gradient for i in range(2)]
    np.testing.assert_allclose(np.mean(single, 0), problem.terms(change).gradient, atol=1e-12)


@pytest.mark.parametrize("regions", [False, True])
def test_certain_background_has_a_loss_but_no_part_in_the_fit(regions):
    odds = torch.full((NUM, 4), -14.0)
    label = torch.zeros((NUM, 4) if regions else 4, dtype=torch.long)
    target = label.clone()
    target[..., 0] = 1
    voxels = Voxels(odds, label, target)
    tiny = np.exp(-14)
    # each region is a case of its own; of the classes three share the rest
    true, rest = (tiny / (1 + tiny), 1 / (1 + tiny)) if regions else (tiny / (1 + 3 * tiny), 1 / (1 + 3 * tiny))
    assert case_loss(voxels, some_map(regions)) == pytest.approx(-(np.log(true) + 3 * np.log(rest)) / 4, rel=1e-6)
    assert not voxels.by_label


def test_huge_log_odds_give_finite_terms():
    odds = torch.tensor([[65504.0, -65504.0, 0.0], [-65504.0, 65504.0, 65504.0]])
    voxels = Voxels(odds, chosen(odds, False), torch.tensor([2, 1, 0]))
    # u = (15, 0), (0, 15), (0, 15), each wrong by 15
    identity = LogOddsMap.identity(2)
    assert case_loss(voxels, identity) == pytest.approx(15 + np.log(1 + 2 * np.exp(-15)), rel=1e-6)
    terms = LabelProblem([voxels], 2, None, identity, [0, 1], [0, 1], 0.01).terms(np.zeros(8))
    assert np.isfinite(terms.gradient).all() and np.isfinite(terms.hessian).all()


def test_what_matters_at_a_label_is_counted_with_the_weights():
    """Label 1: probabilities of structure 2 are 1/2 - (weight 1) and about 0 (weight 3); the other case has none."""
    odds = torch.tensor([[5.0, 5.0, -20.0], [5.0, -9.0, -20.0]])
    first = Voxels(odds, torch.tensor([1, 1, 0]), torch.tensor([1, 1, 0]), torch.tensor([1.0, 3.0, 6.0]))
    second = Voxels(odds[:, 2:], torch.tensor([0]), torch.tensor([0]))
    share, mean = shares_above([first, second], 1, None, 0.01)
    half = 1 / (2 + np.exp(-5))
    np.testing.assert_allclose(share, [1, 0.25])
    np.testing.assert_allclose(mean[1], 0.25 * half, rtol=1e-5)
