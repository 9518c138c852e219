"""Values that can be derived, properties of every input, and slow loops and whole arrays as a
reference."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from nnunet_nacl.cases.case import Labels
from nnunet_nacl.metrics import count_overlap
from nnunet_nacl.metrics.voxel_uncertainty import (
    MemberSums,
    VarianceByBlock,
    confidence,
    mean_uncertainty,
    normalised_entropy,
)
from nnunet_nacl.nnunet.trust import label_manager_of
from tests.runs.folders import CLASSES, REGIONS

SINGLE = (confidence, normalised_entropy)


def information_of(members, regions: bool) -> np.ndarray:
    """The entropy that members do not share: of the region with the largest, or of all classes."""
    of_region = (
        [np.stack([1 - probs, probs], 1) for probs in members]
        if regions
        else [probs[None] for probs in members]
    )
    found = []
    for each in zip(*of_region):
        mean = sum(probs.astype(np.float64) for probs in each) / len(each)
        found.append(normalised_entropy(mean) - sum(map(normalised_entropy, each)) / len(each))
    return np.max(found, 0)


def test_a_region_is_a_two_class_problem_and_the_voxel_has_the_least_certain():
    probs = np.array([[0.9, 0.2, 1.0], [0.5, 0.1, 0.0]], dtype=np.float32)
    for function, least in ((confidence, np.min), (normalised_entropy, np.max)):
        two_class = np.stack([function(np.stack([1 - p, p])) for p in probs])
        np.testing.assert_allclose(
            function(probs, regions=True), least(two_class, axis=0), atol=1e-6
        )


def test_the_least_certain_place_of_a_structure_is_a_blob_and_no_border():
    """A border of undecided voxels loses against a block that is a little less unsure, but
    throughout."""
    doubt = np.full((20, 20, 20), 0.01)
    doubt[:, 10] = 0.5  # one voxel of five across the block
    doubt[5:10, 15:20, 0:5] = 0.3
    doubt[7, 16, 3] = 0.35
    another = np.zeros_like(doubt)
    another[1, 2, 19] = 0.1
    certain = np.zeros_like(doubt)
    probs = np.stack([1 - doubt - another, doubt, another, certain])
    variance = VarianceByBlock(4, doubt.shape, (1.0, 1.0, 1.0))
    for layers in (slice(0, 7), slice(7, 8), slice(8, 20)):  # other edges than those of blocks
        where = (layers, slice(0, 20), slice(0, 20))
        variance.add(where, probs[(slice(None), *where)])
    places = [
        variance.least_certain_voxel(channel, lambda box: probs[(slice(None), *box)])
        for channel in (1, 2, 3)
    ]
    assert places == [(7, 16, 3), (1, 2, 19), None]


@pytest.mark.parametrize("k", [2, 5])
def test_confidence_and_entropy_are_those_of_loops_over_voxels(k):
    weights = np.random.default_rng(0).integers(0, 3, (k, 20, 6))  # some are exactly 0 or 1
    weights[0] += weights.sum(0) == 0
    probs = (weights / weights.sum(0)).astype(np.float32)
    np.testing.assert_array_equal(confidence(probs), probs.max(0))
    slow = [
        -sum(p * math.log(p) for p in voxel if p > 0) / math.log(k)
        for voxel in probs.reshape(k, -1).T.tolist()
    ]
    np.testing.assert_allclose(normalised_entropy(probs).ravel(), slow, atol=1e-5)
    for entropy in (normalised_entropy(probs), normalised_entropy(probs, regions=True)):
        assert (entropy >= 0).all() and (entropy <= 1).all()


def test_entropy_is_that_of_double_precision_over_all_classes():
    """Of 118 classes most are below 1e-6: together they count, and single precision is enough."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 6, (118, 5000))
    exact = np.exp(logits - logits.max(axis=0))
    exact /= exact.sum(axis=0)
    probs = exact.astype(np.float32)
    assert (probs < 1e-6).mean() > 0.5
    expected = -(exact * np.log(exact)).sum(axis=0) / math.log(118)
    np.testing.assert_allclose(normalised_entropy(probs), expected, rtol=0, atol=1e-6)
    mean = mean_uncertainty(probs, probs.argmax(axis=0))["entropy"]
    assert mean == pytest.approx(expected.mean(), abs=1e-6)


def test_arrays_and_tensors_give_the_same_in_blocks_and_at_once():
    rng = np.random.default_rng(0)
    # more than a block
    probs = rng.dirichlet([1, 1, 1], size=(300, 301)).transpose(2, 0, 1).astype(np.float32)
    whole = [function(probs) for function in SINGLE]
    for function, expected in zip(SINGLE, whole):
        np.testing.assert_array_equal(
            [*function(probs[:, :150]), *function(probs[:, 150:])], expected
        )
        tensor = function(torch.from_numpy(probs))
        assert isinstance(tensor, torch.Tensor)
        np.testing.assert_array_equal(tensor.numpy(), expected)
    assert confidence(probs.astype(np.float64)).dtype == np.float64
    half = normalised_entropy(probs.astype(np.float16))
    assert half.dtype == np.float32 and np.abs(half - whole[1]).max() < 5e-3


def test_what_is_no_probability_is_refused():
    for function in SINGLE:
        for probs, message in (([[1], [0]], "floating point"), ([[3.0], [-2.0]], "logits")):
            with pytest.raises(ValueError, match=message):
                function(np.array(probs))


def make(labels: dict) -> tuple[Labels, object]:
    content = {"labels": labels, "file_ending": ".nii.gz", "regions_class_order": [1, 2]}
    manager = label_manager_of({"label_manager": "LabelManager"}, content, "here")
    return Labels.of(manager, content, "here"), manager


def disagreement(labels: dict, members: list[np.ndarray]):
    read, manager = make(labels)
    sums = MemberSums(
        [read.values[channel] for channel in read.foreground],
        lambda probs: np.asarray(manager.convert_probabilities_to_segmentation(probs)),
        regions=read.regions,
        to_probs=lambda logits: manager.apply_inference_nonlin(logits).numpy(),
    )
    for logits in members:
        sums.add(logits)
    return sums.result(np.mean(members, axis=0))


def test_sure_of_opposite_things_and_of_the_same() -> None:
    """Two classes of three, each sure where the other is: the mean's entropy is log 2 of at most
    log 3."""
    first = np.full((3, 1, 2, 2), -50.0)
    first[0] = 0
    second = first.copy()
    first[1, 0, 0] = second[2, 0, 0] = 60  # the upper row: classes 1 and 2; the lower: background
    found = disagreement(CLASSES, [first, second])
    expected = np.log(2) / np.log(3)
    np.testing.assert_allclose(found.mutual_information[0], [[expected] * 2, [0, 0]], atol=1e-3)
    # the mean is a tie: foreground
    assert found.foreground_mutual_information == pytest.approx(expected, abs=1e-3)
    np.testing.assert_array_equal(found.voxels, [[2, 0], [0, 2]])
    np.testing.assert_array_equal(found.dice, [0, 0])
    np.testing.assert_array_equal(disagreement(CLASSES, [first, first]).dice, [1, np.nan])
    background = np.zeros_like(first)
    background[0] = 9
    nothing = disagreement(CLASSES, [background, background])
    assert np.isnan(nothing.dice).all() and np.isnan(nothing.foreground_mutual_information)


@pytest.mark.parametrize("labels", [CLASSES, REGIONS])
def test_disagreement_in_blocks_is_that_of_whole_arrays(labels) -> None:
    read, manager = make(labels)
    rng = np.random.default_rng(0)
    members = [
        rng.normal(scale=3, size=(len(read.values), 5, 240, 241)).astype(np.float16)
        for _ in range(3)
    ]
    found = disagreement(labels, members)
    probs = [manager.apply_inference_nonlin(logits).numpy() for logits in members]
    information = information_of(probs, read.regions)
    np.testing.assert_allclose(found.mutual_information, information, atol=2e-3)
    segmentations = [np.asarray(manager.convert_probabilities_to_segmentation(p)) for p in probs]
    for i, channel in enumerate(read.foreground):
        masks = [read.mask(segmentation, channel) for segmentation in segmentations]
        assert found.dice[i] == pytest.approx(
            np.mean([count_overlap(a, b).dice for a, b in combinations(masks, 2)])
        )
        np.testing.assert_array_equal(found.voxels[:, i], [mask.sum() for mask in masks])
    average = np.asarray(manager.convert_logits_to_segmentation(np.mean(members, axis=0)))
    assert found.foreground_mutual_information == pytest.approx(
        information[average != 0].mean(), abs=1e-3
    )
