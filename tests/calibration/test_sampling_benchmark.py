"""Synthetic predictions, by which the cost of many structures is measured, are as soft and crowded as they claim."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunet_nacl.io.prediction_folder import PredictionFolder


@pytest.fixture
def structures(monkeypatch):
    """The script benchmarks/structures.py, as a module."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    for name in ("structures", "page"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("structures")


@pytest.mark.parametrize("classes", [14, 40])
def test_cases_are_soft_and_their_structures_touch_are_thin_or_absent(structures, classes):
    probabilities, truth = structures.make_case(np.random.default_rng(0), classes, 32)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert structures.soft_share(probabilities) >= 0.64
    absent = set(range(classes)) - set(np.unique(truth).tolist())
    assert len(absent) >= (classes - 1) // 10 and len(absent) < classes // 2
    pairs = np.concatenate(
        [np.stack([truth.swapaxes(0, axis)[1:], truth.swapaxes(0, axis)[:-1]]).reshape(2, -1) for axis in range(3)], 1
    )
    touching = pairs[:, (pairs > 0).all(0) & (pairs[0] != pairs[1])]
    assert set(touching.ravel().tolist()) >= set(np.unique(truth).tolist()) - {0}
    thin = [k for k in range(11, classes, 10) if k not in absent]
    extents = [np.ptp(np.nonzero(truth == k), axis=1) for k in thin]
    assert thin and all(extent[0] < extent[1:].min() / 2 for extent in extents)


def test_regions_are_nested_and_predicted_as_nnunet_would(structures, tmp_path):
    predictions, truths = structures.make_folder(tmp_path, 11, 1, 16, True)
    folder = PredictionFolder.open(predictions, truths)
    [files], problems = folder.cases()
    case = folder.load(files)
    probabilities = case.probabilities.whole()
    assert not problems and folder.labels.regions and len(probabilities) == 10
    assert (np.diff(probabilities, axis=0) <= 1e-6).all()
    np.testing.assert_array_equal(folder.labels.label_map(probabilities), case.segmentation)
