"""Whatever stands in the JSON files that predict reads first, it ends in a message that names the
file, or works."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.utilities.errors import UserError
from tests.mutated_json import mutations
from tests.nnunet.untrained import SHAPE, SPACING_MM, calibrate, make_model

FILES = ("dataset_fingerprint.json", "calibration_map.json", "plans.json", "dataset.json")
PER_FILE = 30
FINGERPRINT = {
    "spacings": [SPACING_MM, (2.0, 1.5, 1.5)],
    "shapes_after_crop": [SHAPE, (12, 20, 20)],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = make_model(tmp_path_factory.mktemp("model"))
    calibrate(folder)
    (folder / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT))
    return folder


@pytest.mark.parametrize("name", FILES)
def test_whatever_is_changed_ends_in_a_message_or_a_result(model, name):
    path = model / name
    text = path.read_text()
    failed = []
    try:
        for where, value, changed in mutations(text, PER_FILE):
            path.write_text(changed)
            try:
                use(TrainedModel.open(model))
            except UserError as error:  # the fingerprint is optional
                if "\n" in str(error) or name == "dataset_fingerprint.json":
                    failed.append((where, value, error))
            except Exception as error:
                failed.append((where, value, error))
    finally:
        path.write_text(text)
    assert not failed


def use(opened: TrainedModel) -> None:
    """What predict asks of a model before the first scan, and of its map for each."""
    assert (
        opened.dataset.channel_names
        and opened.labels.names
        and opened.previous_stage in (None, "3d_lowres")
    )
    opened.training.times_largest(SPACING_MM)
    opened.training.compare(Geometry(SPACING_MM), SHAPE)
    learned = Calibrator.of_model(opened).quality.learned
    if learned is not None:
        for estimate in learned.dice.values():
            for expected in (0.0, 0.4, 1.0):
                found = estimate.predict(expected)
                assert all(np.isnan(value) or 0 <= value <= 1 for value in found), found
