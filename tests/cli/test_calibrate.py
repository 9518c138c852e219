"""`nnunet_nacl calibrate`, and `nnunet_nacl review` with its map, as a user types them."""

from __future__ import annotations

import json
import os
import shutil
from hashlib import sha256

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.cases.checkpoints import CALIBRATED, MARK
from nnunet_nacl.cli.main import main
from nnunet_nacl.documents.document import read_document
from nnunet_nacl.documents.map_file import map_to_json, read_map
from nnunet_nacl.json_files import read_dict
from tests.calibration.models import make_trained
from tests.cases.folders import CLASSES, REGIONS, write_json

STRUCTURES = {"1": "anterior", "2": "posterior"}


def run(*arguments) -> int:
    return main([*map(str, arguments), "-np", "1"])


@pytest.fixture
def make(tmp_path, monkeypatch):
    def build(**arguments):
        model = make_trained(tmp_path / "nnunet", **{"cases": 3, "folds": 2, "sharpness": 2.0} | arguments)
        for name, value in model.environment.items():
            monkeypatch.setenv(name, value)
        return model

    return build


def apply(folder, path, output) -> int:
    """Write calibrated predictions."""
    return run("review", "-i", folder, "-map", path, "-decide", "argmax", "--save_probabilities", "-o", output)


def calibrate(model, *arguments) -> int:
    return run("calibrate", "-d", model.dataset, "-c", "3d_fullres", *arguments)


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_a_model_is_calibrated_in_one_command(make, labels, capsys):
    model = make(labels=labels)
    validation = {fold: {p.name for p in model.validation(fold).iterdir()} for fold in (0, 1)}
    assert calibrate(model) == 0
    printed = capsys.readouterr().out
    assert "slope" in printed and "NLL all" in printed and f"fold_1/{CALIBRATED}" in printed
    assert "6 patients with this structure, an interval of 90 % needs 9" in printed
    assert "from single networks" in printed
    document = read_dict(model.folder / "calibration_map.json")
    assert document["quality"]["learned"]["decided"]["as_deployed"] is False
    assert set(document["cross_fit"]) == {"fold_0", "fold_1"} and document["n_cases"] == 6
    assert document["effect"]["NLL all"]["difference"]["mean"] < 0 and "groups" not in document
    for fold in (0, 1):
        path = model.folder / f"fold_{fold}" / CALIBRATED
        assert document["checkpoint_sha256"][str(fold)] == sha256(path.read_bytes()).hexdigest()
        checkpoint = torch.load(path, weights_only=False)
        assert [row["slope"] for row in checkpoint[MARK]["structures"]] == [
            row["slope"] for row in document["structures"]
        ]
        after = read_document(model.folder / f"fold_{fold}" / "validation_calibrated" / "calibration.json")
        assert len(after.cases) == 3
        # nothing that nnU-Net takes for a prediction has come
        new = {p.name for p in model.validation(fold).iterdir()} - validation[fold]
        assert new == {"calibration.json", "calibration_samples"}
        assert not list((model.folder / f"fold_{fold}").rglob("calibration_samples/*.npz"))


def test_what_is_reported_of_a_fold_comes_from_a_map_that_has_not_seen_it(make):
    model = make()
    assert calibrate(model, "--no-checkpoints") == 0
    first = read_dict(model.folder / "calibration_map.json")["cross_fit"]["fold_0"]
    for path in model.validation(0).glob("*.npz"):
        probs = np.load(path)["probabilities"]
        np.savez_compressed(path, probabilities=probs[[0, 2, 1]])
    assert calibrate(model, "--no-checkpoints") == 0
    again = read_dict(model.folder / "calibration_map.json")
    assert again["cross_fit"]["fold_0"]["slopes"] == pytest.approx(first["slopes"], abs=1e-4)
    assert abs(again["structures"][0]["slope"] - first["slopes"][0]) > 0.05
    assert not (model.folder / "fold_0" / CALIBRATED).exists()


def test_without_probabilities_samples_stand_in(make, capsys):
    model = make()
    assert calibrate(model, "--no-checkpoints") == 0
    exact = read_dict(model.folder / "calibration_map.json")
    for fold in (0, 1):
        for path in model.validation(fold).glob("*.npz"):
            path.unlink()
    assert calibrate(model, "--no-checkpoints") == 0
    sampled = read_dict(model.folder / "calibration_map.json")
    printed = capsys.readouterr().out
    assert exact["measured_on"] == "all voxels" and sampled["measured_on"].startswith("samples")
    assert "sampling error" in printed
    assert (
        sampled["quality"]["learned"].keys() == exact["quality"]["learned"].keys()
        and "estimates from samples" in printed
    )
    assert exact["quality"]["n_estimated_from_samples"] == 0 < sampled["quality"]["n_estimated_from_samples"]
    for one, other in zip(exact["structures"], sampled["structures"]):
        assert one["slope"] == pytest.approx(other["slope"], abs=one["slope_standard_error"])
    for name in ("NLL all", "ECE predicted", "Dice 1"):
        assert sampled["effect"][name]["after"]["mean"] == pytest.approx(
            exact["effect"][name]["after"]["mean"], abs=5e-3
        )


def predictions(model, tmp_path, name="predictions"):
    """As nnUNetv2_predict writes them, of the cases of fold 0 and 1."""
    folder = tmp_path / name
    folder.mkdir()
    for fold in (0, 1):
        for path in model.validation(fold).iterdir():
            shutil.copy2(path, folder)
    for file in ("dataset.json", "plans.json"):
        shutil.copy2(model.folder / file, folder)
    return folder


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_a_folder_is_calibrated_and_the_result_is_one_of_nnunet(make, labels, tmp_path, capsys):
    from nnunetv2.ensembling.ensemble import ensemble_folders

    model = make(labels=labels)
    folder = predictions(model, tmp_path)
    assert run("calibrate", "-i", folder, "-gt", model.references, "-groups", "case_([0-9]+)") == 0
    fitted = read_dict(folder / "calibration_map.json")
    assert fitted["groups"] == {f"case_{i}{j}": f"{i}{j}" for i in (0, 1) for j in range(3)}
    out = tmp_path / "out"
    assert apply(folder, folder / "calibration_map.json", out) == 0
    calibration = read_map(
        folder / "calibration_map.json",
        {"1": "anterior", "2": "posterior"} if labels is CLASSES else {"(1, 2)": "whole", "2": "core"},
        labels is REGIONS,
    )
    names = {p.name for p in folder.iterdir() if p.name.startswith("case_")} | {"dataset.json", "plans.json"}
    ours = {"calibration_applied.json", "index.html", "prediction.json", "review.csv", "review", "review_args.json"}
    assert {p.name for p in out.iterdir()} == names | ours
    for path in out.glob("*.npz"):
        probs = np.load(path)["probabilities"]
        np.testing.assert_allclose(probs, calibration(np.load(folder / path.name)["probabilities"]), rtol=1e-6)
        image = sitk.ReadImage(str(path)[:-4] + ".nii.gz")
        assert image.GetSpacing() == sitk.ReadImage(str(folder / path.name)[:-4] + ".nii.gz").GetSpacing()
        if labels is CLASSES:
            np.testing.assert_array_equal(sitk.GetArrayFromImage(image), probs.argmax(0))
    assert run("evaluate", model.references, out) == 0
    named = sha256((folder / "calibration_map.json").read_bytes()).hexdigest()
    assert read_dict(out / "calibration.json")["map_sha256"] == named
    ensemble_folders([str(folder), str(out)], str(tmp_path / "ensemble"), num_processes=1)
    assert len(list((tmp_path / "ensemble").glob("*.nii.gz"))) == 6

    times = {p: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")}
    (out / "case_00.npz").unlink()
    (out / ".unfinished-0123").mkdir()  # what a kill leaves
    (out / ".unfinished-0123" / "case_00.nii.gz").write_bytes(b"half")
    assert apply(folder, folder / "calibration_map.json", out) == 0
    assert [p.name for p, time in times.items() if p.stat().st_mtime_ns != time] == ["case_00.nii.gz"]
    assert not list(out.glob(".*"))
    capsys.readouterr()
    assert apply(out, folder / "calibration_map.json", tmp_path / "twice") == 0  # once is enough
    once, twice = (np.load(place / "case_01.npz")["probabilities"] for place in (out, tmp_path / "twice"))
    np.testing.assert_array_equal(once, twice)
    assert run("calibrate", "-i", out, "-gt", model.references) == 2
    assert "calibrated already" in capsys.readouterr().err


def test_a_folder_of_other_images_is_not_written_into(make, tmp_path, capsys):
    folder = predictions(make(), tmp_path)
    write_json(tmp_path / "map.json", map_to_json(AffineMap([1, 1], [0, 0]), STRUCTURES))
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "case_00.nii.gz").write_bytes(b"a scan")
    assert apply(folder, tmp_path / "map.json", scans) == 2
    assert "holds other images or predictions (case_00.nii.gz)" in capsys.readouterr().err
    assert [(p.name, p.read_bytes()) for p in scans.iterdir()] == [("case_00.nii.gz", b"a scan")]


def test_another_map_leaves_nothing_of_the_one_before(make, tmp_path):
    folder = predictions(make(), tmp_path)
    for slope in (1.0, 0.5):
        write_json(tmp_path / "map.json", map_to_json(AffineMap([slope] * 2, [0, 0]), STRUCTURES))
        assert apply(folder, tmp_path / "map.json", tmp_path / "out") == 0
    probs = np.load(tmp_path / "out" / "case_00.npz")["probabilities"]
    original = np.load(folder / "case_00.npz")["probabilities"]
    np.testing.assert_allclose(probs, AffineMap([0.5] * 2, [0, 0])(original), rtol=1e-6)


def test_a_broken_case_is_named_and_the_others_are_done(make, tmp_path, capsys):
    model = make(cases=4)
    (model.validation(0) / "case_00.npz").write_bytes(b"PK")
    assert calibrate(model, "--no-checkpoints") == 1
    assert "case_00.npz" in capsys.readouterr().err
    assert read_dict(model.folder / "calibration_map.json")["n_cases"] == 7


def test_a_given_map_is_written_into_a_model_that_came_without_validation(make, tmp_path):
    model = make()
    for fold in (0, 1):
        shutil.rmtree(model.validation(fold))
    write_json(tmp_path / "ours.json", map_to_json(AffineMap([0.5, 0.5], [0.1, 0.2]), STRUCTURES))
    assert calibrate(model, "-map", tmp_path / "ours.json") == 0
    made = torch.load(model.folder / "fold_1" / CALIBRATED, weights_only=False)
    assert [row["offset"] for row in made[MARK]["structures"]] == [0.1, 0.2]
    assert read_dict(model.folder / "calibration_map.json") == read_dict(tmp_path / "ours.json")  # predict reads it


def test_folds_that_keep_an_earlier_map_are_named(make, tmp_path, capsys):
    model = make(cases=6)
    assert calibrate(model) == 0
    assert "earlier map" not in capsys.readouterr().out
    assert calibrate(model, "-f", "0") == 0
    assert f"{CALIBRATED} of fold 1 holds another, earlier map" in capsys.readouterr().out
    assert "of fold 1 holds another" in read_dict(model.folder / "calibration_map.json")["notes"][-1]
    write_json(tmp_path / "ours.json", map_to_json(AffineMap([0.5, 0.5], [0.1, 0.2]), STRUCTURES))
    assert calibrate(model, "-f", "1", "-map", tmp_path / "ours.json") == 0
    assert "of fold 0 holds another" in capsys.readouterr().out


def test_the_settings_of_an_earlier_evaluation_stay(make):
    model = make()
    assert run("evaluate", "-d", model.dataset, "-c", "3d_fullres", "-dilated", "3", "-bins", "10") == 0
    assert calibrate(model, "--no-checkpoints") == 0
    for folder in (model.validation(0), model.folder / "fold_0" / "validation_calibrated"):
        settings = read_document(folder / "calibration.json").settings
        assert (settings.dilation_mm, settings.n_bins) == (3.0, 10)


def test_a_cascade_is_told_what_is_calibrated(make, capsys):
    model = make()
    plans = read_dict(model.folder / "plans.json")
    plans["configurations"]["3d_fullres"]["previous_stage"] = "3d_lowres"
    plans["configurations"]["3d_fullres"]["next_stage"] = "3d_more"
    write_json(model.folder / "plans.json", plans)
    assert calibrate(model, "--no-checkpoints") == 0
    printed = capsys.readouterr().out
    assert "Predict 3d_lowres with its original checkpoint" in printed and "3d_more was trained on" in printed


def no_posterior(model):
    for path in model.references.iterdir():
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
        array[array == 2] = 1
        changed = sitk.GetImageFromArray(array)
        changed.CopyInformation(image)
        sitk.WriteImage(changed, str(path))


def calibrated_original(model):
    path = model.folder / "fold_1" / "checkpoint_final.pth"
    torch.save(torch.load(path, weights_only=False) | {MARK: {}}, path)
    os.utime(path, (1, 1))


def older(model):
    os.utime(model.validation(1) / "case_10.npz", (0, 0))


def few(model):
    for name in ("case_00", "case_01"):
        for path in model.validation(0).glob(f"{name}.*"):
            path.unlink()


def only_all(model):
    for fold in (0, 1):
        (model.folder / f"fold_{fold}").rename(model.folder / ("fold_all" if fold else "gone"))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (no_posterior, "no held-out case has a voxel of 2 posterior"),
        (calibrated_original, "fold_1/checkpoint_final.pth is calibrated already"),
        (older, "fold_1/validation are older than checkpoint_final.pth"),
        (few, "4 held-out cases are too few"),
        (only_all, "trained on every case"),
        (lambda model: (model.folder / "fold_0" / "checkpoint_final.pth").unlink(), "no such checkpoint"),
    ],
)
def test_what_cannot_be_calibrated_says_so_and_leaves_nothing(make, capsys, spoil, message):
    model = make()
    spoil(model)
    assert calibrate(model) == 2
    assert message in capsys.readouterr().err
    assert not list(model.folder.rglob(CALIBRATED)) and not (model.folder / "calibration_map.json").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_model_folder_is_named_before_the_work(make, capsys):
    model = make()
    (model.folder / "fold_0").chmod(0o500)
    try:
        assert calibrate(model) == 2
    finally:
        (model.folder / "fold_0").chmod(0o700)
    assert "no file can be written there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content, message",
    [
        (map_to_json(AffineMap([1, 1], [0, 0]), {"1": "left", "2": "right"}), "is for the classes 1 left, 2 right"),
        (map_to_json(AffineMap([1, 1], [0, 0], True), STRUCTURES), "is for the regions"),
        ({"schema_version": 9}, "schema version 9"),
        ({"schema_version": 1, "regions": False, "structures": [{"key": "1"}]}, "not a map of `nnunet_nacl calibrate`"),
        (
            json.loads(json.dumps(map_to_json(AffineMap([1, 1], [0, 0]), STRUCTURES)).replace("1.0", "-1.0")),
            "slopes must be above 0",
        ),
    ],
)
def test_maps_that_do_not_fit(make, tmp_path, capsys, content, message):
    folder = predictions(make(), tmp_path)
    write_json(tmp_path / "map.json", content)
    assert apply(folder, tmp_path / "map.json", tmp_path / "out") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "name a model"),
        (("-d", "999"), "-d needs -c"),
        (("-i", "x"), "-i needs -gt"),
        (("-d", "999", "-c", "3d_fullres", "-f", "all"), "no such folder"),
        (("-d", "999", "-c", "3d_fullres", "-groups", "("), "regular expression"),
        (("-d", "999", "-c", "3d_fullres", "-o", "map.txt"), "must end with .json"),
    ],
)
def test_arguments_that_cannot_be_used(make, capsys, arguments, message):
    make()
    assert run("calibrate", *arguments) == 2
    assert message in capsys.readouterr().err
