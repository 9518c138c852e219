"""Folders of scans in; segmentations and lists out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from nnunet_nacl import Predictor
from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.metrics.expected_dice import expected_dice
from nnunet_nacl.metrics.voxel_uncertainty import normalised_entropy
from nnunet_nacl.nnunet.preprocessing import preprocess
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.utilities.errors import UserError
from tests.nnunet.untrained import (
    SHAPE,
    SPACING_MM,
    calibrate,
    copy_model,
    digests,
    make_model,
    make_scans,
    predict,
    predict_with_nnunet,
    segmentations,
    write_scan,
)
from tests.review_tables import read_list
from tests.runs.folders import (
    CLASSES,
    CLASSES_WITH_IGNORE,
    REGIONS,
    REGIONS_WITH_IGNORE,
    read,
    write_json,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(output: Path) -> list[dict[str, str]]:
    return read_list(output, errors="surrogateescape")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Two folds, not calibrated."""
    return make_model(tmp_path_factory.mktemp("model"), folds=2)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Path:
    folder = make_model(tmp_path_factory.mktemp("calibrated"))
    calibrate(folder)
    return folder


@pytest.fixture
def scans(tmp_path) -> Path:
    return make_scans(tmp_path / "scans")


@pytest.mark.slow
@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("labels", [CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE])
def test_segmentations_are_those_of_nnunet_bit_by_bit(tmp_path, scans, labels, folds) -> None:
    folder = make_model(tmp_path, labels=labels, folds=folds)
    expected = predict_with_nnunet(folder, scans, tmp_path / "theirs", tuple(range(folds)))
    assert predict(folder, scans, tmp_path / "ours") == 0
    for case, found in segmentations(tmp_path / "ours").items():
        np.testing.assert_array_equal(found, expected.pop(case))
    assert not expected


def test_a_cascade_is_given_the_stage_before(tmp_path, scans, capsys) -> None:
    folder = make_model(tmp_path, cascade=True)
    previous = tmp_path / "previous"
    previous.mkdir()
    for i in range(2):
        labels = np.random.default_rng(i).integers(0, 3, SHAPE).astype(np.uint8)
        write_scan(previous / f"scan_{i}.nii.gz", labels)
    expected = predict_with_nnunet(folder, scans, tmp_path / "theirs", (0,), previous)
    assert predict(folder, scans, tmp_path / "without") == 2
    assert predict(folder, scans, tmp_path / "ours", "-prev_stage_predictions", previous) == 0
    found = segmentations(tmp_path / "ours")
    assert found.keys() == expected.keys()
    predictor = Predictor(folder, device="cpu")
    for case, segmentation in found.items():
        np.testing.assert_array_equal(segmentation, expected[case])
        image, properties = _read(scans, case)
        before = read(previous / f"{case}.nii.gz")
        answer = predictor.predict(image, properties, previous_stage=before)
        np.testing.assert_array_equal(answer.segmentation, segmentation)
    for wrong, said in (
        (before[1:], "has the shape (8, 17, 14), the image has"),
        (before + 7, "the label 7, 8, 9"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            predictor.predict(image, properties, previous_stage=wrong)
    write_scan(previous / "scan_0.nii.gz", np.ones(SHAPE, np.uint8), (2.0, 1.0, 0.9))
    write_scan(previous / "scan_1.nii.gz", np.full(SHAPE, 7, np.uint8))
    capsys.readouterr()
    assert predict(folder, scans, tmp_path / "out", "-prev_stage_predictions", previous) == 2
    error = capsys.readouterr().err
    spacings = "(2.0, 1.0, 0.9) and (2.0, 1.0, 0.8)"
    assert (
        f"{previous / 'scan_0.nii.gz'}: other geometry than the image (spacing {spacings})" in error
    )
    assert "holds the label 7, which dataset.json does not have (0, 1, 2)" in error


def test_what_stands_beside_the_checkpoint_is_no_less_the_model_than_its_weights(
    tmp_path, model, scans
) -> None:
    folder = copy_model(model, tmp_path)
    out = tmp_path / "out"

    def as_in_a_new_folder(name: str) -> dict[str, str]:
        assert predict(folder, scans, out) == predict(folder, scans, tmp_path / name) == 0
        found = segmentations(out)
        expected = segmentations(tmp_path / name)
        for case, label_map in expected.items():
            np.testing.assert_array_equal(found[case], label_map)
        assert rows(out) == rows(tmp_path / name)
        content = json.loads((out / "prediction.json").read_text())
        return {
            **digests(out),
            "run": content["run"],
            "reasons": str([row["reasons"] for row in rows(out)]),
        }

    first = as_in_a_new_folder("first")
    plans = json.loads((folder / "plans.json").read_text())
    plans["foreground_intensity_properties_per_channel"]["0"]["std"] = 5.0
    write_json(folder / "plans.json", plans)
    second = as_in_a_new_folder("second")
    assert second["scan_0.nii.gz"] != first["scan_0.nii.gz"] and second["run"] != first["run"]
    write_json(
        folder / "dataset_fingerprint.json", {"spacings": [(9, 9, 9)], "shapes_after_crop": [SHAPE]}
    )
    assert as_in_a_new_folder("third")["reasons"] != second["reasons"]


def test_another_spacing_beside_a_tif_is_another_image(tmp_path, model, scans) -> None:
    folder = copy_model(model, tmp_path)
    tifs = tmp_path / "tifs"
    out = tmp_path / "out"
    changed = {
        "dataset.json": {"file_ending": ".tif"},
        "plans.json": {"image_reader_writer": "Tiff3DIO"},
    }
    for name, values in changed.items():
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))
    tifs.mkdir()
    for path in scans.iterdir():
        tifffile.imwrite(
            tifs / path.name.replace(".nii.gz", ".tif"), read(path), photometric="minisblack"
        )
    assert predict(folder, tifs, out) == 0
    first = digests(out)
    (tifs / "scan_1.json").write_text(json.dumps({"spacing": [4.0, 2.0, 1.6]}))
    assert predict(folder, tifs, out, "--continue_prediction") == 0
    second = digests(out)
    assert (
        second["scan_0.tif"] == first["scan_0.tif"] and second["scan_1.tif"] != first["scan_1.tif"]
    )


@pytest.mark.slow
def test_workers_and_parts_change_nothing_and_the_lists_hold_all(tmp_path, model) -> None:
    scans = make_scans(tmp_path / "scans", 3)
    assert predict(model, scans, tmp_path / "one", "-maps") == 0
    workers = (
        "-device",
        "cpu",
        "-npp",
        "1",
        "-nps",
        "1",
        "--disable_progress_bar",
        "-num_parts",
        "2",
    )
    command = [
        sys.executable,
        "-m",
        "nnunet_nacl",
        "predict",
        "-i",
        scans,
        "-o",
        tmp_path / "two",
        "-m",
        model,
    ]
    assert subprocess.run([*command, *workers, "-part_id", "0", "-maps"]).returncode == 0
    problems = [row["problem"] for row in rows(tmp_path / "two")]
    assert problems.count("not predicted yet, or failed: run the part that has it (again).") == 1
    assert predict(model, scans, tmp_path / "two", "-num_parts", 2, "-part_id", 1, "-maps") == 0
    whole = digests(tmp_path / "one")
    parts = digests(tmp_path / "two")
    assert whole.keys() == parts.keys()
    same = [name for name in whole if name.endswith((".nii.gz", ".csv"))]
    assert len(same) == 3 * 4 + 3 and all(whole[name] == parts[name] for name in same)


def test_what_folds_disagree_about_is_listed_and_mapped(tmp_path, model, scans) -> None:
    assert predict(model, scans, tmp_path / "out", "-maps") == 0
    folds = [Predictor(model, folds=[fold], device="cpu") for fold in (0, 1)]
    for row in rows(tmp_path / "out"):
        answers = [fold.predict(*_read(scans, row["case"]), probabilities=True) for fold in folds]
        probs = [answer.probabilities.array for answer in answers]
        information = normalised_entropy(sum(probs) / len(probs)) - sum(
            map(normalised_entropy, probs)
        ) / len(probs)
        path = tmp_path / "out" / "maps" / row["case"] / f"{row['case']}_mutual_information.nii.gz"
        # brought from the network's grid to the scan's
        mapped = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        assert np.corrcoef(mapped.ravel(), information.ravel())[0, 1] > 0.9
        foreground = segmentations(tmp_path / "out")[row["case"]] > 0
        told = float(row["mean_foreground_mutual_information"])
        assert (
            told == pytest.approx(information[foreground].mean(), rel=0.5)
            and row["n_members"] == "2"
        )
        masks = [answer.segmentation == 1 for answer in answers]
        volumes = [mask.sum() * np.prod(SPACING_MM) / 1000 for mask in masks]
        expected = {
            "members_dice": 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum()),
            "volume_min_ml": min(volumes),
            "volume_max_ml": max(volumes),
            "volume_ml fold_1": volumes[1],
        }
        assert {name: float(row[f"anterior {name}"]) for name in expected} == pytest.approx(
            expected, rel=0.2
        )


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_a_map_changes_no_label_and_no_saved_probability(tmp_path, scans, labels) -> None:
    folder = make_model(tmp_path, labels=labels, folds=2)
    calibrate(folder, as_deployed=False)
    expected = predict_with_nnunet(
        folder, scans, tmp_path / "theirs", (0, 1), save_probabilities=True
    )
    assert predict(folder, scans, tmp_path / "ours", "--save_probabilities", "-maps") == 0
    model = TrainedModel.open(folder)
    calibration = Calibrator.of_model(model).log_odds_map
    relabelled = 0
    for row in rows(tmp_path / "ours"):
        case = row["case"]
        label = segmentations(tmp_path / "ours")[case]
        np.testing.assert_array_equal(label, expected[case])
        ours, theirs = (
            np.load(tmp_path / place / f"{case}.npz")["probabilities"]
            for place in ("ours", "theirs")
        )
        # the last digit depends on the number of threads
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        calibrated = calibration(ours).astype(float)
        relabelled += np.count_nonzero(model.labels.label_map(calibrated) != label)
        for channel, name in zip(model.labels.foreground, model.labels.names[-2:]):
            delivered = model.labels.mask(label, channel)
            p = calibrated[channel]
            dice = 2 * p[delivered].sum() / (p.sum() + delivered.sum())
            assert float(row[f"{name} predicted_dice"]) == pytest.approx(dice, rel=1e-3)
    assert relabelled  # the most probable calibrated label would have been another


def test_a_calibrated_model_predicts_dice(tmp_path, calibrated, scans, capsys) -> None:
    assert predict(calibrated, scans, tmp_path / "other", "-step_size", 1, "--disable_tta") == 0
    said = "The calibration was fitted with step_size 0.5, here 1.0 and mirroring True, here False"
    assert (
        said in capsys.readouterr().err
        and "anterior predicted_dice_low" in rows(tmp_path / "other")[0]
    )
    assert predict(calibrated, scans, tmp_path / "out", "-bad", 0.95) == 0
    assert "fitted with" not in capsys.readouterr().err
    document = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert document["calibrated"] is True
    predictor = Predictor(calibrated, device="cpu", bad=0.95)
    for row in rows(tmp_path / "out"):
        image, properties = _read(scans, row["case"])
        answer = predictor.predict(image, properties, probabilities=True)
        assert answer.probabilities.calibrated and answer.flag is True
        assert answer["anterior"].predicted_dice == answer.structures.predicted_dice.iloc[0]
        with pytest.raises(KeyError) as unknown:
            answer["liver"]
        assert str(unknown.value) == "there is no structure 'liver'; there are anterior, posterior."
        dice = {name: row.predicted_dice for name, row in answer.items()}
        assert dice == answer.structures.predicted_dice.to_dict() and [*dice] == [
            "anterior",
            "posterior",
        ]
        np.testing.assert_array_equal(
            segmentations(tmp_path / "out")[row["case"]], answer.segmentation
        )
        dice = expected_dice(answer.probabilities.array, answer.segmentation)
        for name, expected in zip(("anterior", "posterior"), dice):
            assert float(row[f"{name} predicted_dice"]) == pytest.approx(expected, rel=1e-4)
        assert "predicted Dice 0." in row["reasons"].split("; ")[0] and answer.reasons == row[
            "reasons"
        ].split("; ")


def test_what_a_model_lacks_is_said_and_nothing_is_made_up(tmp_path, model, scans, capsys) -> None:
    assert predict(model, scans, tmp_path / "a") == 0
    assert "nnunet_nacl calibrate -d Dataset999_Synthetic" in capsys.readouterr().err
    assert not any(
        value
        for column, value in rows(tmp_path / "a")[0].items()
        if "_low" in column or "_high" in column
    )
    assert predict(model, scans, tmp_path / "b", "-bad", 0.8) == 2
    assert (
        "-bad: nothing is known of Dice: " in capsys.readouterr().err
        and not (tmp_path / "b").exists()
    )
    with pytest.raises(UserError, match=r"find goes with bad.*bad=0\.7"):
        Predictor(model, device="cpu", find=0.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bad": 1.5}, "bad is a Dice, above 0 and up to 1, got 1.5."),
        ({"bad": 0.7, "find": 2}, "find is a share, above 0 and below 1, got 2."),
        ({"bad": 0.7, "find": 0.9999}, "finding 0.9999 takes "),
        ({"checkpoint": "a/b"}, "checkpoint a/b: give the name of a file"),
        ({"folds": [7]}, "train it, or give folds=0."),
    ],
)
def test_errors_of_the_predictor_name_its_arguments(calibrated, arguments, message) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        Predictor(calibrated, **{"device": "cpu"} | arguments)
    assert not re.search(r"(?<!\w)-\w", str(error.value))


def test_a_map_of_something_else_is_refused_where_it_is_named_and_noted_where_it_lies(
    tmp_path, calibrated, scans, capsys
) -> None:
    folder = copy_model(calibrated, tmp_path)
    said = "was fitted to other networks than those of fold 0 (trained"
    path = folder / "calibration_map.json"
    content = json.loads(path.read_text())
    content["origin"]["checkpoint_sha256"]["0"] = "0" * 64
    path.write_text(json.dumps(content))
    assert predict(folder, scans, tmp_path / "named", "-map", path) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "named").exists()
    assert predict(folder, scans, tmp_path / "out") == 0
    assert said in capsys.readouterr().err
    document = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert (document["calibrated"], document["calibration_map"]) == (False, None)
    assert not any(
        value
        for column, value in rows(tmp_path / "out")[0].items()
        if "predicted_dice_low" in column
    )


LATIN_1 = os.fsdecode(b"caf\xe9")
PROBLEMS = {
    "nan": "nan_0000.nii.gz: cannot be read as an image (it holds voxels that are NaN",
    "constant": "constant_0000.nii.gz: all voxels have the value 7",
    "cut": "cut_0001.nii.gz: cannot be read as an image (truncated",
    "alone": "but the model takes 2 channels; give these alone, in one file or one for each",
    "three": "three_0002.nii.gz: is one channel too many, the model takes 2",
    "unnumbered": "rename it to unnumbered_0000.nii.gz",
    "second": "second_0000.nii.gz: is missing",
    "flat": "a 2D image, but the model is 3D",
    LATIN_1: "not UTF-8",
    "half": "half_0001.nii.gz: cannot be read (No such file",
    "LOUD": "LOUD_0000.NII.GZ: the model was trained on *.nii.gz; convert or rename it",
    "foreign": "foreign_0000.mha: the model was trained on *.nii.gz",
    "..": ".._0000.nii.gz: a folder of the case's name cannot be made; rename it",
    "wide": "by its spacing of 1000 x 1 x 1 mm it has",
    "thin": "thin_0000.nii.gz: ",
}
"""By scan what is wrong with it, see :func:`write_bad_scans`."""


def write_bad_scans(scans: Path) -> None:
    """Scans that cannot be predicted, beside good ones."""
    with_nan = np.random.default_rng(0).normal(50, 20, SHAPE).astype(np.float32)
    with_nan[2, 3, 4] = np.nan
    for channel in range(2):
        name = f"{channel:04d}.nii.gz"
        write_scan(scans / f"nan_{name}", with_nan)
        write_scan(scans / f"constant_{name}", np.full(SHAPE, 7, np.float32))
        write_scan(scans / f"wide_{name}", with_nan[:, :2], (1000.0, 1.0, 1.0))
        write_scan(scans / f"thin_{name}", with_nan[:, :2], (2.0, 1.0, 0.001))
        write_scan(scans / f"flat_{name}", with_nan[1], (1.0, 1.0))
    whole = (scans / "scan_0_0000.nii.gz").read_bytes()
    for name in (
        "cut_0000.nii.gz",
        "alone_0000.nii.gz",
        "three_0000.nii.gz",
        "three_0001.nii.gz",
        "three_0002.nii.gz",
        "unnumbered.nii.gz",
        "second_0001.nii.gz",
        "half_0000.nii.gz",
        ".._0000.nii.gz",
        ".._0001.nii.gz",
        f"{LATIN_1}_0000.nii.gz",
        f"{LATIN_1}_0001.nii.gz",
        "LOUD_0000.NII.GZ",
        "LOUD_0001.NII.GZ",
        "foreign_0000.mha",
    ):
        (scans / name).write_bytes(whole)
    (scans / "cut_0001.nii.gz").write_bytes(whole[: len(whole) // 2])
    (scans / "half_0001.nii.gz").symlink_to(scans.parent / "gone.nii.gz")


def test_bad_scans_cost_only_themselves(tmp_path, model, scans) -> None:
    write_bad_scans(scans)
    second_channel = str(scans / "scan_1_0001.nii.gz")
    image = sitk.ReadImage(second_channel)
    image.SetOrigin((0.0, 3.0, 0.0))
    sitk.WriteImage(image, second_channel)
    folder = copy_model(model, tmp_path)
    fingerprint = {"spacings": [SPACING_MM], "shapes_after_crop": [SHAPE]}
    write_json(folder / "dataset_fingerprint.json", fingerprint)
    assert predict(folder, scans, tmp_path / "out", "-maps", "entropy") == 1
    listed = {row["case"]: row for row in rows(tmp_path / "out")}
    assert listed.keys() == {*PROBLEMS, "scan_0", "scan_1"}
    for case, expected in PROBLEMS.items():
        problem = listed[case]["problem"]
        assert expected in problem
        assert str(scans) in problem and "\n" not in problem
    assert listed["scan_0"]["problem"] == listed["scan_1"]["problem"] == ""
    apart = "scan_1_0001.nii.gz lies apart from scan_1_0000.nii.gz: origin"
    assert [case for case, row in listed.items() if apart in row["reasons"]] == ["scan_1"]
    assert segmentations(tmp_path / "out").keys() == {"scan_0", "scan_1"}


def test_a_scan_of_a_size_beyond_the_training_is_predicted_when_asked_for(tmp_path, model) -> None:
    scans = make_scans(tmp_path / "scans", 1, shape=(3, 8, 8), spacing_mm=(300.0, 1.0, 1.0))
    folder = copy_model(model, tmp_path)
    write_json(
        folder / "dataset_fingerprint.json",
        {"spacings": [(2.0, 1.0, 1.0)], "shapes_after_crop": [(5, 10, 10)]},
    )
    assert predict(folder, scans, tmp_path / "refused") == 2
    assert predict(folder, scans, tmp_path / "out", "--any_size") == 0
    said = rows(tmp_path / "out")[0]["reasons"]
    assert "spacing along z 300 mm (training 2)" in said and "size along z 900 mm" in said
    image, properties = _read(scans, "scan_0")
    with pytest.raises(UserError, match="300 x 1 x 1"):
        Predictor(folder, device="cpu").predict(image, properties)
    answer = Predictor(folder, device="cpu", any_size=True).predict(image, properties)
    np.testing.assert_array_equal(answer.segmentation, segmentations(tmp_path / "out")["scan_0"])


@pytest.mark.parametrize(
    ("image", "properties", "message"),
    [
        (
            np.zeros((2, 0, 8, 8)),
            {"spacing": SPACING_MM},
            "image: an image of shape (2, 0, 8, 8) has no voxels",
        ),
        (
            np.ones((2, 4, 8, 8)),
            {},
            "image: properties has no `spacing`; give the properties that nnU-Net's reader",
        ),
        (
            np.ones((2, 4, 8, 8)),
            {"spacing": "wide"},
            "the voxel spacing is 'wide', not three numbers.",
        ),
        (
            np.full((2, 4, 8, 8), "a"),
            {"spacing": SPACING_MM},
            "image: an image must hold numbers, got <U1.",
        ),
    ],
)
def test_what_is_no_image_is_named(model, image, properties, message) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        preprocess(TrainedModel.open(model), "image", image, properties, None, source=["image"])


@pytest.mark.parametrize("known", [True, False])
def test_a_spacing_that_cannot_be_right_is_found_in_the_header(tmp_path, model, known) -> None:
    folder = copy_model(model, tmp_path)
    image = np.random.default_rng(0).normal(size=(2, *SHAPE))
    if known:
        fingerprint = {"spacings": [SPACING_MM, (3.0, 1.0, 0.8)], "shapes_after_crop": [SHAPE] * 2}
        write_json(folder / "dataset_fingerprint.json", fingerprint)
    opened = TrainedModel.open(folder)
    along_z = "2 to 3 mm" if known else "2 mm"
    for step, axis, training in (
        (1e-6, 0, along_z),
        (0.001, 1, "1 mm"),
        (1e-6, 2, "0.8 mm"),
        (1e6, 0, along_z),
    ):
        spacing = list(SPACING_MM)
        spacing[axis] = step
        with pytest.raises(UserError, match=r"^scan\.nii: by its spacing of .* mm") as caught:
            preprocess(opened, "scan", image, {"spacing": spacing}, None, source=["scan.nii"])
        if step < 1 or not known:
            assert (
                f"{step:.3g} mm long along {'zyx'[axis]}, of the training's images {training};"
                in str(caught.value)
            )


def test_an_answer_that_is_no_number_is_said(tmp_path, model, scans, capsys) -> None:
    import torch

    folder = copy_model(model, tmp_path)
    path = folder / "fold_1" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    for bad in (float("nan"), 1e30):
        for weights in content["network_weights"].values():
            weights.fill_(bad)
        torch.save(content, path)
        assert predict(folder, scans, tmp_path / "out") == 2
        [line] = [
            line for line in capsys.readouterr().err.splitlines() if "beyond half precision" in line
        ]
        assert line.startswith("  scan_0, scan_1: ") and "the network's answer is no number" in line


@pytest.mark.parametrize("name", ["scan_0.nii.gz", "dataset.json"])
def test_a_folder_of_the_user_is_left_alone(tmp_path, model, scans, name, capsys) -> None:
    out = tmp_path / "out"
    for path in (out / name, out / "review" / "notes.txt", out / "predict_from_raw_data_args.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    before = digests(out)
    assert predict(model, scans, out) == predict(model, scans, out, "--continue_prediction") == 2
    assert f"{out} holds other images or predictions (" in capsys.readouterr().err
    assert digests(out) == before


def test_only_finished_scans_are_kept(tmp_path, model, scans) -> None:
    out = tmp_path / "out"
    assert predict(model, scans, out) == 0
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    (out / "scan_1.nii.gz").write_bytes(b"")  # as a machine that stopped may leave it
    assert predict(model, scans, out, "--continue_prediction") == 0
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert [name for name in before if after[name] == before[name]] == ["scan_0.nii.gz"]
    # another setting: all again
    assert predict(model, scans, out, "--continue_prediction", "-step_size", 1) == 0
    assert all(path.stat().st_mtime_ns > after[path.name] for path in out.glob("*.nii.gz"))
    for path in scans.glob("scan_1_*"):
        path.unlink()
    assert predict(model, scans, out, "--continue_prediction") == 0
    assert [row["case"] for row in rows(out)] == ["scan_0"] and (out / "scan_1.nii.gz").is_file()


def _read(scans: Path, case: str) -> tuple[np.ndarray, dict]:
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    return SimpleITKIO().read_images(
        [str(scans / f"{case}_{channel:04d}.nii.gz") for channel in range(2)]
    )
