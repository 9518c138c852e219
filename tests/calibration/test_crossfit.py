"""Parts of cases, groups of patients, and the choice of the form."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.crossfit import FormScore, choose_form, cross_fit, parts_of
from nnunet_nacl.calibration.fitting import fit
from nnunet_nacl.documents.patient_groups import read_groups
from nnunet_nacl.errors import UserError
from tests.calibration.problems import drawn_from


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


@pytest.mark.parametrize("slopes, form", [([0.4, 2.0], "logodds"), ([0.7, 0.7], "shift")])
def test_the_richer_form_has_to_earn_its_place(slopes, form):
    cases = drawn_from(AffineMap(slopes, [0.5, -0.5]), cases=8, voxels=500)
    parts = parts_of([str(i) for i in range(8)])
    found = cross_fit(lambda: cases, parts)
    scores = {name: one.score for name, one in found.items()}
    assert choose_form(scores) == form
    assert scores["shift"].nll < scores["temperature"].nll and scores["shift"].gain == 0
    assert set(found["logodds"].part_maps) == {f"part_{i}" for i in range(8)}
    for name, one in found.items():  # as each is fitted alone, from the identity
        others = [case for case, part in zip(cases, parts) if part != "part_3"]
        np.testing.assert_allclose(one.fit.parameters, fit(lambda: cases, name)[0].parameters, atol=1e-5)
        (alone,), there = fit(lambda: others, name), one.part_maps["part_3"]  # noqa: B023
        np.testing.assert_allclose(np.append(there.slopes, there.offsets), alone.parameters, atol=1e-5)


def test_the_standard_error_of_a_gain_is_over_patients():
    cases = drawn_from(AffineMap([0.7, 0.9], [0.5, -0.5]), cases=8, voxels=500)
    patients = [str(i) for i in range(8)]
    alone, once = (cross_fit(lambda: cases, parts_of(patients), groups=g)["logodds"].score for g in (None, patients))
    twice = cross_fit(lambda: cases + cases, parts_of(patients * 2), groups=patients * 2)["logodds"].score
    assert once == alone and once.standard_error > 0
    assert twice.standard_error == pytest.approx(once.standard_error, rel=1e-6)  # the same again tells nothing new


def test_a_gain_within_one_standard_error_is_none_and_offsets_that_cost_are_left_out():
    assert choose_form({"logodds": FormScore(0.1, 0.009, 0.01)}) == "shift"
    assert choose_form({"logodds": FormScore(0.1, 0.011, 0.01)}) == "logodds"
    assert choose_form({"temperature": FormScore(0.1, 0.001, 0.01)}) == "temperature"
    assert choose_form({"temperature": FormScore(0.1, -0.001, 0.01)}) == "shift"
