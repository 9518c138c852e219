"""Images unlike those of the training: which number, and by how much."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nnunet_nacl.prediction.training_range import TrainingRange

INTENSITIES = {"0": {"percentile_00_5": 0.0, "percentile_99_5": 200.0}}
FINGERPRINT = {
    "spacings": [[3.0, 1.0, 1.0], [5.0, 0.8, 0.8]],
    "shapes_after_crop": [[20, 100, 100], [20, 150, 150]],
    "foreground_intensity_properties_per_channel": INTENSITIES,
}
PLANS = {
    "dataset_name": "Dataset999_Synthetic",
    "transpose_backward": [2, 0, 1],
    "original_median_spacing_after_transp": [0.9, 0.9, 4.0],
    "original_median_shape_after_transp": [100, 100, 20],
    "foreground_intensity_properties_per_channel": INTENSITIES,
}


@pytest.fixture
def trained(tmp_path) -> TrainingRange:
    (tmp_path / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT))
    return TrainingRange.find(tmp_path, PLANS, 1)


def test_the_range_is_that_of_the_fingerprint(trained) -> None:
    assert trained.compare_grid((3.0, 0.8, 1.0), (20, 125, 120)) == []
    assert trained.compare_grid((5.49, 0.8, 1.0), (15, 125, 120)) == []  # less than 10 % beyond
    assert trained.compare_grid((10.0, 0.4, 0.9), (6, 250, 110)) == [
        "spacing along z 10 mm, in the training 3 to 5 (2 x the largest)",
        "spacing along y 0.4 mm, in the training 0.8 to 1 (0.5 x the smallest)",
    ]
    assert trained.compare_grid((3.0, 0.9, 0.9), (100, 110, 110)) == [
        "size along z 300 mm, in the training 60 to 100 (3 x the largest)"
    ]
    assert trained.compare_grid((999.0, 0.9, 0.9), (1, 120, 120), is_2d=True) == []


def test_without_a_fingerprint_the_plans_know_medians(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    known = TrainingRange.find(tmp_path, PLANS, 1)
    assert known.source == "plans.json"
    assert known.compare_grid((7.0, 0.5, 1.7), (20, 150, 80)) == []  # up to twice the median
    assert known.compare_grid((12.0, 0.9, 0.9), (10, 100, 100)) == [
        "spacing along z 12 mm, in the training 4 (3 x the median)"
    ]
    (tmp_path / "Dataset999_Synthetic").mkdir()
    (tmp_path / "Dataset999_Synthetic" / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    assert TrainingRange.find(tmp_path, PLANS, 1).source.endswith("dataset_fingerprint.json")
    assert TrainingRange.find(tmp_path, {"dataset_name": "x"}, 1).compare_grid((1, 1, 1), (9, 9, 9)) == []


def test_intensities_are_those_inside_the_structures(trained) -> None:
    image = np.full((1, 2, 4, 4), -1000.0)
    inside = np.zeros((2, 4, 4), bool)
    inside[0, :2] = True
    image[0, inside] = 120
    assert trained.compare_intensities(image, inside) == []
    image[0, inside] = 500
    assert trained.compare_intensities(image, inside) == [
        "median intensity of channel 0 in the structures 500, in the training 0 to 200 (above by 1.5 x this range)"
    ]
    nothing = np.zeros_like(inside)
    assert trained.compare_intensities(image, nothing) == [
        "no voxel of channel 0 has an intensity of the structures, in the training 0 to 200"
    ]
    image[0, 1, 3, 3] = 100
    assert trained.compare_intensities(image, nothing) == []


@pytest.mark.parametrize(
    "damaged", [[[1.0, 2.0]], [[1.0], [1.0, 2.0, 3.0]], "x", [[1.0, None, 1.0]], [[1.0, 0.0, 1.0]]]
)
@pytest.mark.parametrize("key", ["spacings", "shapes_after_crop"])
def test_a_damaged_fingerprint_is_none(tmp_path, damaged, key) -> None:
    (tmp_path / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT | {key: damaged}))
    assert TrainingRange.find(tmp_path, PLANS, 1).source == "plans.json"
    intensities = {"foreground_intensity_properties_per_channel": {"0": [3]}}
    (tmp_path / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT | intensities))
    assert np.isnan(TrainingRange.find(tmp_path, PLANS, 1).intensities).all()
