"""Fits with known answers, and against scipy's optimisers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.fitting import AFFINE_FORMS, FORMS, RIDGE, SMALLEST_SLOPE, Fit, covariance_of_mean, fit
from nnunet_nacl.calibration.likelihood import Voxels, case_loss, case_terms
from tests.calibration.problems import chosen, drawn_from, exact_for
from tests.calibration.test_likelihood import torch_loss

CONDITIONAL = CalibrationMap([[0.6, 1.5], [0.8, 0.4], [1.2, 2.0]], [[-0.5, 0.3], [0.4, -1.0], [0.0, 0.7]])
MATRICES = CalibrationMap(
    [
        [[0.6, 0.2, 0.3], [-0.1, 0.9, -0.2]],
        [[1.1, -0.3, 0.1], [0.2, 0.7, 0.4]],
        [[0.8, 0.1, 0.0], [0.3, 1.2, -0.1]],
    ],
    CONDITIONAL.offsets,
)
CONDITIONAL_REGIONS = CalibrationMap([[0.6, 1.5], [1.2, 0.5]], [[-0.5, 0.3], [0.4, -1.0]], regions=True)


def one_region(odds, inside, weights):
    odds = torch.tensor([odds])
    return Voxels(odds, chosen(odds, True), torch.tensor([inside]), torch.tensor(weights, dtype=torch.float64))


def numbers(found: Fit | CalibrationMap) -> np.ndarray:
    calibration = found.map if isinstance(found, Fit) else found
    return np.concatenate([calibration.slopes.reshape(len(calibration.slopes), -1), calibration.offsets], 1)


def free_of(form: str, num_labels: int) -> np.ndarray:
    """(slopes, offsets of two structures of the first label, of the second, ...) = matrix @ what a form leaves free."""
    if form == "conditional":
        return np.eye(num_labels * 4)
    one = np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    return np.tile(one[:, :1] if form == "temperature" else one, (num_labels, 1))


def test_two_kinds_of_voxel_by_hand():
    # log-odds 1 and -1, right three times in four: the slope must make sigmoid(a) = 3/4, so a = log 3
    voxels = one_region([1.0, 1.0, -1.0, -1.0], [True, False, False, True], [3, 1, 3, 1])
    assert fit([voxels], "temperature", ridge=0.0).map.slopes.item() == pytest.approx(np.log(3), abs=1e-5)
    # log-odds 1 and 0, right three times in four and one in two: b = 0 and a = log 3
    voxels = one_region([1.0, 1.0, 0.0, 0.0], [True, False, True, False], [3, 1, 1, 1])
    found = fit([voxels], "shift", ridge=0.0).map
    np.testing.assert_allclose([found.slopes.item(), found.offsets.item()], [np.log(3), 0], atol=1e-5)


def test_two_kinds_of_voxel_of_each_label_by_hand():
    # in: log-odds 1 and 2 with odds 2 and 6 in truth, so a = log 3, b = log 2 - log 3;
    # out: log-odds -1 and -3 with odds 1/2 and 1/8, so a = log 2, b = 0
    odds = np.repeat([1.0, 2.0, -1.0, -3.0], 2).tolist()
    voxels = one_region(odds, [True, False] * 4, [2, 1, 6, 1, 1, 2, 1, 8])
    found = fit([voxels], "conditional", ridge=1e-12).map
    np.testing.assert_allclose(found.slopes, np.log([[2], [3]]), atol=1e-6)
    np.testing.assert_allclose(found.offsets, np.log([[1], [2 / 3]]), atol=1e-6)


@pytest.mark.parametrize(
    "form, truth",
    [
        ("temperature", CalibrationMap([0.4, 0.4], [0, 0])),
        ("temperature", CalibrationMap([2.5, 2.5], [0, 0])),  # a temperature below 1
        ("shift", CalibrationMap([0.7, 0.7], [-1, 0.5])),
        ("conditional", CONDITIONAL),
        ("conditional", CalibrationMap([[0.7], [1.8]], [[0.5], [-0.5]])),  # two classes
        ("matrix", MATRICES),
    ],
)
def test_the_map_that_made_the_truth_is_found(form, truth):
    found = fit(exact_for(truth), form, ridge=1e-12)
    assert found.map.is_affine == (form in AFFINE_FORMS)
    np.testing.assert_allclose(numbers(found), numbers(truth), atol=1e-5)


@pytest.mark.parametrize("truth", [CONDITIONAL, CONDITIONAL_REGIONS])
def test_simulated_slopes_and_offsets_of_each_label_are_found_within_their_errors(truth):
    found = fit(drawn_from(truth, cases=20, voxels=4000, seed=3), "conditional")
    errors = np.concatenate(list(found.standard_errors), 1)
    away = (numbers(found) - numbers(truth)) / errors
    assert np.abs(away).max() < 4 and 0.5 < np.sqrt((away**2).mean()) < 1.7
    assert errors.max() < 0.2


@pytest.mark.parametrize("form", FORMS[:3])
@pytest.mark.parametrize("truth", [CONDITIONAL, CONDITIONAL_REGIONS])
@pytest.mark.parametrize("ridge", [RIDGE, 1e-2])
def test_scipy_finds_the_same(form, truth, ridge):
    cases = drawn_from(truth, cases=3, voxels=500)
    if not truth.regions:  # a case without one of the labels
        keep = cases[0].label != 2
        cases[0] = Voxels(cases[0].log_odds[:, keep], cases[0].label[keep], cases[0].target[keep])
    matrix = torch.from_numpy(free_of(form, truth.num_labels))
    centre = np.linalg.lstsq(matrix.numpy(), np.tile([1.0, 1, 0, 0], truth.num_labels), rcond=None)[0]

    def objective(free):
        leaf = torch.tensor(free, requires_grad=True)
        rows = (matrix @ leaf).view(truth.num_labels, -1)
        loss = sum(torch_loss(voxels, rows) for voxels in cases) / len(cases)
        total = loss + ridge * ((leaf - torch.from_numpy(centre)) ** 2).sum() / 2
        total.backward()
        return total.item(), leaf.grad.numpy()

    expected = minimize(objective, centre, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 500})
    found = fit(cases, form, ridge=ridge)
    rows = np.broadcast_to(numbers(found), (truth.num_labels, 4))
    np.testing.assert_allclose(rows.ravel(), matrix.numpy() @ expected.x, atol=1e-4)
    assert found.loss == pytest.approx(np.mean([case_loss(one, *found.map.tables()) for one in cases]), abs=1e-12)


@pytest.mark.parametrize("truth", [CONDITIONAL, CONDITIONAL_REGIONS])
def test_each_form_holds_the_one_before(truth):
    cases = drawn_from(truth, cases=4, voxels=1000)
    identity = CalibrationMap.identity(2, truth.regions)
    before = np.mean([case_loss(one, *identity.tables()) for one in cases])
    losses = [fit(cases, form, ridge=1e-9).loss for form in FORMS[: 3 if truth.regions else 4]]
    assert losses == sorted(losses, reverse=True) and losses[0] < before
    drawn = fit(drawn_from(truth, cases=4, voxels=1000), "conditional", start=fit(cases, "shift").map, ridge=1e-9)
    np.testing.assert_allclose(numbers(drawn), numbers(fit(cases, "conditional", ridge=1e-9)), atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_ridge_pulls_towards_the_identity(form):
    cases = drawn_from(CONDITIONAL, cases=3, voxels=1000)
    matrices = np.tile([1, 0, 0, 0, 1, 0, 0, 0], (3, 1))
    identity = matrices if form == "matrix" else numbers(CalibrationMap.identity(2))
    away = [np.abs(numbers(fit(cases, form, ridge=ridge)) - identity).max() for ridge in (1e-6, 1e-3, 1e-1, 1e3)]
    assert away == sorted(away, reverse=True) and away[0] > 0.1 and away[-1] < 1e-3


def test_a_label_that_nobody_has_keeps_the_identity():
    cases = []
    for one in drawn_from(CONDITIONAL, cases=3, voxels=500):
        keep = one.label != 1
        cases.append(Voxels(one.log_odds[:, keep], one.label[keep], one.target[keep]))
    found = fit(cases, "conditional", ridge=1e-3)
    np.testing.assert_allclose(numbers(found)[1], [1, 1, 0, 0], atol=1e-12)
    assert np.abs(numbers(found)[[0, 2]] - [1, 1, 0, 0]).max() > 0.1


def test_rows_of_a_poorer_form_stand_in():
    cases = drawn_from(CONDITIONAL, cases=3, voxels=500)
    shift, rich = fit(cases, "shift"), fit(cases, "conditional", ridge=1e-3)
    places = np.zeros((3, 2), bool)
    assert rich.with_rows_of(shift, places, cases) is rich
    places[1] = True
    mixed = rich.with_rows_of(shift, places, cases)
    np.testing.assert_array_equal(numbers(mixed)[1], numbers(shift)[0])
    np.testing.assert_array_equal(numbers(mixed)[[0, 2]], numbers(rich)[[0, 2]])
    for own, poorer in zip(mixed.standard_errors, shift.standard_errors):
        np.testing.assert_array_equal(own[1], poorer[0])
    assert mixed.fell_back == (1,) and shift.with_rows_of(shift, places, cases) is shift
    assert mixed.loss == pytest.approx(np.mean([case_loss(one, *mixed.map.tables()) for one in cases]), rel=1e-12)
    assert rich.loss < mixed.loss < shift.loss


def test_cases_weigh_the_same_whatever_their_size():
    small, large = drawn_from(CalibrationMap([0.5], [0.3], True), cases=2, voxels=300)
    more = Voxels(large.log_odds.repeat(1, 7), large.label.repeat(1, 7), large.target.repeat(1, 7))
    for form in ("shift", "conditional"):
        once, often = (numbers(fit(cases, form)) for cases in ([small, large], [small, more]))
        np.testing.assert_allclose(once, often, atol=1e-6)


def test_separable_and_reversed_classes_give_a_map_all_the_same():
    separable = one_region([2.0, -2.0], [True, False], [1, 1])
    assert 1 < fit([separable], "shift").map.slopes.item() < 100
    assert (fit([separable], "conditional", ridge=1e-3).map.slopes < 10).all()
    reversed_ = one_region([2.0, -2.0], [False, True], [1, 1])
    assert fit([reversed_], "shift").map.slopes.item() == pytest.approx(SMALLEST_SLOPE)


@pytest.mark.parametrize("seed", range(12))
def test_slopes_at_their_bound_are_those_of_a_bounded_optimiser(seed):
    rng, num, ridge = np.random.default_rng(seed), 2 + seed % 2, 1e-4
    odds = torch.from_numpy(rng.normal(size=(num, num)) @ rng.normal(size=(num, 60)) - 1)
    voxels = Voxels(odds, chosen(odds, False), torch.from_numpy(rng.integers(0, num + 1, 60)))
    shape = num + 1, 2 * num
    centre = np.tile(np.repeat([1.0, 0.0], num), num + 1)

    def objective(free):
        rows = free.reshape(shape)
        terms = case_terms(voxels, rows[:, :num], rows[:, num:])
        away = free - centre
        return terms.loss + ridge * (away**2).sum() / 2, terms.gradient.ravel() + ridge * away

    bounds = ([(SMALLEST_SLOPE, None)] * num + [(None, None)] * num) * (num + 1)
    options = {"maxiter": 5000, "maxfun": 50_000, "ftol": 1e-15, "gtol": 1e-9}
    best = minimize(objective, centre, jac=True, bounds=bounds, method="L-BFGS-B", options=options)
    found = fit([voxels], "conditional", ridge=ridge)
    assert found.map.slopes.min() == SMALLEST_SLOPE
    assert objective(numbers(found).ravel())[0] <= best.fun + 1e-9
    np.testing.assert_allclose(numbers(found), best.x.reshape(shape), atol=5e-3)


@pytest.mark.parametrize("form", ["shift", "conditional"])
def test_standard_errors_are_those_of_the_jackknife_over_groups(form):
    rng = np.random.default_rng(3)
    cases = [
        drawn_from(CalibrationMap([a], [b], True), cases=1, voxels=400, seed=i)[0]
        for i, (a, b) in enumerate(rng.normal([1, 0], [0.2, 0.5], (30, 2)))
    ]
    groups = [i // 2 for i in range(30)]
    found = fit(cases, form, groups=groups)
    each = [fit([c for c, g in zip(cases, groups) if g != out], form, start=found.map) for out in range(15)]
    away = np.array([numbers(one) for one in each])
    jackknife = np.sqrt(14 / 15 * ((away - away.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(np.concatenate(list(found.standard_errors), 1), jackknife, rtol=0.25)


def test_the_covariance_of_a_mean_takes_a_group_as_one_draw():
    values = np.array([[1.0], [3.0], [8.0]])
    # variance 13 over 3
    assert covariance_of_mean(values).item() == pytest.approx(13 / 3)
    assert covariance_of_mean(np.repeat(values, 2, 0), list("aabbcc")).item() == pytest.approx(13 / 3)
    assert np.isnan(covariance_of_mean(values, ["a"] * 3)).all()


def test_nothing_to_fit_to():
    with pytest.raises(ValueError, match="no case"):
        fit([], "shift")
    with pytest.raises(ValueError, match="form must be"):
        fit(drawn_from(CONDITIONAL, cases=1, voxels=9), "beta")
