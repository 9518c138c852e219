"""`nnunet_nacl calibrate -i IMAGES -gt LABELS` with a model: images in, predicted as the model is
used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.calibration.map_file import load_prior_map
from nnunet_nacl.calibration.map_parts import loaded_map
from nnunet_nacl.cases.record import CaseRecord, find_record
from nnunet_nacl.cli.main import main
from nnunet_nacl.nnunet import predicted as source
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.utilities.files import checksum
from tests.nnunet.untrained import (
    SHAPE,
    SPACING_MM,
    make_model,
    make_scans,
    predict_with_nnunet,
    write_scan,
)
from tests.nnunet.untrained import calibrate as give_map
from tests.runs.folders import CLASSES, REGIONS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def predicted(monkeypatch) -> list[str]:
    """Names of the cases that networks were asked about."""
    names = []
    predict = source.Network.predict

    def predict_and_note(network, preprocessed):
        names.append(preprocessed.case.name)
        return predict(network, preprocessed)

    monkeypatch.setattr(source.Network, "predict", predict_and_note)
    return names


def calibrate(model: Path, scans: Path, truths: Path, *arguments: object) -> int:
    files = ["-i", scans, "-gt", truths, "-m", model]
    command = ["calibrate", *files, "-device", "cpu", "-np", 1, *arguments]
    return main([*map(str, command)])


def write_truths(folder: Path, label_maps: dict[str, np.ndarray]) -> Path:
    """Label maps that a network of random weights is right about in nine voxels of ten."""
    folder.mkdir()
    for number, (case, label_map) in enumerate(label_maps.items()):
        rng = np.random.default_rng(number)
        is_wrong = rng.random(label_map.shape) < 0.1
        truth = np.where(is_wrong, rng.integers(0, 3, SHAPE), label_map)
        write_scan(folder / f"{case}.nii.gz", truth.astype(np.uint8))
    return folder


def assert_measured(
    record: CaseRecord, label_map: np.ndarray, labels: dict[str, int | list[int]]
) -> None:
    """A record is of nnU-Net's segmentation by the mean of two folds."""
    voxel_ml = np.prod(SPACING_MM) / 1000
    volumes = [(label_map == label).sum() * voxel_ml for label in (1, 2)]
    if labels is REGIONS:
        volumes[0] += volumes[1]
    assert record.structures.volume.tolist() == pytest.approx(volumes)
    assert record.structures.members_dice.between(0, 1, inclusive="left").all()


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_images_are_predicted_by_all_folds_and_never_again(tmp_path, labels, predicted, capsys):
    model = make_model(tmp_path, labels=labels, folds=2)
    scans = make_scans(tmp_path / "scans", 7)
    expected = predict_with_nnunet(model, scans, tmp_path / "theirs", (0, 1))
    truths = write_truths(tmp_path / "truths", expected)
    (truths / "scan_6.nii.gz").unlink()  # an image that nobody has labelled
    for channel in range(2):
        write_scan(scans / f"bad_{channel:04d}.nii.gz", np.full(SHAPE, np.nan, np.float32))
    write_scan(truths / "bad.nii.gz", np.ones(SHAPE, np.uint8))
    assert calibrate(model, scans, truths) == 1
    printed = capsys.readouterr()
    place = model / "calibration_map_records"
    assert "is taken for images: folds 0, 1 predict them" in printed.err
    assert f"bad: {scans / 'bad_0000.nii.gz'}: cannot be read as an image" in printed.err
    assert "single networks" not in printed.out
    records = {path.stem: find_record(place, path.stem) for path in place.glob("*.npz")}
    assert sorted(predicted) == sorted(records) == [f"scan_{i}" for i in range(6)]
    for case, record in records.items():
        assert_measured(record, expected[case], labels)
    document = json.loads((model / "calibration_map.json").read_text())
    origin = document["origin"]
    parts = document["fitted"]["cross_fit"].values()
    assert sum(len(part["cases"]) for part in parts) == 6
    assert list(origin["problems"]) == ["bad"]
    assert document["quality"]["learned"]["as_deployed"] is True
    assert origin["inference"] == {"step_size": 0.5, "mirroring": True}
    hashes = {fold: checksum(model / f"fold_{fold}" / "checkpoint_final.pth") for fold in "01"}
    assert origin["checkpoint_sha256"] == hashes
    assert Calibrator.of_model(TrainedModel.open(model)).log_odds_map is not None

    if labels is CLASSES:  # whether a case is predicted again does not depend on the kind of labels
        check_what_is_predicted_again(model, scans, truths, predicted)
        check_one_fold(model, scans, truths, tmp_path / "one.json")
        predicted.clear()
        np.savez(tmp_path / "one_records" / "scan_4.npz", mine=np.zeros(3))
        assert calibrate(model, scans, truths, "-f", "1", "-o", tmp_path / "one.json") == 2
        said = "one_records/scan_4.npz: not written by nnunet_nacl, and would be lost; move it away"
        assert said in capsys.readouterr().err and not predicted


def check_what_is_predicted_again(
    model: Path, scans: Path, truths: Path, predicted: list[str]
) -> None:
    """Of cases that were predicted: what has no record, and what has changed."""
    predicted.clear()
    (model / "calibration_map_records" / "scan_3.npz").unlink()
    assert calibrate(model, scans, truths) == 1
    assert predicted == ["scan_3"]
    predicted.clear()
    # an image that was corrected
    shutil.copy(scans / "scan_5_0001.nii.gz", scans / "scan_2_0001.nii.gz")
    assert calibrate(model, scans, truths) == 1
    assert predicted == ["scan_2"]


def check_one_fold(model: Path, scans: Path, truths: Path, output: Path) -> None:
    """One fold, without mirroring, is another network: it has records and a map of its own."""
    assert calibrate(model, scans, truths, "-f", "1", "--disable_tta", "-o", output) == 1
    origin = json.loads(output.read_text())["origin"]
    assert origin["inference"] == {"step_size": 0.5, "mirroring": False}
    assert list(origin["checkpoint_sha256"]) == ["1"]
    assert (output.parent / "one_records" / "scan_0.npz").is_file()


def test_what_cannot_be_predicted_is_said_before_the_work(tmp_path, predicted, capsys):
    scans = make_scans(tmp_path / "scans")
    truths = tmp_path / "truths"
    truths.mkdir()
    model = make_model(tmp_path / "plain")
    assert calibrate(model, scans, truths) == 2
    assert "holds the label map (CASE.nii.gz) of none of the 2 images" in capsys.readouterr().err
    write_truths(tmp_path / "labels", {f"scan_{i}": np.zeros(SHAPE, np.uint8) for i in range(2)})
    assert (
        calibrate(make_model(tmp_path / "cascade", cascade=True), scans, tmp_path / "labels") == 2
    )
    error = capsys.readouterr().err
    assert "is a cascade" in error and "give that folder without a model" in error
    assert not predicted and not list(tmp_path.rglob("*_records"))


def test_cases_that_a_fold_was_trained_on_are_refused(tmp_path, monkeypatch, predicted, capsys):
    model = make_model(tmp_path, folds=1)
    scans = make_scans(tmp_path / "scans", 3)
    truths = write_truths(
        tmp_path / "truths", {f"scan_{i}": np.full(SHAPE, i % 2, np.uint8) for i in range(3)}
    )
    dataset = (
        tmp_path / "preprocessed" / json.loads((model / "plans.json").read_text())["dataset_name"]
    )
    (dataset / "gt_segmentations").mkdir(parents=True)
    splits = [{"train": ["scan_0", "scan_1"], "val": ["scan_2"]}]
    (dataset / "splits_final.json").write_text(json.dumps(splits))
    shutil.copy(truths / "scan_1.nii.gz", dataset / "gt_segmentations")
    # another case of this name
    write_scan(dataset / "gt_segmentations" / "scan_0.nii.gz", np.ones(SHAPE, np.uint8))
    monkeypatch.setenv("nnUNet_preprocessed", str(dataset.parent))
    assert calibrate(model, scans, truths) == 2 and not predicted
    assert "1 of 3 cases were used to train these folds: scan_1" in capsys.readouterr().err
    images = tmp_path / "raw" / dataset.name / "imagesTr"
    shutil.copytree(scans, images)  # scan_0 by its image, too
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    assert calibrate(model, scans, truths) == 2
    assert (
        "2 of 3 cases were used to train these folds: scan_0, scan_1"
        in capsys.readouterr().err.replace(" and", ",")
    )
    # they are too few, which is said before they are predicted
    assert calibrate(model, scans, truths, "--allow-training-cases") == 2 and not predicted
    assert "3 held-out cases are too few to calibrate, it takes 5" in capsys.readouterr().err


def test_the_map_that_lies_in_the_model_is_not_applied_on_the_way(tmp_path):
    model = make_model(tmp_path)
    scans = make_scans(tmp_path / "scans", 5)
    truths = write_truths(
        tmp_path / "truths", predict_with_nnunet(model, scans, tmp_path / "theirs", (0,))
    )
    slopes = []
    for name in ("first", "second"):
        assert (
            calibrate(model, scans, truths, "-form", "temperature", "-o", tmp_path / f"{name}.json")
            == 0
        )
        slopes.append(
            json.loads((tmp_path / f"{name}.json").read_text())["maps"]["temperature"]["slopes"]
        )
        give_map(model)
    assert slopes[0] == slopes[1]


def test_few_cases_are_drawn_to_the_map_of_the_folds(tmp_path, capsys):
    model = make_model(tmp_path, folds=2)
    scans = make_scans(tmp_path / "scans", 6)
    truths = write_truths(
        tmp_path / "truths", predict_with_nnunet(model, scans, tmp_path / "theirs", (0, 1))
    )
    path = give_map(model, as_deployed=False)
    before = json.loads(path.read_text())
    assert calibrate(model, scans, truths) == 0
    printed = capsys.readouterr().out
    found = json.loads(path.read_text())
    given = found["maps"]["given"]
    earlier = before["maps"][before["form"]]
    np.testing.assert_allclose(
        *(loaded_map(content, False).coefficients for content in (given, earlier))
    )
    assert "note: the map is shrunk towards that of the model" in printed
    assert (
        found["quality"]["learned"] == before["quality"]["learned"]
        and "6 patients; with fewer than 9" in printed
    )
    assert {tried["form"] for tried in found["fitted"]["forms"]} == {
        "temperature",
        "given",
        "conditional",
    }
    assert Calibrator.of_model(TrainedModel.open(model)).log_odds_map is not None

    assert calibrate(model, scans, truths) == 0  # drawn to the same map, not to its own
    again = json.loads(path.read_text())
    assert again["maps"] == found["maps"] and again["quality"] == found["quality"]
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(b"another network")
    networks = {fold: checksum(model / f"fold_{fold}" / "checkpoint_final.pth") for fold in "01"}
    labels = PredictionFolder.open(model, need_reference=False).labels
    assert load_prior_map(path, labels, networks, again["origin"]["inference"]) is None
