"""What held-out cases teach, and the way of it to a review list, an evaluation and a comparison."""

from __future__ import annotations

import csv
import json
import re
import shutil
from contextlib import redirect_stdout
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.cli.main import main
from nnunet_nacl.estimators.recall import THRESHOLDS
from tests.documents import check_document
from tests.review_tables import read_list
from tests.runs.folders import REGIONS, random_case, read, write_image, write_prediction
from tests.runs.predictions import SPACING_MM, predictions_in


@pytest.fixture(scope="module")
def learned_folders(tmp_path_factory):
    """Function that gives a folder for labels: predictions, a map that has learned from them, what
    ``review`` makes."""
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
            truth, probs, segmentation = random_case(
                rng, labels, (6, 14, 12), sharpness=5 - 0.4 * i
            )
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
    assert "Predicted for new cases" in printed
    assert "single networks" not in printed
    learned = CalibrationMap.load(path).learned
    assert learned.as_deployed
    run("review", "-i", root / "calibrated", "-o", tmp_path / "out", "-map", path)
    rows = read_list(tmp_path / "out")
    lowest = [float(row["lowest_predicted_dice"]) for row in rows]
    assert len(rows) == 10
    assert lowest == sorted(lowest)
    (name, *_), (key, *_) = (
        [c.split(" ")[0] for c in rows[0] if c.endswith(" predicted_dice")],
        learned.dice,
    )
    for row in rows:
        interval = learned.dice[key].predict(float(row[f"{name} predicted_dice"]))[1:]
        found = [float(row[f"{name} predicted_dice{part}"]) for part in ("_low", "_high")]
        assert found == pytest.approx(interval, abs=1e-4)
        high = learned.volume[key].predict(float(row[f"{name} predicted_volume_ml"]))[2]
        assert float(row[f"{name} predicted_volume_high_ml"]) == pytest.approx(high, rel=1e-4)
    settings = json.loads((tmp_path / "out" / "prediction.json").read_text())
    named = settings["calibration_map"]["sha256"], settings["predictions"]["map_sha256"]
    assert named == (sha256(path.read_bytes()).hexdigest(),) * 2


def test_a_terminal_of_eighty_columns_shows_the_tables_whole(learned_folders):
    """Each estimate, Dice and volume, has its own rows under one heading."""
    printed = (learned_folders(None) / "printed.txt").read_text()
    lines = printed.partition("\nnote: ")[0].splitlines()
    assert max(len(line) for line in lines) <= 80
    [title] = [number for number, line in enumerate(lines) if "Predicted for new" in line]
    headings = re.split(r"  +", lines[title + 1].strip())
    assert headings == ["error", "error of a constant", "in 90 % interval", "width cases"]
    groups = [line for line in lines[title + 2 : title + 8] if not line.startswith(" ")]
    assert [group.split()[0] for group in groups] == ["Dice", "volume"]


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["classes", "regions"])
def test_labels_of_a_recall_miss_what_calibrate_learned_and_follow_what_is_asked(
    learned_folders, labels, tmp_path, capsys
):
    root, out = learned_folders(labels), tmp_path / "out"
    given = ("review", "-i", root / "predictions", "-o", out, "-map", root / "calibration_map.json")
    learned = CalibrationMap.load(root / "calibration_map.json")
    assert "-recall 0.9" in (root / "printed.txt").read_text()

    def inside(folder: Path, case: str, name: str, values: list[int]) -> np.ndarray:
        if folder.name == "sensitive" and labels:
            return read(folder / f"{case}_{name}.nii.gz") > 0
        return np.isin(read(folder / f"{case}.nii.gz"), values)

    def missed() -> dict[str, float]:
        """Mean over scans; nnU-Net's labels lie in the sensitive ones."""
        found = {}
        for name, values in (
            (("whole", [1, 2]), ("core", [2]))
            if labels
            else (("anterior", [1]), ("posterior", [2]))
        ):
            losses = []
            for case in (f"case_{i}" for i in range(10)):
                truth, stock = (
                    np.isin(read(root / "labels" / f"{case}.nii.gz"), values),
                    inside(out, case, name, values),
                )
                made = inside(out / "sensitive", case, name, values)
                assert made[stock].all()
                losses.append(1 - made[truth].mean())
            found[name] = float(np.mean(losses))
        return found

    found = []
    for recall in (0.86, 0.87):
        run(*given, "-recall", recall)
        said = json.loads((out / "prediction.json").read_text())["sensitive"]
        expected = {}
        for key, name in learned.names.items():
            place = learned.quality.recall[key].threshold_index(recall)
            assert said["thresholds"][name] == [*THRESHOLDS.tolist(), None][place]
            expected[name] = learned.quality.recall[key].missed[place]
            assert (10 * expected[name] + 1) / 11 <= 1 - recall + 1e-9
        found.append(missed())
        assert found[-1] == pytest.approx(expected, abs=1e-9)
        assert len(list((out / "sensitive").iterdir())) == (20 if labels else 10)
    assert found[0] != found[1]  # the folder follows what is asked
    before = [path.stat().st_ino for path in sorted(out.rglob("*.nii.gz"))]
    run(*given, "-recall", 0.87)
    # as after a run that was killed
    assert [path.stat().st_ino for path in sorted(out.rglob("*.nii.gz"))] == before
    run(*given)
    assert not (out / "sensitive").exists()
    run(
        "review",
        "-i",
        root / "calibrated",
        "-o",
        tmp_path / "again",
        *given[-2:],
        "-recall",
        0.87,
        status=2,
    )
    assert "calibrated before" in capsys.readouterr().err


def test_predictions_of_dice_are_evaluated_and_compared_where_a_map_calibrated_a_folder(
    learned_folders, without_figures, tmp_path, capsys
):
    root, path = tmp_path / "copy", learned_folders() / "calibration_map.json"
    shutil.copytree(path.parent, root)
    folder, calibrated, truths = (root / name for name in ("predictions", "calibrated", "labels"))
    output = ("-o", tmp_path / "c")
    compared = ("-i", f"raw={folder}", calibrated, "-gt", truths, *output)
    run("compare", *compared)
    tables = {
        table["id"]: table
        for table in json.loads((tmp_path / "c" / "comparison.json").read_text())["tables"]
    }
    raw, with_map = csv.DictReader((tmp_path / "c" / "tables" / "quality.csv").open())
    capsys.readouterr()
    run("evaluate", "-i", calibrated, "-gt", truths, "-map", path)
    printed, document = (
        capsys.readouterr().out,
        json.loads((calibrated / "calibration.json").read_text()),
    )
    assert f"{calibrated} through {path}: " in printed.replace("\n", "")
    learned = CalibrationMap.load(path).learned
    errors, inside = [], []
    for case in document["metric_per_case"]:
        for key, values in case["quality"]["structures"].items():
            predicted, low, high = learned.dice[key].predict(values["predicted_dice"])
            true = case["metrics"][key]["Dice"]
            errors.append(abs(predicted - true))
            inside.append(low <= true <= high)
    check_document("calibration", document)
    found = document["predicted_quality"]
    assert (
        found["MAE predicted"] == pytest.approx(np.mean(errors))
        and f"{np.mean(errors):.3f}" in printed
    )
    assert (
        found["coverage"]["share"] == np.mean(inside)
        and found["map_sha256"] == document["map_sha256"]
    )
    assert "cases of the same names (10, case_0 first)" in printed
    # through the map: nothing has to be written
    run("evaluate", "-i", folder, "-gt", truths, "-map", path)
    through_map = json.loads((folder / "calibrated" / "calibration.json").read_text())
    assert through_map["predicted_quality"]["MAE predicted"] == pytest.approx(
        found["MAE predicted"], abs=1e-6
    )
    assert not (folder / "calibration.json").exists()

    assert (raw["coverage"], float(with_map["MAE predicted"])) == (
        "",
        pytest.approx(np.mean(errors)),
    )
    assert (
        "calibrated: The map learned from cases of the same names" in tables["quality"]["caption"]
    )


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
        form: one | {"slopes": [[2 * a for a in row] for row in one["slopes"]]}
        for form, one in content["maps"].items()
    }
    given = ("-map", tmp_path / "other.json", "-bad", "0.8")
    for folder, change, message in (
        ("predictions", {"quality": None}, "has learned nothing about Dice"),
        (
            "predictions",
            {"quality": content["quality"] | {"learned": None, "why_not": "all gone"}},
            "(all gone)",
        ),
        ("calibrated", {"maps": steeper}, "another map"),
    ):
        (tmp_path / "other.json").write_text(json.dumps(content | change))
        assert message in refused("-i", root / folder, *given)
