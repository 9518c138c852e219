"""The loss against loops, fits with known answers, and against scipy's optimisers with autograd's
derivatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, minimize
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from nnunet_nacl.estimators.fitting import (
    SMALLEST_SLOPE,
    case_loss,
    fit_conditional,
    fit_temperature,
)
from nnunet_nacl.estimators.log_odds import clip_log_odds
from nnunet_nacl.estimators.log_odds_map import LogOddsMap, count_map_labels, map_from_tables
from nnunet_nacl.estimators.voxels import Voxels
from tests.estimators.problems import chosen, drawn_from, exact_for, identity, keep_voxels

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


def some_voxels(regions: bool, weighted: bool) -> Voxels:
    """Some log-odds beyond the clipping, some of certain background; half of the truths are as
    predicted."""
    num_voxels = 200
    rng = np.random.default_rng(0)
    odds = torch.from_numpy(rng.normal(-2, 9.0, (NUM, num_voxels)).astype(np.float32))
    odds[:, :20] -= 20
    label = chosen(odds, regions)
    any_label = torch.from_numpy(rng.integers(0, count_map_labels(NUM, regions), label.shape))
    is_as_predicted = torch.from_numpy(rng.random(label.shape) < 0.5)
    target = torch.where(is_as_predicted, label, any_label)
    weights = None
    if weighted:
        weights = torch.from_numpy(rng.uniform(0.5, 9, num_voxels))
    return Voxels(odds, label, target, weights)


def some_map(regions: bool, full: bool = False) -> LogOddsMap:
    """A map of random slopes; a full one with cross terms, and those of v."""
    num_labels = count_map_labels(NUM, regions)
    rng = np.random.default_rng(1)
    slopes = rng.uniform(0.4, 1.4, (num_labels, NUM))
    if full and regions:
        slopes_of_v = rng.uniform(-0.3, 0.3, (num_labels, NUM, 1))
        slopes = np.concatenate([slopes[..., None], slopes_of_v], 2)
    elif full:
        other_slopes = rng.uniform(-0.3, 0.3, (num_labels, NUM, NUM + 1))
        slopes = other_slopes + slopes[..., None] * np.eye(NUM, NUM + 1)
    return map_from_tables(slopes, rng.normal(size=(num_labels, NUM)), regions)


def torch_loss(voxels: Voxels, coefficients: torch.Tensor) -> torch.Tensor:
    """Mean loss under ``LogOddsMap.coefficients``, which autograd can derive."""
    odds = voxels.log_odds
    is_certain = odds.amax(0) <= np.log(1e-6)
    u = torch.where(is_certain, odds, clip_log_odds(odds, voxels.regions)).double()
    if voxels.regions:
        u = torch.where(is_certain, u, calibrate_regions(u, voxels.label.long(), coefficients))
        target = voxels.target.double()
        loss = binary_cross_entropy_with_logits(u, target, reduction="none").mean(0)
    else:
        u = torch.where(is_certain, u, calibrate_classes(u, voxels.label.long(), coefficients))
        logits = torch.cat([torch.zeros_like(u[:1]), u])
        loss = cross_entropy(logits.T, voxels.target.long(), reduction="none")
    weights = voxels.all_weights
    return (loss * weights).sum() / weights.sum()


def calibrate_regions(
    u: torch.Tensor, label: torch.Tensor, coefficients: torch.Tensor
) -> torch.Tensor:
    """(R, N) a_r u_r + g_r v_r + b_r, v_r = log(1 + exp u_r), by whether r is the label."""
    v = torch.log1p(u.exp())
    calibrated = []
    for region in range(len(u)):
        slope, slope_of_v, offset = coefficients[label[region], region].T
        calibrated.append(slope * u[region] + slope_of_v * v[region] + offset)
    return torch.stack(calibrated)


def calibrate_classes(
    u: torch.Tensor, label: torch.Tensor, coefficients: torch.Tensor
) -> torch.Tensor:
    """(C - 1, N) sum_j a_kj u_j + g_k v + b_k of each voxel's label, v = log(1 + sum_j exp u_j)."""
    v = torch.log1p(u.exp().sum(0, keepdim=True))
    features = torch.cat([u, v, torch.ones_like(v)])
    return torch.einsum("nkf,fn->kn", coefficients[label], features)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_that_of_torch(regions, weighted):
    voxels = some_voxels(regions, weighted)
    for calibration in (some_map(regions), some_map(regions, full=True)):
        expected = float(torch_loss(voxels, torch.from_numpy(calibration.coefficients)))
        assert case_loss(voxels, calibration) == pytest.approx(expected, rel=1e-9)


def objective_of(cases: list[Voxels], start: np.ndarray, ridge: float):
    """What a fit makes least, and its derivative by what is added to ``start``."""

    def objective(change):
        leaf = torch.tensor(change.reshape(start.shape), requires_grad=True)
        coefficients = torch.from_numpy(start) + leaf
        losses = [torch_loss(voxels, coefficients) for voxels in cases]
        distance = squared_distance(leaf, cases[0].regions)
        total = torch.stack(losses).mean() + ridge * distance / 2
        total.backward()
        return total.item(), leaf.grad.numpy().ravel()

    return objective


def squared_distance(change: torch.Tensor, regions: bool) -> torch.Tensor:
    """What the ridge is on; of a region that of its slopes far out and far in, a and a + g."""
    if regions:
        slope, slope_of_v, offset = change.unbind(-1)
        change = torch.stack([slope, slope + slope_of_v, offset])
    return (change**2).sum()


@pytest.mark.parametrize("slope", [0.4, 2.5])  # a temperature above 1, and one below
def test_the_temperature_that_made_the_truth_is_found(slope):
    truth = map_from_tables([slope, slope], [0, 0])
    found = fit_temperature(exact_for(truth))
    assert found.is_affine
    np.testing.assert_allclose(found.coefficients, truth.coefficients, atol=2e-4)


def test_the_conditional_map_that_made_the_truth_is_found():
    found = fit_conditional(exact_for(MATRICES), IDENTITY, 1e-12)
    assert not found.is_affine
    np.testing.assert_allclose(found.coefficients, MATRICES.coefficients, atol=2e-4)


@pytest.mark.parametrize("truth, unchanged", [(MATRICES, IDENTITY), (REGIONS, IDENTITY_REGIONS)])
@pytest.mark.parametrize("prior", ["identity", "temperature"])
def test_scipy_finds_the_same(truth, unchanged, prior):
    ridge = 1e-3
    cases = drawn_from(truth, cases=3, voxels=500)
    if not truth.regions:  # a case without one of the labels
        cases[0] = keep_voxels(cases[0], cases[0].label != 2)
    prior_map = unchanged
    if prior == "temperature":
        prior_map = fit_temperature(cases)
    start = prior_map.of_every_label()
    options = {"gtol": 1e-9, "maxiter": 500}
    objective = objective_of(cases, start, ridge)
    best = minimize(objective, np.zeros(start.size), jac=True, method="BFGS", options=options)
    expected = start + best.x.reshape(start.shape)
    found = fit_conditional(cases, prior_map, ridge)
    np.testing.assert_allclose(found.coefficients, expected, atol=1e-4)


def without_second_structure(case: Voxels) -> Voxels:
    """The case, but no truth has the second of its structures."""
    if case.regions:
        target = torch.stack([case.target[0], torch.zeros_like(case.target[0])])
        return replace(case, target=target)
    return keep_voxels(case, case.target != 2)


@pytest.mark.parametrize("truth, unchanged", [(MATRICES, IDENTITY), (REGIONS, IDENTITY_REGIONS)])
def test_the_row_of_a_structure_that_no_truth_has_stays(truth, unchanged):
    cases = drawn_from(truth, cases=3, voxels=500)
    found = fit_conditional([without_second_structure(case) for case in cases], unchanged, 1e-3)
    first_row, second_row = found.coefficients.swapaxes(0, 1)
    prior_rows = unchanged.of_every_label().swapaxes(0, 1)
    np.testing.assert_array_equal(second_row, prior_rows[1])
    assert (first_row[:, -1] != prior_rows[0, :, -1]).all()


def test_rare_structures_stay_and_only_the_most_probable_act_on_each_other():
    num = 9
    num_voxels = 3000
    rng = np.random.default_rng(0)
    mean_odds = np.linspace(-1, -4, num)[:, None]
    odds = torch.from_numpy(rng.normal(mean_odds, 1.0, (num, num_voxels)))
    odds[-1] -= 30  # never probable
    target = torch.from_numpy(rng.integers(0, num + 1, num_voxels))
    case = Voxels(odds, chosen(odds, False), target)
    found = fit_conditional([case, case], identity(num), 1e-3)
    rows = found.coefficients[0]
    np.testing.assert_array_equal(rows[-1], np.eye(num, num + 2)[-1])
    is_cross_term = ~np.eye(num, dtype=bool)
    crossed = np.argwhere((rows[:, :num] != 0) & is_cross_term)
    assert set(crossed.ravel()) == set(range(6))
    assert (rows[:-1, num:] != 0).all()


def test_separable_and_reversed_classes_give_a_map_all_the_same():
    odds = torch.tensor([[2.0, -2.0]])
    separable = Voxels(odds, chosen(odds, True), torch.tensor([[True, False]]))
    assert 1 < fit_temperature([separable]).own_slopes.item() < 100
    assert fit_conditional([separable], identity(1, True), 1e-3).own_slopes.max() < 10
    reversed_truth = replace(separable, target=~separable.target)
    slope = fit_temperature([reversed_truth]).own_slopes.item()
    assert slope == pytest.approx(SMALLEST_SLOPE)


@pytest.mark.parametrize("seed", range(2))
def test_slopes_at_their_bound_are_those_of_a_bounded_optimiser(seed):
    num = 2 + seed % 2
    num_voxels = 60
    ridge = 1e-4
    rng = np.random.default_rng(seed)
    mixture = rng.normal(size=(num, num))
    odds = torch.from_numpy(mixture @ rng.normal(size=(num, num_voxels)) - 1)
    target = torch.from_numpy(rng.integers(0, num + 1, num_voxels))
    voxels = Voxels(odds, chosen(odds, False), target)
    start = identity(num).of_every_label()
    objective = objective_of([voxels], start, ridge)
    is_own_slope = start.ravel() == 1
    bounds = Bounds(np.where(is_own_slope, SMALLEST_SLOPE - 1, -np.inf))
    options = {"maxiter": 5000, "maxfun": 50_000, "ftol": 1e-15, "gtol": 1e-9}
    best = minimize(
        objective, np.zeros(start.size), jac=True, bounds=bounds, method="L-BFGS-B", options=options
    )
    found = fit_conditional([voxels], identity(num), ridge)
    assert found.own_slopes.min() == pytest.approx(SMALLEST_SLOPE)
    assert objective(found.coefficients - start)[0] <= best.fun + 1e-9


@pytest.mark.parametrize(
    "regions, shape, num_sharing",
    [
        (False, (4,), 3),  # of the classes three share the probability with the background
        (True, (NUM, 4), 1),  # each region is a case of its own
    ],
)
def test_certain_background_has_a_loss_but_no_part_in_the_fit(regions, shape, num_sharing):
    odds = torch.full((NUM, 4), -14.0)
    label = torch.zeros(shape, dtype=torch.long)
    target = label.clone()
    target[..., 0] = 1
    voxels = Voxels(odds, label, target)
    sum_of_odds = 1 + num_sharing * np.exp(-14)
    log_p_structure = -14 - np.log(sum_of_odds)
    log_p_background = -np.log(sum_of_odds)
    expected = -(log_p_structure + 3 * log_p_background) / 4
    assert case_loss(voxels, some_map(regions)) == pytest.approx(expected, rel=1e-6)
    assert not voxels.by_label


def test_huge_log_odds_give_a_finite_loss_and_map():
    odds = torch.tensor([[65504.0, -65504.0, 0.0], [-65504.0, 65504.0, 65504.0]])
    voxels = Voxels(odds, chosen(odds, False), torch.tensor([2, 1, 0]))
    # u = (15, 0), (0, 15), (0, 15), each wrong by 15
    expected = 15 + np.log(1 + 2 * np.exp(-15))
    assert case_loss(voxels, IDENTITY) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(fit_conditional([voxels], IDENTITY, 1e-3).coefficients).all()
