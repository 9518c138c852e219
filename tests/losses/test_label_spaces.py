"""Regions are two-class problems; ignore labels and masks leave no trace."""

from __future__ import annotations

import itertools

import pytest
import torch

from nnunet_nacl import losses
from tests.losses.cases import (
    CASES,
    CONFIGURED,
    CONFIGURED_IDS,
    IGNORE,
    PADDINGS,
    PENALTIES,
    PRIORS,
    REDUCTIONS,
    SPACES,
    assert_same,
    problem,
    value_and_gradient,
)


def as_two_classes(region_logits, membership, mask=None, total=None):
    """(l_out, l_in) with l_in - l_out the region's logit, and their label map.

    Args:
        total: l_out + l_in; random where not given.
    """
    if total is None:
        total = torch.randn(region_logits.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    logits = torch.cat([(total - region_logits) / 2, (total + region_logits) / 2], dim=1)
    labels = membership if mask is None else torch.where(mask == 1, IGNORE, membership)
    return logits, labels


@pytest.fixture(params=[False, True], ids=["all valid", "some ignored"])
def one_region(request):
    """Region logits, target with or without mask channel, membership, mask."""
    logits, target, _ = problem("regions_mask", (5, 6), seed=11, channels=1)
    membership, mask = target[:, :1], target[:, 1:]
    return (logits, target, membership, mask) if request.param else (logits, membership, membership, None)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("cross_entropy", {}),
        ("label_smoothing", {"smoothing": 0.2}),
        ("focal", {"gamma": 2.0}),
        *[("ecp", {"reduction": reduction}) for reduction in REDUCTIONS],
        *[("mbls", {"reduction": reduction, "margin": 1.0}) for reduction in REDUCTIONS],
        *[("svls", {"padding": padding}) for padding in ("valid", "background", "replicate")],
        *[
            ("nacl", {"space": "softmax", "penalty": penalty, "reduction": reduction, "prior": prior})
            for penalty, reduction, prior in itertools.product(PENALTIES, REDUCTIONS, PRIORS)
        ],
    ],
    ids=str,
)
def test_a_region_is_a_two_class_softmax(name, settings, one_region):
    """Whatever depends on the logits through the softmax only: any l_out + l_in will do."""
    logits, target, membership, mask = one_region
    function = CASES[name].function
    region = function(logits, target, regions=True, **settings)
    two_logits, labels = as_two_classes(logits, membership, mask)
    two = function(two_logits, labels, ignore_label=IGNORE if mask is not None else None, **settings)
    torch.testing.assert_close(region, two, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prior_scale", [1.0, 3.0])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("padding", ["valid", "background", "replicate"])
def test_nacl_of_a_region_is_that_of_two_classes_whose_logits_sum_to_the_prior(
    padding, penalty, reduction, prior_scale, one_region
):
    """tau_out + tau_in = 1, so two logits that sum to the prior's scale are equally far from it."""
    logits, target, membership, mask = one_region
    settings = {"padding": padding, "penalty": penalty, "reduction": reduction, "prior_scale": prior_scale}
    region = losses.nacl(logits, target, regions=True, **settings)
    two_logits, labels = as_two_classes(logits, membership, mask, total=torch.full_like(logits, prior_scale))
    two = losses.nacl(two_logits, labels, ignore_label=IGNORE if mask is not None else None, **settings)
    torch.testing.assert_close(region, two, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)
def test_regions_are_averaged(name, settings):
    logits, target, _ = problem("regions_mask", (4, 5), seed=12)
    function = CASES[name].function
    together = value_and_gradient(function, logits, target, regions=True, **settings)
    for r in range(3):
        alone = value_and_gradient(function, logits[:, r : r + 1], target[:, [r, 3]], regions=True, **settings)
        assert_same((0, together[1][:, r : r + 1]), (0, alone[1] / 3))
    values = [function(logits[:, r : r + 1], target[:, [r, 3]], regions=True, **settings).item() for r in range(3)]
    assert together[0] == pytest.approx(sum(values) / 3, rel=1e-6)


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
    assert_same(value_and_gradient(function, logits, target.bool(), **settings, **where), expected)


def test_a_label_map_whose_spatial_size_equals_its_batch_is_not_misread():
    """(B, *spatial) and (B, 1, *spatial) are told apart by the number of axes alone."""
    logits, target, _ = problem("classes", (1, 2), batch=2)  # target (2, 1, 1, 2)
    assert_same(value_and_gradient(losses.nacl, logits, target[:, 0]), value_and_gradient(losses.nacl, logits, target))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("space", SPACES)
def test_values_of_regions_under_the_mask_do_not_matter(space, padding):
    logits, target, where = problem("regions_mask", (4, 5))
    flipped = torch.cat([torch.where(target[:, 3:] == 1, 1 - target[:, :3], target[:, :3]), target[:, 3:]], dim=1)
    assert not torch.equal(flipped, target)
    for name, settings in [("nacl", {"space": space, "padding": padding}), ("svls", {"padding": padding})]:
        function = CASES[name].function
        expected = value_and_gradient(function, logits, target, **settings, **where)
        assert_same(value_and_gradient(function, logits, flipped, **settings, **where), expected)
