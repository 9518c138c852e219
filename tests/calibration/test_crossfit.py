"""Parts of cases, groups of patients, and the choice of the form."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.crossfit import (
    FEWEST_PATIENTS,
    RIDGES,
    CrossFit,
    FormScore,
    choose,
    cross_fit,
    forms_for,
    parts_of,
)
from nnunet_nacl.calibration.fitting import FORMS, MOST_FOR_MATRIX, Fit, fit
from nnunet_nacl.calibration.likelihood import Voxels, case_loss
from nnunet_nacl.documents.patient_groups import read_groups
from nnunet_nacl.errors import UserError
from tests.calibration.problems import drawn_from
from tests.calibration.test_fitting import CONDITIONAL, CONDITIONAL_REGIONS, numbers


def test_folds_are_the_parts_unless_patients_are_known():
    assert parts_of(["a", "b", "c", "d"], ["0", "0", "1", "1"]) == ["fold_0", "fold_0", "fold_1", "fold_1"]
    parts = parts_of(["a", "a", "b", "c"], ["0", "1", "0", "1"])
    assert parts[0] == parts[1] and len(set(parts)) == 3


def test_no_patient_is_split_and_parts_are_of_like_size():
    groups = [f"patient{i // 3}" for i in range(75)]
    parts = parts_of(groups)
    assert all(len({p for p, g in zip(parts, groups) if g == group}) == 1 for group in groups)
    sizes = [parts.count(part) for part in set(parts)]
    assert len(sizes) == 10 and max(sizes) - min(sizes) <= 3
    with pytest.raises(UserError, match="one patient"):
        parts_of(["a", "a"])


def test_patients_from_a_name_or_a_file(tmp_path):
    cases = ["patient001_frame01", "patient001_frame12", "patient002_frame01"]
    assert list(read_groups("^(patient[0-9]+)", cases).values()) == ["patient001", "patient001", "patient002"]
    assert list(read_groups("patient[0-9]+", cases).values()) == ["patient001", "patient001", "patient002"]
    path = tmp_path / "groups.json"
    path.write_text(json.dumps({case: case[:10] for case in cases}))
    assert read_groups(str(path), cases) == {case: case[:10] for case in cases}
    path.write_text(json.dumps({cases[0]: ["x"]}))
    for given, message in ((str(path), "is list"), ("(", "regular expression"), ("subject", "no patient for 3 cases")):
        with pytest.raises(UserError, match=message):
            read_groups(given, cases)


def only(voxels: Voxels, keep: torch.Tensor) -> Voxels:
    """Some of the voxels."""
    return Voxels(voxels.log_odds[:, keep], voxels.label[..., keep], voxels.target[..., keep])


def thirds(count: int) -> list[str]:
    """Three parts, to save time."""
    return [f"part_{i % 3}" for i in range(count)]


def by_form(fits: list[CrossFit]) -> dict[tuple[str, float], CrossFit]:
    return {(one.form, one.ridge): one for one in fits}


def scored(form: str, nll: float, excess: float, error: float, ridge: float = 1e-6) -> CrossFit:
    nothing = Fit(CalibrationMap.identity(1), 0.0, np.zeros((2, 1, 1)))
    return CrossFit(form, ridge, nothing, {}, FormScore(nll, excess, error))


@pytest.mark.parametrize("truth", [CONDITIONAL, CONDITIONAL_REGIONS])
def test_every_form_and_ridge_is_fitted_as_if_alone(truth):
    cases, calls = drawn_from(truth, cases=6, voxels=200), []
    parts = parts_of([str(i) for i in range(6)])
    found = cross_fit(cases, parts, progress=lambda: calls.append(1))
    assert list(dict.fromkeys(one.form for one in found)) == list(forms_for(2, truth.regions))
    assert len(calls) == 7 * len(found)
    for form, ridges in RIDGES.items():
        assert list(ridges) == sorted(ridges, reverse=True)  # poorer first
        tried = [one.ridge for one in found if one.form == form]
        losses = [one.score.nll for one in found if one.form == form]
        assert tried == list(ridges[: len(tried)]) and losses[:-1] == sorted(losses[:-1], reverse=True)
        if 0 < len(tried) < len(ridges):  # a weaker ridge would learn still more by heart
            assert losses[-1] > losses[-2]
    others = [case for case, part in zip(cases, parts) if part != "part_3"]
    for (form, ridge), one in by_form(found).items():
        assert set(one.part_maps) == {f"part_{i}" for i in range(6)}
        np.testing.assert_allclose(numbers(one.fit), numbers(fit(cases, form, ridge=ridge)), atol=1e-4)
        np.testing.assert_allclose(numbers(one.part_maps["part_3"]), numbers(fit(others, form, ridge=ridge)), atol=1e-4)


def test_matrices_are_for_a_few_classes():
    assert "matrix" in forms_for(2, False) and "matrix" in forms_for(MOST_FOR_MATRIX, False)
    for num, regions in ((1, False), (MOST_FOR_MATRIX + 1, False), (2, True)):
        assert forms_for(num, regions) == FORMS[:3]


def test_a_part_is_judged_by_a_map_that_never_saw_its_patients():
    cases = drawn_from(CONDITIONAL, cases=8, voxels=200)
    patients = [str(i // 2) for i in range(8)]
    parts = parts_of(patients)
    spoilt = [i for i, patient in enumerate(patients) if patient == "2"]
    other = [Voxels(c.log_odds, c.label, c.target * 0) if i in spoilt else c for i, c in enumerate(cases)]
    plain, changed = (cross_fit(one, parts, groups=patients) for one in (cases, other))
    for before, after in zip(plain, changed):
        for part in before.part_maps:
            same = np.allclose(numbers(before.part_maps[part]), numbers(after.part_maps[part]), atol=1e-4)
            assert same == (part == parts[spoilt[0]])


def test_scores_are_of_the_cases_left_out():
    cases, parts = drawn_from(CONDITIONAL, cases=8, voxels=300), thirds(8)
    found = cross_fit(cases, parts)
    losses = np.array([[case_loss(c, *one.part_maps[part].tables()) for c, part in zip(cases, parts)] for one in found])
    best = losses[losses.mean(1).argmin()]
    for one, loss in zip(found, losses):
        assert one.score.nll == pytest.approx(loss.mean(), rel=1e-12)
        assert one.score.excess == pytest.approx((loss - best).mean(), abs=1e-12) and one.score.excess >= 0
        assert one.score.standard_error == pytest.approx((loss - best).std(ddof=1) / np.sqrt(8), abs=1e-12)


@pytest.mark.parametrize(
    "truth, form",
    [
        (CONDITIONAL, "conditional"),
        (CONDITIONAL_REGIONS, "conditional"),
        (CalibrationMap([0.7, 0.7], [0.5, -0.5]), "shift"),
        (CalibrationMap([0.7, 0.7], [0, 0]), "temperature"),
    ],
)
def test_the_richer_form_has_to_earn_its_place(truth, form):
    fits = cross_fit(drawn_from(truth, cases=9, voxels=1000, seed=1), thirds(9))
    assert choose(fits).form == form
    for name in forms_for(2, truth.regions):
        assert choose(fits, name).form == name


def test_a_map_far_from_the_identity_gets_a_weaker_ridge_than_one_that_is_near():
    near = CalibrationMap(np.full((3, 2), 0.9), np.full((3, 2), 0.1))
    far = CalibrationMap([[0.3, 0.3], [0.3, 3], [3, 0.3]], [[-2, -2], [2, -2], [0, 2]])
    ridges = [
        choose(cross_fit(drawn_from(truth, cases=9, voxels=voxels, seed=2), thirds(9)), "conditional").ridge
        for truth, voxels in ((near, 100), (far, 3000))
    ]
    assert ridges[0] > ridges[1]


def test_the_standard_error_of_an_excess_is_over_patients():
    cases = drawn_from(CalibrationMap([0.7], [0.5]), cases=6, voxels=300)
    patients, parts = [str(i) for i in range(6)], thirds(6)
    alone, once = (cross_fit(cases, parts, groups=g) for g in (None, patients))
    twice = cross_fit(cases + cases, parts * 2, groups=patients * 2)
    for one, same, again in zip(alone, once, twice):
        assert one.score == same.score
        # the same again tells nothing new
        assert again.score.standard_error == pytest.approx(one.score.standard_error, rel=1e-2, abs=1e-9)
    assert alone[0].score.standard_error > 0


def test_the_poorest_within_one_standard_error_of_the_best_is_chosen():
    fits = [
        scored("temperature", 0.2, 0.1, 0.05),
        scored("shift", 0.111, 0.011, 0.01),
        scored("conditional", 0.109, 0.009, 0.01, 1e-2),
        scored("conditional", 0.1, 0.0, 0.0, 1e-3),
        scored("conditional", 0.105, 0.005, 0.1, 1e-4),
    ]
    assert choose(fits) is fits[2]
    assert choose(fits[:2] + fits[3:]) is fits[3]
    assert choose(fits, "shift") is fits[1] and choose(fits, "conditional") is fits[2]
    best_is_poorest = [scored("temperature", 0.1, 0, 0), scored("shift", 0.1001, 0.0001, 1)]
    assert choose(best_is_poorest) is best_is_poorest[0]
    assert choose([scored("shift", 0.2, 0.1, np.nan), scored("conditional", 0.1, 0, 0)]).form == "conditional"


@pytest.mark.parametrize("patients_with_it", [FEWEST_PATIENTS - 1, FEWEST_PATIENTS, FEWEST_PATIENTS + 1])
def test_a_label_of_few_patients_is_treated_as_in_the_form_before(patients_with_it):
    cases = drawn_from(CONDITIONAL, cases=14, voxels=100)
    patients = [str(i // 2) for i in range(14)]  # two scans of each
    cases = [c if i // 2 < patients_with_it else only(c, c.label != 2) for i, c in enumerate(cases)]
    parts = [patient if patient in "06" else "rest" for patient in patients]
    found = by_form(cross_fit(cases, parts, groups=patients))
    shift, rich = found["shift", RIDGES["shift"][0]], found["conditional", RIDGES["conditional"][0]]
    assert shift.fit.fell_back == () and rich.fit.fell_back == ((2,) if patients_with_it < FEWEST_PATIENTS else ())
    assert (numbers(rich.fit)[2] == numbers(shift.fit)[0]).all() == (patients_with_it < FEWEST_PATIENTS)
    assert not (numbers(rich.fit)[:2] == numbers(shift.fit)[0]).any()
    for part, left in (("0", patients_with_it - 1), ("6", patients_with_it)):  # the last patient does not have it
        same = numbers(rich.part_maps[part])[2] == numbers(shift.part_maps[part])[0]
        assert same.all() == (left < FEWEST_PATIENTS)


def test_a_region_that_few_patients_have_is_treated_as_in_the_form_before():
    cases = drawn_from(CONDITIONAL_REGIONS, cases=8, voxels=300)
    cases = [c if i < 3 else only(c, c.label[1] == 0) for i, c in enumerate(cases)]
    found = by_form(cross_fit(cases, thirds(8)))
    shift, rich = found["shift", RIDGES["shift"][0]].fit, found["conditional", RIDGES["conditional"][0]].fit
    same = rich.map.slopes == shift.map.slopes
    np.testing.assert_array_equal(same, [[False, False], [False, True]])
    assert rich.fell_back == (1,)


def test_certain_background_is_no_voxel_to_learn_from():
    cases = []
    for one in drawn_from(CalibrationMap([0.7], [0.5]), cases=6, voxels=300):
        inside = only(one, one.label == 1)
        far = torch.full((1, 50), -14.0)
        label = torch.cat([inside.label, torch.zeros(50, dtype=torch.long)])
        target = torch.cat([inside.target, torch.zeros(50, dtype=torch.long)])
        cases.append(Voxels(torch.cat([inside.log_odds, far], 1), label, target))
    found = cross_fit(cases, thirds(6))
    assert found[-1].fit.fell_back == (0,)
