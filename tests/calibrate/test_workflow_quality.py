"""What held-out cases teach: values of a case in closed form, and the way to a review list."""

from __future__ import annotations

import csv
import json
import math
import shutil
from contextlib import redirect_stdout
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.case.measure import measure, under
from nnunet_nacl.case.record import CaseRecord
from nnunet_nacl.cli.main import main
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.nnunet.records import SavedPredictions
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from tests.review_tables import read_list
from tests.runs.folders import CLASSES_WITH_IGNORE, REGIONS, random_case, write_image, write_prediction
from tests.runs.predictions import SPACING_MM, predictions_in


def values_of(record: CaseRecord) -> pd.DataFrame:
    """What a case teaches, by structure."""
    assert record.scan["unit"] == "ml"
    return record.structures[["predicted_dice", "Dice", "predicted_volume", "true_volume"]]


def test_values_of_a_case_in_closed_form(predict, tmp_path):
    # two voxels: p_1 = 0.6 and 0.4, 1 is true in the first only; E = 2 * 0.6 / (1 + 1) = 0.6; 2 is in
    # neither, but a third voxel, which is ignored, is full of it
    folder, voxel_ml = predict(labels=CLASSES_WITH_IGNORE, cases=0), np.prod(SPACING_MM) / 1000
    ignore = max(CLASSES_WITH_IGNORE.values())
    probs = np.array([[0.4, 0.6, 0.0], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32).reshape(3, 1, 1, 3)
    write_prediction(folder, "case", probs, np.array([[[1, 0, 2]]], dtype=np.uint8), SPACING_MM)
    (tmp_path / "labels").mkdir()
    write_image(np.array([[[1, 0, ignore]]], dtype=np.uint8), tmp_path / "labels" / "case.nii.gz", SPACING_MM)
    case = SavedPredictions(PredictionFolder.open(folder, tmp_path / "labels")).case("case")
    found = values_of(measure(case))
    assert found.loc["1"].tolist() == pytest.approx([0.6, 1, voxel_ml, voxel_ml])
    assert found.loc["2"].tolist() == pytest.approx([math.nan, math.nan, 0, 0], nan_ok=True)
    shifted = values_of(measure(case, LogOddsMap([1.0, 1.0], [math.log(4), 0.0])))
    p = np.array([6 / 7, 8 / 11])  # odds times 4
    assert shifted.predicted_dice["1"] == pytest.approx(2 * p[0] / (p.sum() + 1))  # of the label that was chosen


@pytest.mark.parametrize("labels", [CLASSES_WITH_IGNORE, REGIONS], ids=["ignore", "regions"])
def test_a_sample_of_every_voxel_teaches_what_the_probabilities_do(make_validated, labels):
    model = make_validated(labels=labels, cases=1)
    source = SavedPredictions(find_fold_folders(model.folder)["0"])
    (name,) = source.names
    case, calibration = source.case(name), LogOddsMap([0.8, 1.2], [0.4, -0.3], labels is REGIONS)
    record = measure(case, with_sample=True)
    assert record.sample and (record.sample.weights == 1).all()
    found, exact = values_of(under(record, calibration)), values_of(measure(case, calibration))
    np.testing.assert_allclose(found, exact, atol=2e-3)  # half precision


@pytest.fixture(scope="module")
def learned_folders(tmp_path_factory):
    """Function that gives a folder for labels: predictions, a map that has learned from them, what ``review`` makes."""
    made: dict[str, Path] = {}

    def build(labels=None) -> Path:
        if str(labels) in made:
            return made[str(labels)]
        root = made[str(labels)] = tmp_path_factory.mktemp("learned")
        folder = predictions_in(root)(labels=labels, cases=0)
        truths = root / "labels"
        truths.mkdir()
        rng = np.random.default_rng(0)
        labels = json.loads((folder / "dataset.json").read_text())["labels"]
        for i in range(10):
            truth, probs, segmentation = random_case(rng, labels, (6, 14, 12), sharpness=5 - 0.4 * i)
            write_prediction(folder, f"case_{i}", probs, segmentation, SPACING_MM)
            write_image(truth, truths / f"case_{i}.nii.gz", SPACING_MM)
        path = root / "calibration_map.json"
        with open(root / "printed.txt", "w", encoding="utf-8") as file, redirect_stdout(file):
            run("calibrate", "-i", folder, "-gt", truths, "-o", path, "-form", "temperature")
        run("review", "-i", folder, "-map", path, "--save_probabilities", "-o", root / "calibrated")
        return root

    return build


def run(*arguments, status=0) -> None:
    assert main([*map(str, arguments), "-np", "1"]) == status


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["classes", "regions"])
def test_what_calibrate_learns_is_predicted_in_the_review(learned_folders, labels, tmp_path):
    root = learned_folders(labels)
    path, printed = root / "calibration_map.json", (root / "printed.txt").read_text()
    assert "predicted for new cases, off by" in printed and "single networks" not in printed
    learned = CalibrationMap.load(path).learned
    assert learned.as_deployed
    run("review", "-i", root / "calibrated", "-o", tmp_path / "out", "-map", path)
    rows = read_list(tmp_path / "out")
    lowest = [float(row["lowest_predicted_dice"]) for row in rows]
    assert len(rows) == 10
    assert lowest == sorted(lowest)
    (name, *_), (key, *_) = [c.split(" ")[0] for c in rows[0] if c.endswith(" predicted_dice")], learned.dice
    for row in rows:
        interval = learned.dice[key].predict(float(row[f"{name} predicted_dice"]))[1:]
        found = [float(row[f"{name} predicted_dice{part}"]) for part in ("_low", "_high")]
        assert found == pytest.approx(interval, abs=1e-4)
        high = learned.volume[key].predict(float(row[f"{name} predicted_volume_ml"]))[2]
        assert float(row[f"{name} predicted_volume_high_ml"]) == pytest.approx(high, rel=1e-4)
    settings = json.loads((tmp_path / "out" / "prediction.json").read_text())
    named = settings["calibration_map"]["sha256"], settings["predictions"]["map_sha256"]
    assert named == (sha256(path.read_bytes()).hexdigest(),) * 2


def test_predictions_of_dice_are_evaluated_and_compared_where_a_map_calibrated_a_folder(
    learned_folders, without_figures, tmp_path, capsys
):
    root, path = tmp_path / "copy", learned_folders() / "calibration_map.json"
    shutil.copytree(path.parent, root)
    folder, calibrated, truths = (root / name for name in ("predictions", "calibrated", "labels"))
    output = ("-o", tmp_path / "c", "-bootstrap", "100")
    compared = ("-i", f"raw={folder}", calibrated, "-gt", truths, *output)
    run("compare", *compared)
    tables = {table["id"]: table for table in json.loads((tmp_path / "c" / "comparison.json").read_text())["tables"]}
    raw, with_map = csv.DictReader((tmp_path / "c" / "tables" / "quality.csv").open())
    capsys.readouterr()
    run("evaluate", "-i", calibrated, "-gt", truths, "-map", path)
    printed, document = capsys.readouterr().out, json.loads((calibrated / "calibration.json").read_text())
    assert f"{calibrated} through {path}: " in printed.replace("\n", "")
    learned = CalibrationMap.load(path).learned
    errors, inside = [], []
    for case in document["metric_per_case"]:
        for key, values in case["quality"]["structures"].items():
            predicted, low, high = learned.dice[key].predict(values["expected_dice"])
            true = case["metrics"][key]["Dice"]
            errors.append(abs(predicted - true))
            inside.append(low <= true <= high)
    found = document["predicted_quality"]
    assert found["MAE predicted"] == pytest.approx(np.mean(errors)) and f"{np.mean(errors):.3f}" in printed
    assert found["coverage"]["share"] == np.mean(inside) and found["map_sha256"] == document["map_sha256"]
    assert "cases of the same names (10, case_0 first)" in printed
    run("evaluate", "-i", folder, "-gt", truths, "-map", path)  # through the map: nothing has to be written
    through_map = json.loads((folder / "calibrated" / "calibration.json").read_text())
    assert through_map["predicted_quality"]["MAE predicted"] == pytest.approx(found["MAE predicted"], abs=1e-6)
    assert not (folder / "calibration.json").exists()

    assert (raw["coverage"], float(with_map["MAE predicted"])) == ("", pytest.approx(np.mean(errors)))
    assert "calibrated: The map learned from cases of the same names" in tables["quality"]["caption"]
    shutil.copytree(folder, tmp_path / "copied")  # whose networks nobody knows
    run("compare", "-i", f"raw={folder}", f"C={tmp_path / 'copied'}", "-gt", truths, *output, "-map", f"C={path}")
    assert "coverage" in (tmp_path / "c" / "tables" / "quality.csv").read_text()
    assert "cannot be known" in " ".join(json.loads((tmp_path / "c" / "comparison.json").read_text())["notes"])
    capsys.readouterr()
    run("compare", *compared, "-map", f"E={path}", status=2)
    assert "-map E=...: no folder of predictions" in capsys.readouterr().err


def test_a_map_is_never_asked_about_what_it_was_not_learned_for(learned_folders, tmp_path, capsys):
    root = learned_folders()
    path = root / "calibration_map.json"

    def refused(*arguments) -> str:
        capsys.readouterr()
        run("review", "-o", tmp_path / "out", *arguments, status=2)
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "give the map" in refused("-i", root / "predictions", "-bad", "0.8")
    content = json.loads(path.read_text())
    steeper = {
        form: one | {"slopes": [[2 * a for a in row] for row in one["slopes"]]} for form, one in content["maps"].items()
    }
    given = ("-map", tmp_path / "other.json", "-bad", "0.8")
    for folder, change, message in (
        ("predictions", {"quality": None}, "has learned nothing about Dice"),
        ("predictions", {"quality": content["quality"] | {"learned": None, "why_not": "all gone"}}, "(all gone)"),
        ("calibrated", {"maps": steeper}, "another map"),
        ("calibrated", {"schema_version": 1}, "calibrate again"),
        ("calibrated", {"structures": [row | {"name": "liver"} for row in content["structures"]]}, "give the map of"),
    ):
        (tmp_path / "other.json").write_text(json.dumps(content | change))
        assert message in refused("-i", root / folder, *given)
