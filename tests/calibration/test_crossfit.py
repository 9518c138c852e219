"""Parts of cases, groups of patients, and the choice of the form."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nnunet_nacl.calibration.crossfit import (
    STRENGTHS,
    CrossFit,
    FormScore,
    choose,
    cross_fit,
    error_of_mean,
)
from nnunet_nacl.calibration.fitting import (
    AFFINE_FORMS,
    FORMS,
    case_loss,
    fit_affine,
    fit_conditional,
)
from nnunet_nacl.calibration.log_odds_map import map_from_tables
from nnunet_nacl.cases.groups import read_groups
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from tests.calibration.problems import drawn_from, identity
from tests.calibration.test_fitting import MATRICES, REGIONS


def test_parts_are_folds_or_lie_within_them_and_split_no_patient():
    names = [f"case_{i:02d}" for i in range(30)]
    five = assign_cross_fit_folds(names, [str(i % 5) for i in range(30)])
    assert five == [f"fold_{i % 5}" for i in range(30)]
    folds = [str(i % 2) for i in range(30)]
    two = assign_cross_fit_folds(names, folds)
    assert {part[:6] for part in two} == {"fold_0", "fold_1"} and len(set(two)) == 6
    assert all(part.startswith(f"fold_{fold}") for part, fold in zip(two, folds))
    assert {two.count(part) for part in two} == {5}
    parts = assign_cross_fit_folds(["a", "a", "b", "c"], ["0", "1", "0", "1"])
    assert parts[0] == parts[1] and len(set(parts)) == 3
    groups = [f"patient{i // 3}" for i in range(75)]
    parts = assign_cross_fit_folds(groups)
    assert all(len({p for p, g in zip(parts, groups) if g == group}) == 1 for group in groups)
    sizes = [parts.count(part) for part in set(parts)]
    assert len(sizes) == 10 and max(sizes) - min(sizes) <= 3
    with pytest.raises(ValueError, match="one patient"):
        assign_cross_fit_folds(["a", "a"])


def test_patients_from_a_name_or_a_file(tmp_path):
    cases = ["patient001_frame01", "patient001_frame12", "patient002_frame01"]
    patients, path = {case: case[:10] for case in cases}, tmp_path / "groups.json"
    path.write_text(json.dumps(patients))
    for given in ("^(patient[0-9]+)", "patient[0-9]+", str(path)):
        assert read_groups(given, cases) == patients
    path.write_text(json.dumps({cases[0]: ["x"]}))
    wrong = {
        str(path): "patient001_frame01.*valid string",
        "(": "regular expression",
        "subject": "for 3 cases",
    }
    for given, message in wrong.items():
        with pytest.raises(UserError, match=message):
            read_groups(given, cases)


def thirds(count: int) -> list[str]:
    """Three parts, to save time."""
    return [f"part_{i % 3}" for i in range(count)]


def scored(form: str, nll: float, excess: float, error: float, ridge: float = 1e-6) -> CrossFit:
    return CrossFit(FormScore(form, ridge, nll, excess, error), identity(1), {})


@pytest.mark.parametrize("truth", [MATRICES, REGIONS])
def test_every_form_and_strength_is_fitted_as_if_alone(truth):
    cases = drawn_from(truth, cases=6, voxels=200)
    calls = []
    parts = assign_cross_fit_folds([str(i) for i in range(6)])
    found = cross_fit(cases, parts, progress=lambda: calls.append(1))
    assert [each.score.form for each in found[:3]] == list(FORMS) and len(calls) == 7 * len(found)
    tried, losses = zip(*((each.score.ridge, each.score.nll) for each in found[2:]))
    assert tried == STRENGTHS[: len(tried)] and list(losses[:-1]) == sorted(
        losses[:-1], reverse=True
    )
    if len(tried) < len(STRENGTHS):  # a weaker ridge would learn still more by heart
        assert losses[-1] > losses[-2]
    others = [case for case, part in zip(cases, parts) if part != "part_3"]
    for each in found:
        assert set(each.fold_maps) == {f"part_{i}" for i in range(6)}
        for among, calibration in ((cases, each.map), (others, each.fold_maps["part_3"])):
            if each.score.form in AFFINE_FORMS:
                alone = fit_affine(among, each.score.form)
            else:
                alone = fit_conditional(among, fit_affine(among, "temperature"), each.score.ridge)
            np.testing.assert_allclose(calibration.coefficients(), alone.coefficients(), atol=1e-12)


def test_few_cases_are_drawn_to_a_given_prior_map():
    few = drawn_from(MATRICES, cases=6, voxels=150, seed=5)
    prior_map = MATRICES
    found = cross_fit(few, thirds(6), prior_map=prior_map)
    chosen = choose(found)
    assert (
        chosen.score.form == "given" and math.isinf(chosen.score.ridge) and chosen.map is prior_map
    )
    away = [np.abs(fit.map.coefficients() - prior_map.coefficients()).max() for fit in found[3:]]
    assert away == sorted(away) and away[0] > 0
    # here they are another population
    shifted = map_from_tables(MATRICES.slopes, MATRICES.offsets + [1.5, -1.5])
    chosen = choose(
        cross_fit(drawn_from(shifted, cases=9, voxels=2000), thirds(9), prior_map=prior_map)
    )
    assert chosen.score.form == "conditional"


def test_scores_are_of_the_cases_left_out():
    cases, parts = drawn_from(MATRICES, cases=8, voxels=300), thirds(8)
    found = cross_fit(cases, parts)
    losses = np.array(
        [[case_loss(c, fit.fold_maps[part]) for c, part in zip(cases, parts)] for fit in found]
    )
    best = losses[losses.mean(1).argmin()]
    for fit, loss in zip(found, losses):
        assert fit.score.nll == pytest.approx(loss.mean(), rel=1e-12)
        assert (
            fit.score.excess == pytest.approx((loss - best).mean(), abs=1e-12)
            and fit.score.excess >= 0
        )
        assert fit.score.standard_error == pytest.approx(
            (loss - best).std(ddof=1) / np.sqrt(8), abs=1e-12
        )


def test_the_standard_error_of_an_excess_is_over_patients():
    cases = drawn_from(map_from_tables([0.7], [0.5]), cases=6, voxels=300)
    patients, parts = [str(i) for i in range(6)], thirds(6)
    once = cross_fit(cases, parts, groups=patients)
    twice = cross_fit(cases + cases, parts * 2, groups=patients * 2)
    for fit, again in zip(once, twice):  # cases once more tell nothing new
        assert again.score.standard_error == pytest.approx(
            fit.score.standard_error, rel=1e-2, abs=1e-9
        )
    assert once[0].score.standard_error > 0
    values = np.array([1.0, 3.0, 8.0])  # variance 13
    assert error_of_mean(values, np.arange(3)) == pytest.approx(np.sqrt(13 / 3))
    assert np.isnan(error_of_mean(values, np.zeros(3)))


def test_the_least_free_within_one_standard_error_of_the_best_is_chosen():
    fits = [
        scored("temperature", 0.2, 0.1, 0.05),
        scored("shift", 0.101, 0.001, 0.01),  # is for checkpoints alone
        scored("conditional", 0.109, 0.009, 0.01, 1e-2),
        scored("conditional", 0.1, 0.0, 0.0, 1e-3),
        scored("conditional", 0.105, 0.005, 0.1, 1e-4),
    ]
    assert choose(fits) is fits[2]
    assert choose(fits[:2] + fits[3:]) is fits[3]
    assert choose(fits, "shift") is fits[1] and choose(fits, "conditional") is fits[3]
    for tried in (
        [scored("temperature", 0.1, 0, 0), scored("conditional", 0.1001, 0.0001, 1)],
        [scored("conditional", 0.1, 0, 0), scored("temperature", 0.2, 0.1, np.nan)],
        [scored("given", 0.104, 0.004, 0.01, math.inf), fits[0], *fits[2:]],
    ):
        assert choose(tried) is tried[0]
