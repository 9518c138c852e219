"""Maps of arrays: values that can be derived, properties of every input, and slow loops as a reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnunet_nacl.numbers import voxel_uncertainty
from nnunet_nacl.numbers.voxel_uncertainty import (
    confidence,
    mutual_information,
    normalised_entropy,
)

SINGLE = (confidence, normalised_entropy)


@st.composite
def class_probs(draw, shape=None):
    shape = shape or (draw(st.integers(2, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    weights = draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1, width=32)))
    weights[0] += weights.sum(0) == 0
    return (weights / weights.sum(0)).astype(np.float32)


@st.composite
def same_shape(draw):
    shape = (draw(st.integers(2, 4)), draw(st.integers(1, 6)))
    return [draw(class_probs(shape)) for _ in range(draw(st.integers(1, 4)))]


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_uniform_and_certain_voxels(num_classes):
    uniform = np.full((num_classes, 2, 3), 1 / num_classes, dtype=np.float32)
    certain = np.zeros((num_classes, 2, 3), dtype=np.float32)
    certain[-1] = 1
    for probs, expected in ((uniform, (1 / num_classes, 1, 0)), (certain, (1, 0, 1))):
        for function, value in zip(SINGLE, expected):
            result = function(probs)
            assert result.shape == (2, 3) and result.dtype == np.float32
            np.testing.assert_allclose(result, value, atol=1e-7)


def test_a_region_is_a_two_class_problem_and_the_voxel_has_the_least_certain():
    probs = np.array([[0.9, 0.2, 1.0], [0.5, 0.1, 0.0]], dtype=np.float32)
    for function, least in ((confidence, np.min), (normalised_entropy, np.max)):
        two_class = np.stack([function(np.stack([1 - p, p])) for p in probs])
        np.testing.assert_allclose(function(probs, regions=True, aggregate=False), two_class, atol=1e-6)
        np.testing.assert_allclose(function(probs, regions=True), least(two_class, axis=0), atol=1e-6)
    np.testing.assert_allclose(confidence(probs, regions=True), [0.5, 0.8, 1.0], atol=1e-6)
    np.testing.assert_allclose(normalised_entropy(probs, regions=True)[[0, 2]], [1, 0], atol=1e-6)


def test_the_most_disputed_region_stands_for_the_voxel():
    members = [np.array([[1.0], [0.5]]), np.array([[0.0], [0.5]])]
    np.testing.assert_allclose(mutual_information(members, regions=True, aggregate=False), [[1], [0]], atol=1e-12)
    assert mutual_information(members, regions=True) == pytest.approx([1])


@settings(max_examples=60)
@given(class_probs())
def test_every_map_lies_between_0_and_1(probs):
    k = len(probs)
    c, h = (function(probs) for function in SINGLE)
    assert (c >= 1 / k - 1e-6).all() and (c <= 1 + 1e-6).all()
    assert (h >= 0).all() and (h <= 1).all()
    by_region = normalised_entropy(probs, regions=True)
    assert (by_region >= 0).all() and (by_region <= 1).all()
    np.testing.assert_array_equal(c, probs.max(0))
    slow = [-sum(p * math.log(p) for p in voxel if p > 0) / math.log(k) for voxel in probs.reshape(k, -1).T.tolist()]
    np.testing.assert_allclose(h.ravel(), slow, atol=1e-5)


@settings(max_examples=60)
@given(same_shape(), st.booleans())
def test_information_is_the_entropy_that_the_members_do_not_share(members, regions):
    information = mutual_information(members, regions=regions, aggregate=False)
    mean = sum(member.astype(np.float64) for member in members) / len(members)
    of_mean = normalised_entropy(mean, regions=regions, aggregate=False)
    shared = sum(normalised_entropy(member, regions=regions, aggregate=False) for member in members) / len(members)
    assert (information >= 0).all() and (information <= 1).all()
    np.testing.assert_allclose(information + shared, of_mean, atol=2e-6)


def test_arrays_and_tensors_give_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([1, 1, 1], size=(5, 7)).transpose(2, 0, 1).astype(np.float32)
    whole = [function(probs) for function in SINGLE]
    monkeypatch.setattr(voxel_uncertainty, "_BLOCK_VOXELS", 8)  # 35 voxels: the last block is short
    for function, expected in zip(SINGLE, whole):
        np.testing.assert_array_equal(function(probs), expected)
        tensor = function(torch.from_numpy(probs))
        assert isinstance(tensor, torch.Tensor)
        np.testing.assert_array_equal(tensor.numpy(), expected)
    members = np.stack([probs, probs[::-1]])
    np.testing.assert_array_equal(mutual_information(members), mutual_information(torch.from_numpy(members)).numpy())
    assert confidence(probs.astype(np.float64)).dtype == np.float64
    half = normalised_entropy(probs.astype(np.float16))
    assert half.dtype == np.float32 and np.abs(half - whole[1]).max() < 5e-3


@pytest.mark.parametrize(
    ("probs", "message"),
    [
        (np.full((3, 2), 1, dtype=np.int64), "floating point"),
        (np.ones((1, 2), dtype=np.float32), "regions=True"),
        (np.array([[0.5], [np.nan]]), "NaN"),
        (np.array([[0.5], [0.2]]), "sum to 0.7"),
        (np.array([[3.0], [-2.0]]), "logits"),
        ("probs", "str"),
    ],
)
def test_what_is_no_probability_is_refused(probs, message):
    for function in SINGLE:
        with pytest.raises(ValueError, match=message):
            function(probs)
    with pytest.raises(ValueError, match=message):
        mutual_information([probs])


def test_members_must_have_one_shape():
    with pytest.raises(ValueError, match="one shape, got none"):
        mutual_information([])
    with pytest.raises(ValueError, match=r"\(2, 1\) and \(2, 2\)"):
        mutual_information([np.full((2, 1), 0.5), np.full((2, 2), 0.5)])
