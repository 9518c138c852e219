"""The loss against loops, fits with known answers, and against scipy's optimisers with autograd's
derivatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from nnunet_nacl.calibration.fitting import (
    AFFINE_FORMS,
    SMALLEST_SLOPE,
    case_loss,
    fit_affine,
    fit_conditional,
)
from nnunet_nacl.calibration.log_odds import clip_log_odds
from nnunet_nacl.calibration.log_odds_map import LogOddsMap, map_from_tables
from nnunet_nacl.calibration.voxels import Voxels
from tests.calibration.problems import chosen, drawn_from, exact_for, identity

MATRICES = map_from_tables(
    [
        [[0.6, 0.2, 0.3], [-0.1, 0.9, -0.2]],
        [[1.1, -0.3, 0.1], [0.2, 0.7, 0.4]],
        [[0.8, 0.1, 0.0], [0.3, 1.2, -0.1]],
    ],
    [[-0.5, 0.3], [0.4, -1.0], [0.0, 0.7]],
)
REGIONS = map_from_tables(
    [[[0.6, 0.3], [1.5, -0.4]], [[1.2, 0.0], [0.5, 0.6]]], [[-0.5, 0.3], [0.4, -1.0]], True
)
IDENTITY = identity(2)
IDENTITY_REGIONS = identity(2, True)


NUM = 3


def some_voxels(
    regions: bool, weighted: bool = True, spread: float = 9.0, voxels: int = 200, seed: int = 0
) -> Voxels:
    """Some log-odds beyond the clipping, some of certain background; half of the truths are as
    predicted."""
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
        slopes = (
            np.concatenate([slopes[..., None], more], 2)
            if regions
            else more + slopes[..., None] * np.eye(NUM, 4)
        )
    return map_from_tables(slopes, rng.normal(size=(labels, NUM)), regions)


def torch_loss(voxels: Voxels, coefficients: torch.Tensor) -> torch.Tensor:
    """Mean loss under ``LogOddsMap.coefficients``, which autograd can derive."""
    odds, num, label = voxels.log_odds, len(voxels.log_odds), voxels.label.long()
    certain = odds.amax(0) <= np.log(1e-6)
    u = torch.where(certain, odds, clip_log_odds(odds, voxels.regions)).double()
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
def test_the_loss_is_that_of_torch(regions, weighted):
    voxels = some_voxels(regions, weighted)
    for calibration in (some_map(regions), some_map(regions, full=True)):
        expected = float(torch_loss(voxels, torch.from_numpy(calibration.coefficients())))
        assert case_loss(voxels, calibration) == pytest.approx(expected, rel=1e-9)


def objective_of(cases: list[Voxels], start: np.ndarray, ridge: float):
    """What a fit makes least, and its derivative by what is added to the centre; the ridge is on
    the distance to it, of a region on that of a and a + g."""

    def objective(change):
        leaf = torch.tensor(change.reshape(start.shape), requires_grad=True)
        regions = cases[0].regions
        away = (
            torch.stack([leaf[..., 0], leaf[..., 0] + leaf[..., 1], leaf[..., 2]])
            if regions
            else leaf
        )
        total = sum(torch_loss(voxels, torch.from_numpy(start) + leaf) for voxels in cases) / len(
            cases
        )
        total = total + ridge * (away**2).sum() / 2
        total.backward()
        return total.item(), leaf.grad.numpy().ravel()

    return objective


@pytest.mark.parametrize(
    "form, truth",
    [
        ("temperature", map_from_tables([0.4, 0.4], [0, 0])),
        ("temperature", map_from_tables([2.5, 2.5], [0, 0])),  # a temperature below 1
        ("shift", map_from_tables([0.7, 0.7], [-1, 0.5])),
        ("conditional", MATRICES),
    ],
)
def test_the_map_that_made_the_truth_is_found(form, truth):
    cases = exact_for(truth)
    found = (
        fit_affine(cases, form) if form in AFFINE_FORMS else fit_conditional(cases, IDENTITY, 1e-12)
    )
    assert found.is_affine == (form in AFFINE_FORMS)
    np.testing.assert_allclose(found.coefficients(), truth.coefficients(), atol=2e-4)


@pytest.mark.parametrize("truth, given", [(MATRICES, IDENTITY), (REGIONS, IDENTITY_REGIONS)])
@pytest.mark.parametrize("centred", [False, True])
def test_scipy_finds_the_same(truth, given, centred):
    cases, ridge = drawn_from(truth, cases=3, voxels=500), 1e-3
    if not truth.regions:  # a case without one of the labels
        cases[0] = Voxels(
            *(table[..., cases[0].label != 2] for table in list(vars(cases[0]).values())[:3])
        )
    centre = fit_affine(cases, "shift") if centred else given
    start, options = centre.coefficients(), {"gtol": 1e-9, "maxiter": 500}
    objective = objective_of(cases, start, ridge)
    expected = minimize(objective, np.zeros(start.size), jac=True, method="BFGS", options=options)
    found = fit_conditional(cases, centre, ridge)
    np.testing.assert_allclose(
        found.coefficients(), start + expected.x.reshape(start.shape), atol=1e-4
    )


@pytest.mark.parametrize("regions", [False, True])
def test_the_offset_of_a_structure_that_no_truth_has_stays(regions):
    cases = drawn_from(REGIONS if regions else MATRICES, cases=3, voxels=500)
    without = [
        replace(case, target=torch.stack([case.target[0], torch.zeros_like(case.target[0])]))
        if regions
        else Voxels(
            *(table[..., case.target != 2] for table in (case.log_odds, case.label, case.target))
        )
        for case in cases
    ]
    of_all, found = fit_affine(cases, "shift"), fit_affine(without, "shift")
    assert abs(of_all.coefficients()[0, 1, -1]) > 0.1
    assert found.coefficients()[0, 1, -1] == 0 != found.coefficients()[0, 0, -1]


def test_rare_structures_stay_and_only_the_most_probable_act_on_each_other():
    rng, num, voxels = np.random.default_rng(0), 9, 3000
    odds = torch.from_numpy(rng.normal(np.linspace(-1, -4, num)[:, None], 1.0, (num, voxels)))
    odds[-1] -= 30  # never probable
    label = chosen(odds, False)
    case = Voxels(odds, label, torch.from_numpy(rng.integers(0, num + 1, voxels)))
    found = fit_conditional([case, case], identity(num), 1e-3)
    rows = found.coefficients()[0]
    np.testing.assert_array_equal(rows[-1], np.eye(num, num + 2)[-1])
    crossed = np.argwhere((rows[:, :num] != 0) & ~np.eye(num, dtype=bool))
    assert set(crossed.ravel()) == set(range(6))
    assert (rows[:-1, num:] != 0).all()


def test_separable_and_reversed_classes_give_a_map_all_the_same():
    odds = torch.tensor([[2.0, -2.0]])
    separable = Voxels(odds, chosen(odds, True), torch.tensor([[True, False]]))
    assert 1 < fit_affine([separable], "shift").slopes.item() < 100
    assert (fit_conditional([separable], identity(1, True), 1e-3).slopes < 10).all()
    reversed_ = replace(separable, target=~separable.target)
    assert fit_affine([reversed_], "shift").slopes.item() == pytest.approx(SMALLEST_SLOPE)


@pytest.mark.parametrize("seed", range(2))
def test_slopes_at_their_bound_are_those_of_a_bounded_optimiser(seed):
    rng, num, ridge = np.random.default_rng(seed), 2 + seed % 2, 1e-4
    odds = torch.from_numpy(rng.normal(size=(num, num)) @ rng.normal(size=(num, 60)) - 1)
    voxels = Voxels(odds, chosen(odds, False), torch.from_numpy(rng.integers(0, num + 1, 60)))
    start = identity(num).coefficients()
    objective = objective_of([voxels], start, ridge)
    bounds = [(SMALLEST_SLOPE - 1 if value == 1 else None, None) for value in start.ravel()]
    options = {"maxiter": 5000, "maxfun": 50_000, "ftol": 1e-15, "gtol": 1e-9}
    best = minimize(
        objective, np.zeros(start.size), jac=True, bounds=bounds, method="L-BFGS-B", options=options
    )
    found = fit_conditional([voxels], identity(num), ridge)
    assert found.own_slopes.min() == pytest.approx(SMALLEST_SLOPE)
    assert objective(found.coefficients() - start)[0] <= best.fun + 1e-9


@pytest.mark.parametrize("regions", [False, True])
def test_certain_background_has_a_loss_but_no_part_in_the_fit(regions):
    odds = torch.full((NUM, 4), -14.0)
    label = torch.zeros((NUM, 4) if regions else 4, dtype=torch.long)
    target = label.clone()
    target[..., 0] = 1
    voxels = Voxels(odds, label, target)
    tiny = np.exp(-14)
    # each region is a case of its own; of the classes three share the rest
    true, rest = (
        (tiny / (1 + tiny), 1 / (1 + tiny))
        if regions
        else (tiny / (1 + 3 * tiny), 1 / (1 + 3 * tiny))
    )
    assert case_loss(voxels, some_map(regions)) == pytest.approx(
        -(np.log(true) + 3 * np.log(rest)) / 4, rel=1e-6
    )
    assert not voxels.by_label


def test_huge_log_odds_give_a_finite_loss_and_map():
    odds = torch.tensor([[65504.0, -65504.0, 0.0], [-65504.0, 65504.0, 65504.0]])
    voxels = Voxels(odds, chosen(odds, False), torch.tensor([2, 1, 0]))
    # u = (15, 0), (0, 15), (0, 15), each wrong by 15
    assert case_loss(voxels, IDENTITY) == pytest.approx(15 + np.log(1 + 2 * np.exp(-15)), rel=1e-6)
    assert np.isfinite(fit_conditional([voxels], IDENTITY, 1e-3).coefficients()).all()
