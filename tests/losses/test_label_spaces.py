"""Regions are two-class problems; ignore labels and masks leave no trace."""

from __future__ import annotations

import pytest
import torch

from nnunet_nacl import losses
from tests.losses.cases import (
    CASES,
    CONFIGURED,
    CONFIGURED_IDS,
    IGNORE,
    assert_same,
    problem,
    value_and_gradient,
)


@pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)
def test_an_ignore_label_or_mask_that_nothing_carries_changes_nothing(name, settings):
    function = CASES[name].function
    logits, target, _ = problem("classes", (4, 5))
    plain = value_and_gradient(function, logits, target, **settings)
    assert_same(value_and_gradient(function, logits, target, ignore_label=IGNORE, **settings), plain)
    assert_same(value_and_gradient(function, logits, target, ignore_label=-1, **settings), plain)
    logits, target, _ = problem("regions", (4, 5))
    plain = value_and_gradient(function, logits, target, regions=True, **settings)
    with_mask = torch.cat([target, torch.zeros_like(target[:, :1])], dim=1)
    assert_same(value_and_gradient(function, logits, with_mask, regions=True, **settings), plain)


@pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)
def test_any_number_may_be_the_ignore_label(name, settings):
    logits, target, _ = problem("classes_ignore", (4, 5))
    function = CASES[name].function
    expected = value_and_gradient(function, logits, target, ignore_label=IGNORE, **settings)
    for number in (3, 255, -1, -100):
        other = torch.where(target == IGNORE, number, target)
        assert_same(value_and_gradient(function, logits, other, ignore_label=number, **settings), expected)


def test_the_ignore_label_may_be_one_of_the_classes():
    """Its voxels are then ignored, and its channel remains one of the softmax."""
    logits, target, _ = problem("classes", (4, 5))
    for name in CASES:
        function = CASES[name].function
        expected = value_and_gradient(function, logits, torch.where(target == 1, IGNORE, target), ignore_label=IGNORE)
        assert_same(value_and_gradient(function, logits, target, ignore_label=1), expected)


@pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)
@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64],
)
def test_labels_of_any_dtype_with_or_without_channel_axis(dtype, name, settings):
    function = CASES[name].function
    logits, target, where = problem("classes_ignore", (3, 4))
    expected = value_and_gradient(function, logits, target, **settings, **where)
    assert_same(value_and_gradient(function, logits, target.to(dtype), **settings, **where), expected)
    assert_same(value_and_gradient(function, logits, target[:, 0].to(dtype), **settings, **where), expected)
    logits, target, where = problem("regions_mask", (3, 4))
    expected = value_and_gradient(function, logits, target, **settings, **where)
    assert_same(value_and_gradient(function, logits, target.to(dtype), **settings, **where), expected)
    for region_dtype in (torch.bool, torch.uint16, torch.uint32, torch.uint64):
        assert_same(value_and_gradient(function, logits, target.to(region_dtype), **settings, **where), expected)


def test_a_label_map_whose_spatial_size_equals_its_batch_is_not_misread():
    """(B, *spatial) and (B, 1, *spatial) are told apart by the number of axes alone."""
    logits, target, _ = problem("classes", (1, 2), batch=2)  # target (2, 1, 1, 2)
    assert_same(value_and_gradient(losses.nacl, logits, target[:, 0]), value_and_gradient(losses.nacl, logits, target))
