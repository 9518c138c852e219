"""What an earlier run knows is used as long as it holds, and no longer."""

from __future__ import annotations

import gzip
import json
import os
import shutil

import pytest

from nnunet_nacl.case.document import read_document
from nnunet_nacl.case.results import EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import encode
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.runs.evaluate import came_from, evaluate_folder
from tests.runs.folders import read, write_image, write_json


@pytest.fixture
def model(make_validated):
    return make_validated(cases=2)


def evaluate(model, **settings):
    folder = model.validation()
    return evaluate_folder(folder, output=folder / "calibration.json", settings=EvaluationSettings(**settings))


def change_a_voxel(path):
    array = read(path)
    array.flat[0] = 1 - array.flat[0]
    write_image(array, path, (2.0, 1.0, 0.5))


def test_probabilities_may_go_once_they_are_measured(model, measured):
    expected = encode(evaluate_folder(model.validation()))
    evaluate(model)
    for path in model.validation().glob("*.npz"):
        path.unlink()
    measured.clear()
    document = encode(evaluate(model))
    assert not measured and not document["problems"]
    for case in document["metric_per_case"] + expected["metric_per_case"]:
        del case["signature"]
    assert document == expected


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
        change_a_voxel((model.validation() if name == "prediction" else model.references) / "case_00.nii.gz")
    evaluation = evaluate(model, **settings)
    assert "case_00.npz is missing" in evaluation.problems["case_00"]
    assert [case.case for case in evaluation.cases] == ["case_01"]


def test_files_that_were_moved_copied_or_touched_are_the_same(model, measured):
    expected = encode(evaluate(model))
    for path in model.validation().glob("case_*"):
        os.utime(path, (1, 1))
    references = model.root / "elsewhere"
    shutil.copytree(model.references, references, copy_function=shutil.copyfile)
    moved = model.validation().rename(model.folder / "predictions")
    measured.clear()
    folder = PredictionFolder.open(moved, references)
    for result in read_document(moved / "calibration.json").cases:
        assert came_from(result, folder.files(result.case), folder.labels, EvaluationSettings())
        assert not came_from(result, folder.files(result.case), folder.labels, EvaluationSettings(n_bins=10))
    again = encode(evaluate_folder(folder, output=moved / "calibration.json"))
    assert not measured and again["calibration"] == expected["calibration"]
    assert again["metric_per_case"][0]["reference_file"] == str(references / "case_00.nii.gz")  # where it lies now
    assert again["metric_per_case"][0]["probabilities_file"] == str(moved / "case_00.npz")


def test_another_truth_of_equal_size_and_time_is_another_truth(model, measured):
    for path in model.references.glob("*.nii.gz"):  # not compressed: equal sizes
        path.write_bytes(gzip.decompress(path.read_bytes()))
    first = evaluate(model)
    other = model.root / "other"
    shutil.copytree(model.references, other)
    for path in other.glob("*.nii.gz"):
        content = bytearray(path.read_bytes())
        content[-200:] = b"\1" * 200
        path.write_bytes(content)
        time = (model.references / path.name).stat().st_mtime_ns
        os.utime(path, ns=(time, time))
    measured.clear()
    second = evaluate_folder(model.validation(), other, output=model.validation() / "calibration.json")
    assert measured == ["case_00", "case_01"] and second.mean_dice() != first.mean_dice()
    references = [case.reference_file for case in second.cases]
    assert references == [str(other / f"case_0{i}.nii.gz") for i in range(2)]


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000])
def test_a_damaged_file_knows_nothing(model, measured, content):
    path = model.validation() / "calibration.json"
    path.write_text(content)
    evaluate(model)
    assert measured == ["case_00", "case_01"] and len(read_document(path).cases) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("metric_per_case"),  # as that of a comparison
        lambda document: document.clear(),
    ],
)
def test_what_is_no_calibration_json_is_not_lost(model, measured, change):
    evaluate(model)
    path = model.validation() / "calibration.json"
    document = json.loads(path.read_text())
    change(document)
    write_json(path, document)
    before = path.read_text()
    measured.clear()
    with pytest.raises(UserError, match="not a calibration.json .*would be lost; remove it or choose another -o"):
        evaluate(model)
    assert path.read_text() == before and not measured


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(schema_version=1), "schema version 1, this version of nnunet_nacl reads 3"),
        (lambda document: document["settings"].update(n_bins="many"), "settings.n_bins: .*valid integer.*'many'"),
        (lambda document: document["structures"]["1"].update(channel=7), r"the channels \[2, 7\]"),
    ],
)
def test_a_document_that_cannot_be_read_is_measured_again(model, measured, change, message):
    expected = encode(evaluate(model))
    path = model.validation() / "calibration.json"
    document = json.loads(path.read_text())
    change(document)
    write_json(path, document)
    with pytest.raises(UserError, match=message):
        read_document(path)
    measured.clear()
    assert encode(evaluate(model)) == expected
    assert measured == (["case_00", "case_01"] if document["schema_version"] == 1 else [])


@pytest.mark.parametrize(
    "edit",
    [
        lambda case: case["metrics"]["1"].pop("distances"),
        lambda case: case["metrics"]["1"].update(TP=-3),
        lambda case: case["bins"]["all"].update(count=[[1] * 14]),
        lambda case: case["bins"]["union"].pop("brier"),
        lambda case: case.update(largest_label=1e400),
        lambda case: case.update(signature={"reference": [1]}),
        lambda case: case.clear(),
    ],
)
def test_an_edited_entry_is_measured_again(model, measured, edit):
    expected = encode(evaluate(model))
    path = model.validation() / "calibration.json"
    document = json.loads(path.read_text())
    edit(document["metric_per_case"][0])
    write_json(path, document)
    measured.clear()
    assert encode(evaluate(model)) == expected and measured == ["case_00"]
