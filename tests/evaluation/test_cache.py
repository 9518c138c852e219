"""What an earlier run knows is used as long as it holds, and no longer."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.document import read_document, to_document
from nnunet_nacl.evaluation.evaluate import evaluate_folder
from nnunet_nacl.evaluation.results import EvaluationSettings
from nnunet_nacl.evaluation.tables import csv_text, table_text
from tests.evaluation.folders import read, write_image, write_json


@pytest.fixture
def model(make_validated):
    return make_validated(cases=2)


def evaluate(model, **settings):
    folder = model.validation()
    return evaluate_folder(folder, output=folder / "calibration.json", settings=EvaluationSettings(**settings))


@pytest.mark.parametrize("settings", [{}, {"paper": True}, {"hausdorff": "max"}, {"hausdorff": "max", "paper": True}])
def test_probabilities_may_go_once_they_are_measured(model, measured, settings):
    expected = to_document(evaluate_folder(model.validation(), settings=EvaluationSettings(**settings)))
    evaluate(model)
    for path in model.validation().glob("*.npz"):
        path.unlink()
    measured.clear()
    document = to_document(evaluate(model, **settings))
    assert not measured and not document["problems"]
    for case in document["metric_per_case"] + expected["metric_per_case"]:
        del case["signature"]
    assert document == expected


def test_max_and_pooled_distances_differ_and_the_papers_does_not(model):
    pooled, largest = evaluate(model, paper=True), evaluate(model, paper=True, hausdorff="max")
    a, b = ([s for case in e.cases for s in case.structures.values()] for e in (pooled, largest))
    assert any(x.hd95_mm < y.hd95_mm for x, y in zip(a, b)) and all(x.hd95_mm <= y.hd95_mm for x, y in zip(a, b))
    assert [x.hd95_voxels for x in a] == [y.hd95_voxels for y in b]


@pytest.mark.parametrize("name", ["prediction", "truth", "labels", "bins"])
def test_other_files_or_settings_need_the_probabilities_again(model, name):
    evaluate(model)
    (model.validation() / "case_00.npz").unlink()
    settings = {"n_bins": 10} if name == "bins" else {}
    if name == "labels":
        dataset = json.loads((model.folder / "dataset.json").read_text())
        dataset["labels"] = {"background": 0, "anterior": 1, "posterior": 2, "ignore": 3}
        write_json(model.folder / "dataset.json", dataset)
    elif name != "bins":
        os.utime((model.validation() if name == "prediction" else model.references) / "case_00.nii.gz", (1, 1))
    evaluation = evaluate(model, **settings)
    assert "case_00.npz is missing" in evaluation.problems["case_00"]
    assert [case.case for case in evaluation.cases] == ["case_01"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"schema_version": 1, "metric_per_case": [{"case": "case_00"}]}',
        '{"schema_version": 99}',
        '{"schema_version": 1, "metric_per_case": 5}',
    ],
)
def test_a_file_of_another_kind_knows_nothing(model, measured, content):
    path = model.validation() / "calibration.json"
    path.write_text(content)
    if content in ("[]", "{}"):
        with pytest.raises(UserError, match="not a calibration.json"):
            evaluate(model)
        return
    evaluate(model)
    assert measured == ["case_00", "case_01"] and len(read_document(path).cases) == 2


def test_an_edited_entry_is_measured_again(model, measured):
    evaluate(model)
    path = model.validation() / "calibration.json"
    document = json.loads(path.read_text())
    del document["metric_per_case"][0]["metrics"]["1"]["distances"]
    document["metric_per_case"][1]["bins"]["all"]["count"] = "many"
    write_json(path, document)
    measured.clear()
    evaluate(model)
    assert measured == ["case_00", "case_01"]


def test_keys_that_a_later_version_added_are_passed_over(model, measured):
    expected = to_document(evaluate(model))
    path = model.validation() / "calibration.json"
    document = json.loads(path.read_text())
    for where in (document, document["settings"], document["structures"]["1"], *document["metric_per_case"]):
        where["of a later version"] = 1
    for case in document["metric_per_case"]:
        case["metrics"]["1"]["of a later version"] = case["calibration"]["all"]["of a later version"] = 1
    write_json(path, document)
    assert to_document(read_document(path)) == expected
    measured.clear()
    assert to_document(evaluate(model)) == expected and not measured


def test_table_names_what_is_undefined(model):
    path = model.references / "case_00.nii.gz"
    truth = read(path)
    write_image(np.where(truth == 2, 0, truth), path, (2.0, 1.0, 0.5))
    for folder in (model.references, model.validation()):
        write_image(np.zeros_like(truth), folder / "case_01.nii.gz", (2.0, 1.0, 0.5))
    evaluation = evaluate(model, paper=True)
    table = table_text(evaluation)
    assert "1 anterior is in neither truth nor prediction of 1 (case_01): no Dice, no distance" in table
    assert "2 posterior is missing in truth or prediction of 1 (case_00): no distance" in table
    assert "foreground is empty in 1 (case_01)" in table
    rows = csv_text(evaluation)
    assert "distances" not in rows and "nan" not in rows.lower() and "case,case_01,1,,Dice,\n" in rows
