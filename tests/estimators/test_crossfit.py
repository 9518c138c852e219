"""Maps that are fitted without some of the cases, their scores, and the choice of the form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nnunet_nacl.estimators.crossfit import (
    PRIOR_FORM,
    RIDGES,
    CrossFit,
    choose,
    cross_fit,
    error_of_mean,
    score_forms,
)
from nnunet_nacl.estimators.fitting import case_loss, fit_conditional, fit_temperature
from nnunet_nacl.estimators.log_odds_map import LogOddsMap, map_from_tables
from nnunet_nacl.estimators.voxels import Voxels
from tests.estimators.problems import drawn_from, identity
from tests.estimators.test_fitting import MATRICES, REGIONS


def thirds(count: int) -> list[str]:
    """Three folds, to save time."""
    return [f"part_{i % 3}" for i in range(count)]


def fit_alone(cases: list[Voxels], fit: CrossFit) -> LogOddsMap:
    """The map of a form and ridge, fitted to these cases outside a cross-fit."""
    temperature = fit_temperature(cases)
    if fit.form == "temperature":
        return temperature
    return fit_conditional(cases, temperature, fit.ridge)


@pytest.mark.parametrize("truth", [MATRICES, REGIONS])
def test_every_form_and_strength_is_fitted_as_if_alone(truth):
    cases = drawn_from(truth, cases=6, voxels=200)
    folds = [f"fold_{i}" for i in range(6)]
    cases_of_others = cases[:3] + cases[4:]
    for fit in cross_fit(cases, folds):
        assert set(fit.fold_maps) == set(folds)
        of_all = fit_alone(cases, fit)
        np.testing.assert_allclose(fit.map.coefficients, of_all.coefficients, atol=1e-12)
        without_fold_3 = fit_alone(cases_of_others, fit)
        np.testing.assert_allclose(
            fit.fold_maps["fold_3"].coefficients, without_fold_3.coefficients, atol=1e-12
        )


@pytest.mark.parametrize("truth", [MATRICES, REGIONS])
def test_ridges_are_weakened_until_cases_left_out_do_worse(truth):
    cases = drawn_from(truth, cases=6, voxels=200)
    calls = []
    fits = cross_fit(cases, thirds(6), progress=lambda: calls.append(1))
    assert [fit.form for fit in fits[:2]] == ["temperature", "conditional"]
    ridges = tuple(fit.ridge for fit in fits[1:])
    assert ridges == RIDGES[: len(ridges)]
    losses = [fit.nll for fit in fits[1:]]
    assert losses[:-1] == sorted(losses[:-1], reverse=True)
    if len(ridges) < len(RIDGES):
        assert losses[-1] > losses[-2]
    assert len(calls) == 4 * len(fits)  # of all cases, and without each third


def test_fits_take_one_thread_and_give_the_others_back():
    cases = drawn_from(MATRICES, cases=6, voxels=200)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    seen = set()
    try:
        cross_fit(cases, thirds(6), progress=lambda: seen.add(torch.get_num_threads()))
        assert seen == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(num_threads)


def test_few_cases_keep_the_map_that_is_given():
    few = drawn_from(MATRICES, cases=6, voxels=150, seed=5)
    fits = cross_fit(few, thirds(6), prior_map=MATRICES)
    in_use = choose(fits)
    assert in_use.form == PRIOR_FORM
    assert math.isinf(in_use.ridge)
    assert in_use.map is MATRICES


def test_a_weaker_ridge_leads_farther_from_the_map_that_is_given():
    few = drawn_from(MATRICES, cases=6, voxels=150, seed=5)
    fits = cross_fit(few, thirds(6), prior_map=MATRICES)
    given = MATRICES.coefficients
    distances = [np.abs(fit.map.coefficients - given).max() for fit in fits[2:]]
    assert distances == sorted(distances)
    assert distances[0] > 0


def test_cases_of_another_population_leave_the_map_that_is_given():
    shifted = LogOddsMap(MATRICES.coefficients + [[0, 0, 0, 1.5], [0, 0, 0, -1.5]])
    cases = drawn_from(shifted, cases=9, voxels=2000)
    assert choose(cross_fit(cases, thirds(9), prior_map=MATRICES)).form == "conditional"


def test_scores_are_of_the_cases_left_out():
    cases = drawn_from(MATRICES, cases=8, voxels=300)
    folds = thirds(8)
    fits = cross_fit(cases, folds)
    rows = []
    for fit in fits:
        rows.append([case_loss(case, fit.fold_maps[fold]) for case, fold in zip(cases, folds)])
    losses = np.array(rows)
    excesses = losses - losses[losses.mean(1).argmin()]
    for score, loss, excess in zip(score_forms(fits), losses, excesses):
        standard_error = excess.std(ddof=1) / np.sqrt(8)
        assert score.nll == pytest.approx(loss.mean(), rel=1e-12)
        assert score.excess == pytest.approx(excess.mean(), abs=1e-12)
        assert score.standard_error == pytest.approx(standard_error, abs=1e-12)


def test_cases_that_come_twice_do_not_lower_the_standard_error():
    cases = drawn_from(map_from_tables([0.7], [0.5]), cases=6, voxels=300)
    patients = [str(i) for i in range(6)]
    once = cross_fit(cases, thirds(6), groups=patients)
    twice = cross_fit(cases * 2, thirds(6) * 2, groups=patients * 2)
    assert score_forms(once)[0].standard_error > 0
    for score, again in zip(score_forms(once), score_forms(twice)):
        expected = pytest.approx(score.standard_error, rel=1e-2, abs=1e-9)
        assert again.standard_error == expected


def test_the_standard_error_of_a_mean_by_hand():
    values = np.array([1.0, 3.0, 8.0])  # variance 13
    assert error_of_mean(values, np.arange(3)) == pytest.approx(np.sqrt(13 / 3))
    assert np.isnan(error_of_mean(values, np.zeros(3)))  # of one patient


def fit_with_losses(form: str, losses: list[float], ridge: float = 1e-6) -> CrossFit:
    """A fit of which the NLL of each case, all of other patients, is known."""
    return CrossFit(form, ridge, identity(1), {}, np.array(losses), np.arange(len(losses)))


BEST = fit_with_losses("conditional", [0.1, 0.1], 1e-3)
BARELY_WORSE = fit_with_losses("conditional", [0.1, 0.12], 1e-2)  # by .01 +- .01
CLEARLY_WORSE = fit_with_losses("temperature", [0.15, 0.14])  # by .045 +- .005


def test_a_ridge_within_one_standard_error_of_the_best_is_chosen_before_weaker_ones():
    assert choose([CLEARLY_WORSE, BARELY_WORSE, BEST]) is BARELY_WORSE


def test_the_best_is_chosen_where_what_has_less_freedom_is_clearly_worse():
    weaker = fit_with_losses("conditional", [0.0, 0.21], 1e-4)  # by .005 +- .105
    assert choose([CLEARLY_WORSE, BEST, weaker]) is BEST


def test_the_temperature_is_chosen_where_it_is_barely_worse():
    temperature = fit_with_losses("temperature", [0.1, 0.12])
    assert choose([temperature, BEST]) is temperature


def test_a_given_map_stands_in_for_the_temperature():
    given = fit_with_losses(PRIOR_FORM, [0.1, 0.12], math.inf)
    temperature = fit_with_losses("temperature", [0.1, 0.1])
    assert choose([temperature, given, BEST]) is given


def test_one_patient_shows_no_standard_error_and_the_best_is_chosen():
    temperature = fit_with_losses("temperature", [0.11])
    conditional = fit_with_losses("conditional", [0.1])
    assert choose([temperature, conditional]) is conditional


def test_a_form_that_is_asked_for_has_its_best_ridge():
    fits = [CLEARLY_WORSE, BARELY_WORSE, BEST]
    assert choose(fits, "temperature") is CLEARLY_WORSE
    assert choose(fits, "conditional") is BEST
