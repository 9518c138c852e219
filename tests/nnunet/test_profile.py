"""What a scan looks like, in numbers: closed forms, calibration and new scans alike, and images of
other sizes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunet_nacl.cases.case import Case, Labels
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.ownership import files_of_case
from nnunet_nacl.cases.record_key import file_key
from nnunet_nacl.estimators.unlike import CalibrationProfiles
from nnunet_nacl.nnunet.held_out import learn_profiles
from nnunet_nacl.nnunet.output import write_case
from nnunet_nacl.nnunet.predicted import Network
from nnunet_nacl.nnunet.profile import TrainingRange, profile, profile_names
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.scans import Images
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.settings import NetworkSettings
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import to_json_text
from nnunet_nacl.utilities.json_files import encode
from tests.nnunet.untrained import calibrate, make_model, make_scans, predict
from tests.review_tables import read_list

ORGANS = Labels(("background", "liver", "lesion"), (0, 1, 2), False, None, (0, 1, 2))
SPACING_MM = (3.0, 0.5, 0.8)


def numbers(
    image: np.ndarray, segmentation: np.ndarray, labels: Labels = ORGANS, **changes
) -> dict[str, float]:
    """The profile of a scan whose network's grid is its own, by name."""
    box = [[0, size] for size in segmentation.shape]
    properties = {"spacing": SPACING_MM, "bbox_used_for_cropping": box} | changes
    image = image if image.ndim == 4 else image[None]
    names = profile_names(labels, [f"MR {i}" for i in range(len(image))])
    values = profile(image, segmentation, labels, properties, (0, 1, 2))
    assert len(names) == len(values) <= 40
    return dict(zip(names, values.tolist()))


def ball(shape=(16, 48, 64)) -> np.ndarray:
    """A liver with a lesion in it."""
    z, y, x = np.indices(shape)
    far = np.hypot((y - 24) / 16, (x - 32) / 20)
    inside = np.abs(z - 8) < 5
    return np.where(inside & (far < 0.4), 2, np.where(inside & (far < 1), 1, 0))


def test_noise_and_quantiles_of_white_noise_on_a_slope_that_is_none():
    rng = np.random.default_rng(0)
    for sigma in (0.1, 1.0):
        noise = rng.normal(2, sigma, (16, 48, 64))
        seen = numbers(noise, ball())
        assert seen["log noise (MR 0)"] == pytest.approx(math.log(sigma), abs=0.02)
        assert seen["log spread inside (MR 0)"] == pytest.approx(math.log(sigma), abs=0.02)
        assert seen["median (MR 0)"] == pytest.approx(2, abs=0.03 * sigma)
        assert seen["95 % quantile (MR 0)"] == pytest.approx(2 + 1.645 * sigma, abs=0.03 * sigma)
        assert seen["mean inside (MR 0)"] == pytest.approx(2, abs=0.03 * sigma)
        sloping = numbers(noise + np.linspace(0, 50, 64), ball())
        assert sloping["log noise (MR 0)"] == pytest.approx(math.log(sigma), abs=0.02)
    assert [math.exp(seen[f"log spacing along {axis}"]) for axis in "zyx"] == pytest.approx(
        SPACING_MM
    )
    assert [math.exp(seen[f"log size along {axis}"]) for axis in "zyx"] == pytest.approx(
        [48, 24, 51.2]
    )


def test_inside_and_around_a_structure_by_channel():
    truth = ball()
    image = np.stack([np.choose(truth, (1.0, 5.0, 7.0)), np.choose(truth, (0.0, 2.0, 2.0))])
    seen = numbers(image, truth)
    assert seen["MR 0 in liver"] == pytest.approx(5)
    assert seen["MR 0 in lesion"] == pytest.approx(7)
    assert seen["MR 0 around lesion"] == pytest.approx(5)  # within slices
    assert 1 <= seen["MR 0 around liver"] < 5
    assert seen["mean inside (MR 1)"] == pytest.approx(2)


def test_what_is_not_there_leaves_gaps():
    liver = np.minimum(ball(), 1)
    image = np.random.default_rng(0).normal(size=(16, 48, 64))
    gaps = {name for name, value in numbers(image, liver).items() if math.isnan(value)}
    assert gaps == {"MR 0 in lesion", "MR 0 around lesion"}
    empty = numbers(image, np.zeros_like(liver))
    present = {"log noise (MR 0)", "median (MR 0)", "95 % quantile (MR 0)"}
    present |= {f"log {number} along {axis}" for number in ("spacing", "size") for axis in "zyx"}
    assert {name for name, value in empty.items() if not math.isnan(value)} == present


pytestmark = pytest.mark.usefixtures("one_thread")
NETWORK = NetworkSettings(device="cpu")


def predicted(source: Images, name: str) -> Case:
    return source.finish(Network(source.model, NETWORK).predict(source.read(name)))


@pytest.fixture
def scans(tmp_path) -> Path:
    return make_scans(tmp_path / "scans", 6)


@pytest.fixture
def model(tmp_path) -> TrainedModel:
    """Of one fold, with a map in its folder."""
    folder = make_model(tmp_path)
    calibrate(folder)
    return TrainedModel.open(folder)


def test_calibration_and_new_scans_are_looked_at_in_the_same_way(
    model, scans, tmp_path, monkeypatch
):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    place = tmp_path / "preprocessed" / "Dataset999_Synthetic" / "nnUNetPlans_3d_fullres"
    records = []
    place.mkdir(parents=True)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    names = [f"scan_{i}" for i in range(6)]
    source = Images.find(model, NETWORK, scans)
    for name in names:
        ready = source.read(name)
        case = predicted(source, name)
        nnUNetDatasetBlosc2.save_case(
            ready.data, ready.data[:1] * 0, ready.case.properties, str(place / name)
        )
        write_case(model.dataset, case, files_of_case(tmp_path, tmp_path / "records", name))
        records.append(Work().make_record(case))
    seen = learn_profiles(records, names, model)
    np.testing.assert_allclose(
        np.array(seen.values, float), [record.profile for record in records], atol=1e-5
    )
    assert np.ptp(np.array(seen.values, float), axis=0).max() > 0.01
    files = [{"segmentation": file_key(tmp_path / f"{name}.nii.gz")} for name in names]
    unseen = [
        replace(record, profile=(), key={"files": at, "settings": {}})
        for record, at in zip(records, files)
    ]
    read = learn_profiles(unseen, names, model, num_processes=2)
    np.testing.assert_allclose(
        np.array(read.values, float), np.array(seen.values, float), atol=1e-5
    )
    for path in place.glob("scan_4*"):
        path.unlink()
    with pytest.raises(UserError, match="scan_4.*No such file"):
        learn_profiles(unseen, names, model)


def test_a_scan_unlike_the_calibration_scans_is_flagged_and_marked(model, scans, tmp_path, capsys):
    assert predict(model.folder, scans, tmp_path / "out") == 0
    source = Images.find(model, NETWORK, scans)
    records = [Work().make_record(predicted(source, name)) for name in source.names]
    profiles = learn_profiles(records, source.names, model)
    near = np.array(profiles.values, float)
    spread = np.random.default_rng(0).normal(0, 0.02, (40, near.shape[1]))
    spread[:, profiles.names.index("log spacing along z")] += math.log(4)  # the scans have 2 mm
    path = model.folder / "calibration_map.json"
    patients = list(map(str, range(40)))
    content = json.loads(path.read_text())
    content["quality"] |= {
        "profiles": encode(CalibrationProfiles.learn(profiles.names, near[0] + spread, patients))
    }
    path.write_text(to_json_text(content))
    # without profiles
    assert {(row["unlike_p"], row["unlike"]) for row in read_list(tmp_path / "out")} == {("", "")}
    capsys.readouterr()
    assert predict(model.folder, scans, tmp_path / "far") == 0
    assert "6 of 6 are unlike the calibration scans" in capsys.readouterr().out
    for row in read_list(tmp_path / "far"):
        assert float(row["unlike_p"]) == pytest.approx(1 / 41, rel=1e-3)
        assert (
            row["unlike"].startswith("unlike: spacing along z 2 (")
            and row["unlike"] in row["reasons"]
        )
    unlike = json.loads((tmp_path / "far" / "prediction.json").read_text())["unlike"]
    assert (unlike["n_unlike"], unlike["n_scans"], unlike["n_patients"]) == (6, 6, 40)
    assert predict(model.folder, scans, tmp_path / "strict", "-unlike", "0.01") == 0
    assert {row["unlike"] for row in read_list(tmp_path / "strict")} == {""}
    unlike = json.loads((tmp_path / "strict" / "prediction.json").read_text())["unlike"]
    assert "takes 99 patients" in unlike["why_not"]


FINGERPRINT = {
    "spacings": [[3.0, 1.0, 1.0], [5.0, 0.8, 0.8]],
    "shapes_after_crop": [[20, 100, 100], [20, 150, 150]],
}


def compared(trained: TrainingRange, spacing_mm, shape) -> list[str]:
    return trained.compare(Geometry(tuple(spacing_mm)), shape)


def test_the_range_is_that_of_the_fingerprint(tmp_path) -> None:
    (tmp_path / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT))
    trained = TrainingRange.find(tmp_path)
    assert compared(trained, (5.49, 0.8, 1.0), (15, 125, 120)) == []  # less than 10 % beyond
    assert compared(trained, (10.0, 0.4, 0.9), (6, 250, 110)) == [
        "spacing along z 10 mm (training 3 to 5)",
        "spacing along y 0.4 mm (training 0.8 to 1)",
    ]
    assert compared(trained, (999.0, 0.9, 0.9), (1, 120, 120)) == []  # 2D: the first axis is none
