"""calibration.json: it is JSON, has nnU-Net's numbers, and the means that tables show."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from nnunet_nacl.cases.case import MASKS
from nnunet_nacl.cli.main import main
from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.metrics import BinStats
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from tests.cases.conftest import labels  # noqa: F401  (a fixture)
from tests.documents import check_document
from tests.nnunet.measuring import evaluated
from tests.runs.folders import read, write_image
from tests.runs.predictions import SPACING_MM


def written(evaluation, folder) -> dict:
    evaluation.write(folder / "calibration.json")
    text = (folder / "calibration.json").read_text()
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    check_document("calibration", document)
    return document


def test_numbers_are_those_of_nnunets_summary(make_validated, labels, tmp_path):  # noqa: F811
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics, label_or_region_to_key
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    model = make_validated(labels=labels, cases=2, sharpness=2.0)
    folder = PredictionFolder.open(model.validation())
    document, manager = written(evaluated(folder), tmp_path), folder.label_manager
    wanted = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    cases = []
    for ours in document["metric_per_case"]:
        files = (
            str(place / f"{ours['case']}.nii.gz")
            for place in (model.references, model.validation())
        )
        theirs = compute_metrics(*files, SimpleITKIO(), wanted, manager.ignore_label)["metrics"]
        cases.append({label_or_region_to_key(key): values for key, values in theirs.items()})
        assert cases[-1].keys() == ours["metrics"].keys()
        for key, values in cases[-1].items():
            assert values == {name: ours["metrics"][key][name] for name in values}, key
    means = {
        key: {name: np.nanmean([case[key][name] for case in cases]) for name in cases[0][key]}
        for key in cases[0]
    }
    for key, mean in means.items():
        assert mean == pytest.approx({name: document["mean"][key][name] for name in mean})
    for name, value in document["foreground_mean"].items():
        if name in next(iter(means.values())):
            assert value == pytest.approx(np.mean([mean[name] for mean in means.values()]))


def test_scores_are_means_over_cases_and_of_all_voxels(make_validated, tmp_path):
    evaluation = evaluated(make_validated(cases=3).validation())
    document = written(evaluation, tmp_path)
    assert list(document["bins"]) == list(MASKS)
    for mask, mean in document["calibration"]["mean"].items():
        scores = [case["calibration"][mask] for case in document["metric_per_case"]]
        assert (
            mean["ECE"] == pytest.approx(np.mean([each["ECE"] for each in scores]))
            and mean["n_cases"] == 3
        )
        assert document["calibration"]["pooled"][mask]["n_voxels"] == sum(
            each["n_voxels"] for each in scores
        )
    merged = BinStats.merge(
        decode(BinStats, case["bins"]["all"], "bins") for case in document["metric_per_case"]
    )
    assert encode(merged) == document["bins"]["all"]


def test_absent_structures_are_undefined_and_named(make_validated, tmp_path):
    model = make_validated(cases=2)
    path = model.references / "case_00.nii.gz"
    empty = np.zeros_like(read(path))
    for folder in (model.references, model.validation()):
        write_image(empty, folder / "case_00.nii.gz", SPACING_MM)
    document = written(evaluated(model.validation()), tmp_path)
    assert document["undefined"]["Dice"] == {"1": ["case_00"], "2": ["case_00"]}
    undefined = [mask for mask in MASKS if mask != "all"]  # the labels' own masks
    assert document["undefined"]["calibration"] == {mask: ["case_00"] for mask in undefined}
    assert document["calibration"]["mean"]["foreground"]["n_cases"] == 1
    # the npz still predicts something
    assert document["metric_per_case"][0]["n_changed_voxels"] > 0


def test_folds_have_documents_and_the_model_one_of_all(make_validated, capsys):
    model = make_validated(cases=2, folds=2)
    assert main(["evaluate", "-d", "999", "-c", "3d_fullres", "-np", "1", "--csv"]) == 0
    places = [model.folder, model.validation(0), model.validation(1)]
    together, *single = (json.loads((place / "calibration.json").read_text()) for place in places)
    assert together["n_cases"] == 4 and [document["n_cases"] for document in single] == [2, 2]
    for name, value in together["bins"]["all"].items():  # sums of floats depend on their order
        np.testing.assert_allclose(
            value, np.add(*(each["bins"]["all"][name] for each in single)), rtol=1e-14
        )
    rows = list(csv.DictReader((model.folder / "calibration.csv").open()))
    [row] = [
        r
        for r in rows
        if (r["scope"], r["mask"], r["metric"], r["structure"]) == ("pooled", "all", "ECE", "")
    ]
    assert float(row["value"]) == together["calibration"]["pooled"]["all"]["ECE"]
    assert sum(r["metric"] == "Dice" and r["scope"] == "case" for r in rows) == 8
