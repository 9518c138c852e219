"""Images unlike those that a model knows: which number, and by how much."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.nnunet.profile import TrainingRange, profile_names
from nnunet_nacl.numbers.unlike import CalibrationProfiles

FINGERPRINT = {
    "spacings": [[3.0, 1.0, 1.0], [5.0, 0.8, 0.8]],
    "shapes_after_crop": [[20, 100, 100], [20, 150, 150]],
}
PLANS = {"dataset_name": "Dataset999_Synthetic"}


def compared(known: TrainingRange, spacing_mm, shape) -> list[str]:
    return known.compare(Geometry(tuple(spacing_mm)), shape)


def test_the_range_is_that_of_the_fingerprint(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    (place := tmp_path / "Dataset999_Synthetic").mkdir()
    (place / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT))
    for model, plans in ((tmp_path, PLANS), (place, {})):
        trained = TrainingRange.find(model, plans, None)
        assert compared(trained, (3.0, 0.8, 1.0), (20, 125, 120)) == []
        assert compared(trained, (5.49, 0.8, 1.0), (15, 125, 120)) == []  # less than 10 % beyond
        assert compared(trained, (10.0, 0.4, 0.9), (6, 250, 110)) == [
            "spacing along z 10 mm, in the training 3 to 5 (2 x the largest)",
            "spacing along y 0.4 mm, in the training 0.8 to 1 (0.5 x the smallest)",
        ]
        assert compared(trained, (3.0, 0.9, 0.9), (100, 110, 110)) == [
            "size along z 300 mm, in the training 60 to 100 (3 x the largest)"
        ]
        assert compared(trained, (999.0, 0.9, 0.9), (1, 120, 120)) == []  # 2D: the first axis is none


@pytest.mark.parametrize(
    "damaged", [[[1.0, 2.0]], [[1.0], [1.0, 2.0, 3.0]], "x", [[1.0, None, 1.0]], [[1.0, 0.0, 1.0]]]
)
@pytest.mark.parametrize("key", ["spacings", "shapes_after_crop"])
def test_without_a_fingerprint_it_is_that_of_the_calibration_scans_if_they_are_known(tmp_path, damaged, key) -> None:
    (tmp_path / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT | {key: damaged}))
    names = profile_names(Labels(("background", "a"), (0, 1), False, None, (1,)), ["CT"])
    values = np.zeros((2, len(names)))
    values[:, -6:] = np.log([[4.0, 1.0, 1.0, 80.0, 100.0, 100.0]] * 2)
    known = TrainingRange.find(tmp_path, {}, CalibrationProfiles.learn(names, values, ["a", "b"]))
    assert compared(known, (4.0, 1.05, 1.0), (20, 100, 100)) == []
    assert compared(known, (8.0, 1.0, 1.0), (10, 100, 300)) == [
        "spacing along z 8 mm, in the calibration scans 4 (2 x the usual)",
        "size along x 300 mm, in the calibration scans 100 (3 x the usual)",
    ]
    for scans in (None, CalibrationProfiles.learn(["noise"], values[:, :1], ["a", "b"])):
        assert compared(TrainingRange.find(tmp_path, {}, scans), (99.0, 1.0, 1.0), (1, 1, 1)) == []
