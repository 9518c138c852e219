"""Patients of cases, as a user names them."""

from __future__ import annotations

import json

import pytest

from nnunet_nacl.cases.groups import read_groups
from nnunet_nacl.utilities.errors import UserError

CASES = ["patient001_frame01", "patient001_frame12", "patient002_frame01"]
PATIENTS = {case: case[:10] for case in CASES}


@pytest.mark.parametrize("expression", ["^(patient[0-9]+)", "patient[0-9]+"])
def test_patients_from_the_names_of_cases(expression):
    assert read_groups(expression, CASES) == PATIENTS


def test_patients_from_a_file(tmp_path):
    path = tmp_path / "groups.json"
    path.write_text(json.dumps(PATIENTS))
    assert read_groups(str(path), CASES) == PATIENTS


def test_a_file_with_a_wrong_value_names_the_case(tmp_path):
    path = tmp_path / "groups.json"
    path.write_text(json.dumps({CASES[0]: ["x"]}))
    with pytest.raises(UserError, match="patient001_frame01.*valid string"):
        read_groups(str(path), CASES)


@pytest.mark.parametrize(
    ("expression", "message"), [("(", "regular expression"), ("subject", "for 3 cases")]
)
def test_an_expression_that_finds_no_patient_is_refused(expression, message):
    with pytest.raises(UserError, match=message):
        read_groups(expression, CASES)
