"""Fits with known answers, and against scipy's optimisers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.fitting import FORMS, RIDGE, SMALLEST_SLOPE, design, fit
from nnunet_nacl.calibration.likelihood import Voxels, case_terms
from tests.calibration.problems import drawn_from, exact_for
from tests.calibration.test_likelihood import reference


def one_region(odds, inside, weights):
    return Voxels(torch.tensor([odds]), torch.tensor([inside]), torch.tensor(weights, dtype=torch.float64))


def test_two_kinds_of_voxel_by_hand():
    # log-odds 1 and -1, right three times in four: the slope must make sigmoid(a) = 3/4, so a = log 3
    voxels = one_region([1.0, 1.0, -1.0, -1.0], [True, False, False, True], [3, 1, 3, 1])
    assert fit(lambda: [voxels], "temperature", ridge=0.0)[0].map.slopes == pytest.approx([np.log(3)])
    # log-odds 1 and 0, right three times in four and one in two: b = 0 and a = log 3
    voxels = one_region([1.0, 1.0, 0.0, 0.0], [True, False, True, False], [3, 1, 1, 1])
    found = fit(lambda: [voxels], "logodds", ridge=0.0)[0]
    assert found.map.slopes == pytest.approx([np.log(3)]) and found.map.offsets == pytest.approx([0], abs=1e-6)


@pytest.mark.parametrize(
    "form, slopes, offsets",
    [
        ("temperature", [0.4, 0.4], [0, 0]),
        ("temperature", [2.5, 2.5], [0, 0]),  # a temperature below 1
        ("shift", [0.7, 0.7], [-1, 0.5]),
        ("logodds", [0.5, 1.3], [-1, 0.5]),
    ],
)
def test_the_map_that_made_the_truth_is_found(form, slopes, offsets):
    truth = AffineMap(slopes, offsets)
    found = fit(lambda: exact_for(truth), form, ridge=0.0)[0]
    np.testing.assert_allclose(found.parameters, np.r_[slopes, offsets], atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("regions", [False, True])
def test_scipy_finds_the_same(form, regions):
    cases = drawn_from(AffineMap([0.6, 1.8], [0.5, -1], regions), cases=3, voxels=500)
    matrix, num_slopes = design(form, 2)
    centre = np.r_[np.ones(num_slopes), np.zeros(matrix.shape[1] - num_slopes)]

    def objective(free):
        full = torch.from_numpy(matrix @ free)
        loss = np.mean([float(reference(voxels, full)) for voxels in cases])
        return loss + RIDGE * float((free - centre) @ (free - centre)) / 2

    expected = minimize(
        objective, centre, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-13, "maxiter": 9999}
    )
    found = fit(lambda: cases, form)[0]
    np.testing.assert_allclose(found.parameters, matrix @ expected.x, atol=1e-4)


def test_cases_weigh_the_same_whatever_their_size():
    small, large = drawn_from(AffineMap([0.5], [0.3], True), cases=2, voxels=300)
    more = Voxels(large.log_odds.repeat(1, 7), large.target.repeat(1, 7))
    once, often = (fit(lambda c=c: c, "shift")[0].parameters for c in ([small, large], [small, more]))
    np.testing.assert_allclose(once, often, atol=1e-6)


def test_separable_and_reversed_classes_give_a_map_all_the_same():
    separable = one_region([2.0, -2.0], [True, False], [1, 1])
    assert 1 < fit(lambda: [separable], "logodds")[0].map.slopes[0] < 100
    reversed_ = one_region([2.0, -2.0], [False, True], [1, 1])
    assert fit(lambda: [reversed_], "shift")[0].map.slopes[0] == pytest.approx(SMALLEST_SLOPE)


@pytest.mark.parametrize("seed", [2, 3, 26])  # with two, three and two structures a step leads through a bound
def test_slopes_at_their_bound_are_those_of_a_bounded_optimiser(seed):
    rng, num = np.random.default_rng(seed), 2 + seed % 2
    odds = rng.normal(size=(num, num)) @ rng.normal(size=(num, 30)) - 1
    voxels = Voxels(torch.from_numpy(odds), torch.from_numpy(rng.integers(0, num + 1, 30)))
    centre = np.repeat([1.0, 0.0], num)

    def objective(theta):
        terms = case_terms(voxels, theta)
        return terms.loss + RIDGE * ((theta - centre) ** 2).sum() / 2, terms.gradient + RIDGE * (theta - centre)

    bounds = [(SMALLEST_SLOPE, None)] * num + [(None, None)] * num
    best = minimize(objective, centre, jac=True, bounds=bounds, tol=1e-14)
    found = fit(lambda: [voxels], "logodds")[0]
    assert found.map.slopes.min() == SMALLEST_SLOPE
    np.testing.assert_allclose(found.parameters, best.x, atol=1e-3)


def test_a_fit_that_leaves_cases_out_never_sees_them():
    cases = drawn_from(AffineMap([0.5, 0.5], [0.3, 0]), cases=5, voxels=500)
    out = np.array([True, False, False, True, False])
    both = fit(lambda: cases, "shift", left_out=[None, out], starts=[None, AffineMap([2, 2], [1, 1])])
    alone = fit(lambda: [c for c, gone in zip(cases, out) if not gone], "shift")[0]
    np.testing.assert_allclose(both[1].parameters, alone.parameters, atol=1e-5)
    assert np.abs(both[0].parameters - alone.parameters).max() > 1e-3


def test_standard_errors_are_those_of_the_jackknife_over_groups():
    rng = np.random.default_rng(3)
    cases = [
        drawn_from(AffineMap([a], [b], True), cases=1, voxels=400, seed=i)[0]
        for i, (a, b) in enumerate(rng.normal([1, 0], [0.2, 0.5], (40, 2)))
    ]
    groups = [i // 2 for i in range(40)]
    found = fit(lambda: cases, "shift", groups=groups)[0]
    masks = [np.array(groups) == g for g in range(20)]
    each = np.array([one.parameters for one in fit(lambda: cases, "shift", left_out=masks)])
    jackknife = np.sqrt(19 / 20 * ((each - each.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(found.standard_errors, jackknife, rtol=0.15)


def test_nothing_to_fit_to():
    with pytest.raises(ValueError, match="no case"):
        fit(lambda: [], "shift")
    with pytest.raises(ValueError, match="form must be"):
        design("beta", 2)
