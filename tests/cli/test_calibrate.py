"""`nnunet_nacl calibrate`, and `nnunet_nacl review` with its map, as a user types them."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import nnunet_nacl
from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.cases.record import read_record
from nnunet_nacl.cli.calibration_text import recall_costs_text
from nnunet_nacl.cli.main import main
from nnunet_nacl.estimators.flags import order_areas
from nnunet_nacl.estimators.log_odds_map import map_from_tables
from nnunet_nacl.estimators.recall import THRESHOLDS, LearnedRecall
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.json_files import read_dict
from tests.metrics.models import make_trained, map_to_json
from tests.review_tables import read_list
from tests.runs.folders import CLASSES, REGIONS, write_image, write_json, write_prediction
from tests.runs.predictions import SPACING_MM

STRUCTURES = {"1": "anterior", "2": "posterior"}


def run(*arguments) -> int:
    return main([*map(str, arguments), "-np", "1"])


@pytest.fixture
def make(tmp_path, monkeypatch):
    def build(**arguments):
        defaults = {"cases": 3, "folds": 2, "sharpness": 2.0}
        model = make_trained(tmp_path / "nnunet", **defaults | arguments)
        for name, value in model.environment.items():
            monkeypatch.setenv(name, value)
        return model

    return build


def calibrate(model, *arguments) -> int:
    return run("calibrate", "-d", model.dataset, "-c", "3d_fullres", *arguments)


@pytest.mark.parametrize(
    ("model", "images", "message"),
    [
        ("nope", None, "nope: no such folder; give the folder that holds the model"),
        ("there", None, "there: a model has a dataset.json there; give the folder TRAINER__PLANS"),
        (None, "nope", "nope: no such folder; give the folder"),
    ],
)
def test_errors_of_the_function_name_no_options_and_no_folder_is_made(
    tmp_path, model, images, message
):
    there = tmp_path / "there"
    there.mkdir()
    with pytest.raises(UserError, match=message) as error:
        if images is None:
            nnunet_nacl.calibrate(tmp_path / model)
        else:
            nnunet_nacl.calibrate(predictions=tmp_path / images, labels=there)
    assert not re.search(r"(?<!\w)-\w", str(error.value).replace(str(tmp_path), ""))
    assert list(tmp_path.iterdir()) == [there]


def files_below(folder: Path) -> set[str]:
    """Where files lie in a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix() for path in paths}


def map_of(model) -> dict:
    return read_dict(model.folder / "calibration_map.json")


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_a_model_is_calibrated_in_one_command(make, labels, capsys):
    model = make(labels=labels)
    before = files_below(model.folder)
    assert calibrate(model) == 0
    printed = " ".join(capsys.readouterr().out.split())
    # with six patients no limit can be set, so none is advised
    assert "from 19 patients on, -miss 0.05" in printed
    assert "flags such scans" not in printed
    document = map_of(model)
    scores = CalibrationMap.load(model.folder / "calibration_map.json").quality.learned.scores
    score, entropy, best, chance = order_areas(scores).values()
    of_orders = f"{score:.3f} by score, {entropy:.3f} by entropy, {chance:.3f} by chance"
    assert f"AURC (1 - Dice): {of_orders}, {best:.3f} best" in printed
    fitted = document["fitted"]
    origin = document["origin"]
    assert document["quality"]["learned"]["as_deployed"] is False
    parts = fitted["cross_fit"]
    assert sorted(parts) == [
        "fold_0_part_0",
        "fold_0_part_1",
        "fold_0_part_2",
        "fold_1_part_0",
        "fold_1_part_1",
        "fold_1_part_2",
    ]
    assert sum(len(part["cases"]) for part in parts.values()) == 6
    assert fitted["groups"] == {}
    assert fitted["effect"]["NLL all"]["difference"]["mean"] < 0
    assert origin["inference"] == {"step_size": 0.5, "mirroring": True}
    assert origin["folds"] == ["0", "1"]
    label_indices = {row["label"] for row in document["maps"]["conditional"]["rows"]}
    assert label_indices == ({0, 1} if labels is REGIONS else {0, 1, 2})
    assert document["form"] in {tried["form"] for tried in fitted["forms"]} == set(document["maps"])
    for fold in (0, 1):
        path = model.folder / f"fold_{fold}" / "checkpoint_final.pth"
        assert origin["checkpoint_sha256"][str(fold)] == sha256(path.read_bytes()).hexdigest()
    # the map, and what was measured: no checkpoint, nothing that nnU-Net takes for a prediction
    assert sorted(files_below(model.folder) - before) == [
        "calibration_map.json",
        "calibration_map.png",
        "fold_0/validation/records/case_00.npz",
        "fold_0/validation/records/case_01.npz",
        "fold_0/validation/records/case_02.npz",
        "fold_1/validation/records/case_10.npz",
        "fold_1/validation/records/case_11.npz",
        "fold_1/validation/records/case_12.npz",
    ]


def test_a_picture_of_others_beside_the_map_is_refused(make, capsys):
    model = make()
    (model.folder / "brain.png").write_text("a picture of mine")
    assert calibrate(model, "-o", model.folder / "brain.json") == 2
    assert "brain.png was not written by nnunet_nacl and would be lost" in capsys.readouterr().err
    assert (model.folder / "brain.png").read_text() == "a picture of mine"


def test_once_measured_nothing_needs_the_probabilities_unless_the_record_is_damaged(make, capsys):
    model = make()
    options = ("-dilated", "3", "-bins", "10")  # which stay
    assert run("evaluate", "-d", model.dataset, "-c", "3d_fullres", *options) == 0
    assert calibrate(model) == 0
    settings = map_of(model)["origin"]["settings"]
    assert (settings["dilation_mm"], settings["n_bins"]) == (3.0, 10)
    first = (model.folder / "calibration_map.json").read_text()
    path = model.validation(0) / "records" / "case_00.npz"
    path.write_bytes(path.read_bytes()[:-100])
    assert calibrate(model) == 0 and (model.folder / "calibration_map.json").read_text() == first
    read_record(path)
    for fold in (0, 1):
        for probabilities in model.validation(fold).glob("*.npz"):
            probabilities.unlink()
    assert calibrate(model) == 0 and (model.folder / "calibration_map.json").read_text() == first
    path.write_bytes(path.read_bytes()[:-100])  # then it must be predicted again
    capsys.readouterr()
    assert calibrate(model, "-device", "cpu") == 1
    said = capsys.readouterr().err
    assert said.count("folds 0: there are neither probabilities nor records of this version") == 1
    assert "no preprocessed cases; run nnUNetv2_preprocess" in said


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_a_folder_is_calibrated_and_the_result_is_one_of_nnunet(
    make, warm_nnunet, labels, tmp_path, capsys
):
    from nnunetv2.ensembling.ensemble import ensemble_folders

    model = make(labels=labels)
    folder = tmp_path / "predictions"  # as nnUNetv2_predict writes them
    for source in (model.validation(0), model.validation(1)):
        shutil.copytree(source, folder, dirs_exist_ok=True)
    for file in ("dataset.json", "plans.json"):
        shutil.copy2(model.folder / file, folder)
    assert run("calibrate", "-i", folder, "-gt", model.references, "-groups", "case_([0-9]+)") == 0
    path = folder / "calibration_map.json"
    assert read_dict(path)["fitted"]["groups"] == {
        "case_00": "00",
        "case_01": "01",
        "case_02": "02",
        "case_10": "10",
        "case_11": "11",
        "case_12": "12",
    }
    out = tmp_path / "out"
    options = ("-map", path, "--save_probabilities")
    assert run("review", "-i", folder, "-o", out, *options) == 0
    calibration_map = CalibrationMap.load(path)
    names = {"1": "anterior", "2": "posterior"}
    if labels is REGIONS:
        names = {"(1, 2)": "whole", "2": "core"}
    assert calibration_map.names == names
    assert calibration_map.regions == (labels is REGIONS)
    predicted = {file.name for file in folder.iterdir() if file.name.startswith("case_")}
    described = {"dataset.json", "plans.json"}
    lists = {"index.html", "prediction.json", "review.csv", "structures.csv", "scans.csv"}
    kept = {"calibration_applied.json", "records", "review", "review_args.json"}
    assert {file.name for file in out.iterdir()} == predicted | described | lists | kept
    calibrate_probabilities = calibration_map.calibration()
    for calibrated in out.glob("*.npz"):
        original = np.load(folder / calibrated.name)["probabilities"]
        expected = calibrate_probabilities(original)
        np.testing.assert_allclose(np.load(calibrated)["probabilities"], expected, rtol=1e-6)
        image = sitk.ReadImage(f"{out / calibrated.stem}.nii.gz")
        stock = sitk.ReadImage(f"{folder / calibrated.stem}.nii.gz")
        assert image.GetSpacing() == stock.GetSpacing()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(stock))
    assert run("evaluate", "-i", out, "-gt", model.references) == 0
    digest = sha256(path.read_bytes()).hexdigest()
    assert read_dict(out / "calibration.json")["map_sha256"] == digest
    ensemble_folders([str(folder), str(out)], str(tmp_path / "ensemble"), num_processes=1)
    assert len(list((tmp_path / "ensemble").glob("*.nii.gz"))) == 6

    times = {file: file.stat().st_mtime_ns for file in out.glob("*.nii.gz")}
    (out / "case_00.npz").unlink()
    (out / ".0123456789ab.nnunet_nacl.tmp").mkdir()  # what a kill leaves
    (out / ".0123456789ab.nnunet_nacl.tmp" / "case_00.nii.gz").write_bytes(b"half")
    assert run("review", "-i", folder, "-o", out, *options) == 0
    changed = [file.name for file, time in times.items() if file.stat().st_mtime_ns != time]
    assert changed == ["case_00.nii.gz"]
    assert not list(out.glob(".*"))
    assert run("review", "-i", out, "-o", tmp_path / "twice", *options) == 0  # once is enough
    once = np.load(out / "case_01.npz")["probabilities"]
    np.testing.assert_array_equal(
        once, np.load(tmp_path / "twice" / "case_01.npz")["probabilities"]
    )
    capsys.readouterr()
    assert run("calibrate", "-i", out, "-gt", model.references) == 2
    assert "calibrated already" in capsys.readouterr().err


def test_a_given_map_is_taken_for_a_model_that_came_without_validation(make, tmp_path, capsys):
    model = make()
    for fold in (0, 1):
        shutil.rmtree(model.validation(fold))
    maps = {
        "temperature": map_from_tables([0.5, 0.5], [0, 0]),
        "shift": map_from_tables([0.5, 0.5], [0.1, 0.2]),
    }
    content = map_to_json(maps, "shift", STRUCTURES)
    write_json(tmp_path / "ours.json", content)
    assert calibrate(model, "-map", tmp_path / "ours.json") == 0
    path = model.folder / "calibration_map.json"  # which predict reads
    assert path.read_text() == (tmp_path / "ours.json").read_text()
    path.unlink()
    of_others = {"origin": {"checkpoint_sha256": {"1": "0" * 64}}}
    for change, message in (
        (of_others, "fitted to other networks than those of fold 1"),
        ({"schema_version": 1}, "run `nnunet_nacl calibrate` again"),
    ):
        write_json(tmp_path / "ours.json", content | change)
        capsys.readouterr()
        assert calibrate(model, "-map", tmp_path / "ours.json") == 2
        assert message in capsys.readouterr().err
        assert not path.exists()


def test_predictions_of_other_networks_or_settings_or_none_are_refused_and_a_broken_case_is_named(
    make, capsys
):
    model = make(cases=5)
    (model.validation(0) / "case_00.npz").write_bytes(b"PK")
    (model.folder / "calibration_map.png").mkdir()
    assert calibrate(model) == 1
    error = capsys.readouterr().err
    assert "case_00.npz" in error
    assert "the map is written, its figure is not: " in error
    path = model.folder / "calibration_map.json"
    calibration_map = CalibrationMap.load(path)
    assert len(calibration_map.fitted.part_of) == 9
    assert list(calibration_map.origin.problems) == ["case_00"]
    path.unlink()

    def refused(message, *options):
        assert calibrate(model, "-device", "cpu", *options) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "\nnnunet_nacl calibrate: error:" in f"\n{error}"
        assert not path.exists()

    os.utime(model.validation(1) / "case_10.npz", (0, 0))
    refused("predictions of fold 1 are older than checkpoint_final.pth")
    for record in (model.validation(1) / "records").glob("*.npz"):
        made_by = {"step_size": 0.5, "mirroring": True, "checkpoint": "0" * 64}
        replace(read_record(record), made_by=made_by).save(record)
    refused("case_10 of fold 1 was predicted by another network than", "--any_age")
    (model.folder / "fold_0" / "checkpoint_final.pth").unlink()
    refused("fold_0 has no checkpoint_final.pth; train it, or give -f 1.", "-f", "0", "1")
    (model.folder / "fold_0").rename(model.folder / "gone")
    (model.folder / "fold_1").rename(model.folder / "fold_all")
    refused("trained on every case")
    (model.folder / "fold_all" / "checkpoint_final.pth").unlink()
    refused("has no fold with a checkpoint_final.pth")


def test_a_structure_that_no_case_has_is_named_and_stays_as_the_prior_map_has_it(
    tmp_path, predict, capsys
):
    # each structure is worse than the one before; the last is a ghost
    num = 14
    rng = np.random.default_rng(0)
    labels = {"background": 0, **{f"s{i}": i for i in range(1, num)}, "ghost": num}
    folder = predict(labels=labels, cases=0)
    truth = np.zeros((4, 12, 2 * num), np.uint8)
    for label in range(1, num):
        truth[:, 3:9, 2 * label - 1 : 2 * label + 1] = label
    (tmp_path / "truth").mkdir()
    for case in range(10):
        logits = 1.5 * rng.normal(size=(num + 1, *truth.shape))
        logits += (7.0 - 0.45 * truth) * (np.arange(num + 1).reshape(-1, 1, 1, 1) == truth)
        probs = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
        segmentation = probs.argmax(0).astype(np.uint8)
        write_prediction(folder, f"case_{case}", probs, segmentation, SPACING_MM)
        # all of it is invented in the first case
        write_image(truth * (case > 0), tmp_path / "truth" / f"case_{case}.nii.gz", SPACING_MM)
    path = tmp_path / "map.json"
    assert run("calibrate", "-i", folder, "-gt", tmp_path / "truth", "-o", path) == 0
    assert "ghost: 0 patients tell of it, an interval of 90 % needs 9" in capsys.readouterr().out
    calibration_map = CalibrationMap.load(path)
    structures = {row["structure"] for row in calibration_map.maps["conditional"]["rows"]}
    assert structures == set(range(num - 1))
    assert calibration_map.learned.checks["dice"][str(num)].n == 0
    assert run("review", "-i", folder, "-map", path, "-o", tmp_path / "out") == 0
    rows = read_list(tmp_path / "out")
    # as many as an interval needs
    assert sum(float(row["ghost volume_ml"]) > 0 for row in rows) >= 9
    for value in ("predicted_dice_low", "predicted_volume_low_ml", "present_probability"):
        assert {row[f"ghost {value}"] for row in rows} == {""}
    assert all(row["s1 predicted_dice_low"] for row in rows)


def test_sensitive_labels_that_cannot_be_had_say_why():
    size = len(THRESHOLDS) + 1
    few = LearnedRecall(
        n_patients=5,
        missed=[0.0] * (size - 1) + [0.3],
        times_larger=[2.0] * size,
        false_voxels=[10.0] * size,
    )
    text = recall_costs_text({"1": few}, {"1": "infarct", "2": "scar"})
    [row] = [line for line in text.splitlines() if line.startswith("infarct")]
    assert row.split()[-3:] == ["-", "-", "5"]
    legend = " ".join(text.split())
    assert "-: not available (infarct: it takes 9 calibration patients who have it, there" in legend
    assert "; scar: no calibration patient has it)." in legend
