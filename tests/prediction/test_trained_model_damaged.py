"""Whatever stands in the JSON files that predict reads first, it ends in a message that names the file, or works."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.prediction.trained_model import TrainedModel
from tests.prediction.untrained import SHAPE, SPACING_MM, calibrate, make_model

FILES = ("dataset_fingerprint.json", "calibration_map.json", "plans.json", "dataset.json")
VALUES = (None, True, -5.5, 10**400, "x", [], {}, [None], {"a": "b"})
PER_FILE = 30
FINGERPRINT = {
    "spacings": [SPACING_MM, (2.0, 1.5, 1.5)],
    "shapes_after_crop": [SHAPE, (12, 20, 20)],
    "foreground_intensity_properties_per_channel": {
        str(channel): {"percentile_00_5": -2.0, "percentile_99_5": 2.0, "mean": 0.0} for channel in range(2)
    },
    "median_relative_size_after_cropping": 1.0,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = make_model(tmp_path_factory.mktemp("model"))
    calibrate(folder)
    (folder / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT))
    return folder


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where something stands in a JSON value; of long lists the first and the last entry."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list) and value:
        for i in {0, len(value) - 1}:
            yield from places(value[i], (*path, i))


def mutations(content: dict) -> Iterator[tuple[tuple, Any, dict]]:
    for path in places(content):
        for value in ("(removed)", *VALUES):
            changed = copy.deepcopy(content)
            parent = changed
            for key in path[:-1]:
                parent = parent[key]
            if value == "(removed)":
                del parent[path[-1]]
            else:
                parent[path[-1]] = value
            yield path, value, changed


@pytest.mark.parametrize("name", FILES)
def test_whatever_is_changed_ends_in_a_message_or_a_result(model, name):
    path = model / name
    text = path.read_text()
    everything = list(mutations(json.loads(text)))
    chosen = np.random.default_rng(0).permutation(len(everything))[:PER_FILE]
    failed = []
    try:
        for i in chosen:
            where, value, content = everything[i]
            path.write_text(json.dumps(content))
            try:
                use(TrainedModel.open(model))
            except UserError as error:  # the fingerprint is optional
                if "\n" in str(error) or name == "dataset_fingerprint.json":
                    failed.append((where, str(value)[:20], error))
            except Exception as error:
                failed.append((where, str(value)[:20], error))
    finally:
        path.write_text(text)
    assert not failed


def use(opened: TrainedModel) -> None:
    """What predict asks of a model before the first scan, and of its map for each."""
    assert opened.num_channels and opened.labels.names and opened.previous_stage in (None, "3d_lowres")
    opened.grid_shape(SPACING_MM, SHAPE)
    opened.training.compare_grid(SPACING_MM, SHAPE)
    opened.training.compare_intensities(np.zeros((2, *SHAPE)), np.ones(SHAPE, bool))
    if opened.quality is not None:
        for estimate in opened.quality.learned.dice.values():
            for expected in (0.0, 0.4, 1.0):
                found = vars(estimate.predict(expected)).values()
                assert all(np.isnan(value) or 0 <= value <= 1 for value in found), found
