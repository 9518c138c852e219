"""Loss and derivatives, against loops and autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from nnunet_nacl.numbers.case_voxels import Voxels, voxels_by_label
from nnunet_nacl.numbers.fitting import SMALLEST_SLOPE, affine_models, case_loss, class_model, logits_of, region_model
from nnunet_nacl.numbers.log_odds_map import LogOddsMap, clipped
from tests.numbers.problems import chosen
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


def compare(models, number: int, loss_of, size: int) -> np.ndarray:
    """Loss but for a constant, gradient and Hessian, against autograd's; where they were compared."""
    change = np.random.default_rng(0).normal(0, 0.3, size)
    leaf = torch.tensor(change, requires_grad=True)
    zero, expected = loss_of(torch.zeros(size).double()), loss_of(leaf)
    expected.backward()
    losses, gradients = zip(*(model.loss(change) for model in models))
    before = sum(model.loss(np.zeros(size))[0] for model in models)
    assert (sum(losses) - before) / number == pytest.approx((expected - zero).item(), abs=1e-10)
    np.testing.assert_allclose(sum(gradients) / number, leaf.grad.numpy(), atol=1e-10)
    hessian = torch.autograd.functional.hessian(loss_of, leaf.detach()).numpy()
    np.testing.assert_allclose(sum(model.hessian(change) for model in models) / number, hessian, atol=1e-10)
    return change


@pytest.mark.parametrize(
    "structures, crossed", [([0, 1, 2], [0, 1, 2]), ([0, 2], [0, 2]), ([0, 1, 2], [1, 2]), ([1], [])]
)
def test_derivatives_of_a_label_are_those_of_autograd(structures, crossed, monkeypatch):
    monkeypatch.setattr("nnunet_nacl.numbers.fitting._BLOCK", 37)
    cases, centre, label = [some_voxels(False, seed=i) for i in range(3)], some_map(False, full=True), 2
    cases[1] = Voxels(*(table[..., cases[1].label != label] for table in vars(cases[1]).values()))  # has none of it
    free = np.zeros((NUM, NUM + 2), bool)
    for structure in structures:
        free[structure, [structure, NUM, NUM + 1]] = True
    for structure in crossed:
        free[structure, crossed] = True
    (voxels,) = (own for *key, own in voxels_by_label(cases) if key == [label, 0])
    table = centre.coefficients()
    model, lowest = class_model(voxels, logits_of(centre, voxels.odds, label, None), free, table[label])
    places = np.argwhere(free)
    assert np.isfinite(lowest).tolist() == [k == j for k, j in places]
    own = table[label, structures, structures]
    np.testing.assert_allclose(lowest[np.isfinite(lowest)], np.minimum(SMALLEST_SLOPE - own, 0))
    where = torch.from_numpy(np.stack([free & (c == label) for c in range(NUM + 1)]))

    def loss_of(change):
        rows = torch.from_numpy(table)
        return sum(torch_loss(case, rows.masked_scatter(where, rows[where] + change)) for case in cases) / 3

    compare([model], 3, loss_of, len(places))


def test_derivatives_of_a_region_are_those_of_autograd():
    cases, centre = [some_voxels(True, seed=i) for i in range(2)], some_map(True, full=True)
    (voxels,) = (own for *key, own in voxels_by_label(cases) if key == [1, 2])
    table = centre.coefficients()
    model, lowest = region_model(voxels, logits_of(centre, voxels.odds, 1, 2), table[1, 2])
    slope, more, _ = table[1, 2]
    np.testing.assert_allclose(lowest, [SMALLEST_SLOPE - slope, SMALLEST_SLOPE - slope - more, -np.inf])

    def loss_of(change):
        turned = torch.stack([change[0], change[1] - change[0], change[2]])  # log p = u - v, -log(1 - p) = v
        rows = torch.from_numpy(table)
        added = torch.zeros_like(rows).index_put((torch.tensor([1]), torch.tensor([2])), turned[None])
        return sum(torch_loss(case, rows + added) for case in cases) / 2

    compare([model], 2, loss_of, 3)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
def test_derivatives_of_affine_maps_are_those_of_autograd(regions, shifted):
    cases = [some_voxels(regions, seed=i) for i in range(2)]

    def loss_of(change):
        shift = change[1:] if shifted else 0 * change[1:]
        rows = torch.zeros(2 if regions else NUM + 1, NUM, 3 if regions else NUM + 2).double()
        slopes = (1 + change[0]) * (torch.tensor([1.0, 0]) if regions else torch.eye(NUM, NUM + 1)).double()
        rows = rows + torch.cat([slopes.expand(NUM, -1), shift[:, None]], 1)
        return sum(torch_loss(case, rows) for case in cases) / 2

    compare(affine_models(cases, shifted), 2, loss_of, 1 + NUM)


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
    own = voxels.by_label[2, 0]
    free, row = np.ones((2, 4), bool), identity.coefficients()[2]
    model, _ = class_model(own, logits_of(identity, own.odds, 2, None), free, row)
    for x in (np.zeros(8), np.full(8, 100.0)):
        loss, gradient = model.loss(x)
        assert np.isfinite(loss) and np.isfinite(gradient).all() and np.isfinite(model.hessian(x)).all()
