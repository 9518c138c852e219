"""Maps from arrays: what they learn, what they refuse, and that they are the same from their
file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_nacl.calibration import map_parts
from nnunet_nacl.calibration.calibration_map import CalibrationMap, Probabilities
from nnunet_nacl.utilities.errors import UserError

SURE, RIGHT = 0.99, 0.8


def cases(regions: bool, n: int = 6, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Probabilities that are SURE of what is right in a share RIGHT of the voxels, and the
    truth."""
    rng = np.random.default_rng(seed)
    truths = [
        rng.integers(0, 2, (2, 10, 10, 10)) if regions else rng.integers(0, 3, (10, 10, 10))
        for _ in range(n)
    ]
    if regions:
        guesses = [np.where(rng.random(truth.shape) < RIGHT, truth, 1 - truth) for truth in truths]
        return [np.where(guess == 1, SURE, 1 - SURE) for guess in guesses], truths
    guesses = [
        (truth + (rng.random(truth.shape) > RIGHT) * rng.integers(1, 3, truth.shape)) % 3
        for truth in truths
    ]
    channels = np.arange(3).reshape(-1, 1, 1, 1)
    return [np.where(guess == channels, SURE, (1 - SURE) / 2) for guess in guesses], truths


@pytest.mark.parametrize("regions", [False, True])
def test_a_map_from_arrays_says_how_often_it_is_right_and_is_the_same_from_its_file(
    regions, tmp_path
):
    probabilities, truths = cases(regions)
    made = CalibrationMap.fit(
        probabilities,
        truths,
        names=["a", "b"],
        regions=regions,
        groups=["p", "p", "q", "r", "s", "t"],
    )
    after = made.transform(probabilities[0])
    assert after.max() == pytest.approx(RIGHT, abs=0.02) and (
        regions or np.allclose(after.sum(0), 1)
    )
    assert list(made.names.values()) == ["a", "b"]
    assert {score.form for score in made.fitted.forms} == {"temperature", "conditional"}
    [first] = {part for part, of in made.fitted.cross_fit.items() if "case 0" in of.cases}
    assert "case 1" in made.fitted.cross_fit[first].cases  # the same patient
    made.save(tmp_path / "map.json")
    np.testing.assert_allclose(
        CalibrationMap.load(tmp_path / "map.json").transform(probabilities[0]), after, atol=1e-7
    )


def test_what_does_not_fit_is_refused_and_nothing_is_calibrated_twice():
    probabilities, truths = cases(False)
    logits, certain = (
        [np.log(array) for array in probabilities],
        [np.stack([np.ones(8), np.zeros(8)])] * 6,
    )
    for arrays, labels, given, message in (
        (probabilities, truths[1:], {}, "one label map"),
        (probabilities, [truth[1:] for truth in truths], {}, "labels must have the shape"),
        (probabilities, [truth + 1 for truth in truths], {}, "values from 0 to 2, got"),
        (
            probabilities,
            [np.where(truth == 0, np.nan, truth) for truth in truths],
            {},
            "whole numbers .*, got nan",
        ),
        (
            probabilities,
            [np.ma.masked_equal(truth, 0) for truth in truths],
            {},
            "labels: a masked array",
        ),
        (
            [np.ma.masked_less(array, 0.1) for array in probabilities],
            truths,
            {},
            "probabilities: a masked array",
        ),
        (certain, [np.zeros(8, int)] * 6, {}, "nothing but certain background"),
        (logits, truths, {}, "look like logits: apply softmax"),
        (
            probabilities,
            truths,
            {"names": ["a"]},
            "names one for each structure; got 3 channels and 1 names",
        ),
        (probabilities, truths, {"form": "vector"}, "the form must be auto, .* got 'vector'"),
        (probabilities[:4], truths[:4], {}, "4 cases are too few"),
        (probabilities, truths, {"groups": ["p"] * 6}, "one patient"),
    ):
        with pytest.raises(ValueError, match=message):
            CalibrationMap.fit(arrays, labels, **given)
    made = CalibrationMap.fit(probabilities, truths, form="temperature")
    with pytest.raises(
        ValueError, match=r"must have voxels, got an empty array of shape \(3, 0, 4\)"
    ):
        made.transform(probabilities[0][:, :0, :4, 0])
    once = made.transform(Probabilities(probabilities[0], calibrated=False))
    with pytest.raises(ValueError, match="calibrated already"):
        made.transform(Probabilities(once, calibrated=True))


@pytest.mark.parametrize("regions", [False, True])
def test_confidence_is_the_calibrated_probability_of_the_networks_label_for_arrays_and_tensors(
    regions,
):
    probabilities, truths = cases(regions)
    made = CalibrationMap.fit(
        [torch.from_numpy(array) for array in probabilities], truths, regions=regions
    )
    probs, after = probabilities[0], made.transform(torch.from_numpy(probabilities[0]))
    np.testing.assert_array_equal(after, made.transform(probs))
    labels = probs > 0.5 if regions else probs.argmax(0)
    expected = (
        np.where(labels, after, 1 - after).min(0)
        if regions
        else np.take_along_axis(after, labels[None], 0)[0]
    )
    np.testing.assert_array_equal(made.confidence(probs), expected)


def test_generators_are_read_and_a_map_is_shown_in_one_line():
    probabilities, truths = cases(False)
    patients = [f"patient {i}" for i in range(len(truths))]
    read = CalibrationMap.fit(iter(probabilities), iter(truths), groups=iter(patients))
    listed = CalibrationMap.fit(probabilities, truths, groups=patients)
    assert read.maps == listed.maps and read.fitted.groups == listed.fitted.groups
    assert repr(read) == (
        f"CalibrationMap(form={read.form!r}, classes='structure 1, structure 2', cases=6)"
    )
    long = CalibrationMap.fit(probabilities, truths, names=["a" * 5000, "b\n"])
    assert len(repr(long)) < 200 and "\n" not in repr(long)


def test_where_tables_of_labels_are_too_large_a_temperature_can_be_fitted(monkeypatch):
    monkeypatch.setattr(map_parts, "MOST_COEFFICIENTS", 100)  # a map of two structures has 24
    probabilities, truths = cases(False)
    with pytest.raises(UserError, match="the form temperature"):
        CalibrationMap.fit(probabilities, truths)
    made = CalibrationMap.fit(probabilities, truths, form="temperature")
    assert list(made.maps) == ["temperature"]
    assert len(made.part_maps) == 6
