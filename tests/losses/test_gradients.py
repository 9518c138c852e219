"""Gradients against finite differences and by vmap; what is ignored leaves no trace in them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunet_nacl import losses
from nnunet_nacl.losses.batch import read_batch
from nnunet_nacl.losses.neighborhood import Neighborhood
from tests.losses.cases import (
    CASES,
    CONFIGURED,
    CONFIGURED_IDS,
    IGNORE,
    assert_same,
    problem,
    value_and_gradient,
)

nacl_module = import_module("nnunet_nacl.losses.nacl")  # in the package the name is the function's
ALL_LOSSES = pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)
SPACE = pytest.mark.parametrize("label_space", ["classes_ignore", "regions_mask"])


@SPACE
@ALL_LOSSES
def test_gradcheck(name, settings, label_space):
    """In float64 throughout: a single step of float32 inside would fail it."""
    logits, target, where = problem(label_space, (3, 2), seed=21)
    logits.requires_grad_()

    def loss_of(leaf):
        return CASES[name].function(leaf, target, **settings, **where)

    assert torch.autograd.gradcheck(loss_of, (logits,))


@SPACE
@ALL_LOSSES
def test_nothing_is_written_into_logits_or_target(name, settings, label_space):
    logits, target, where = problem(label_space, (5, 4), seed=26)
    leaf = logits.clone().requires_grad_()
    given = target.clone()
    CASES[name].function(leaf, given, **settings, **where).backward()
    assert torch.equal(leaf.detach(), logits)
    assert torch.equal(given, target)


@SPACE
@ALL_LOSSES
def test_logits_of_ignored_voxels_do_not_matter(name, settings, label_space):
    logits, target, where = problem(label_space, (5, 4), seed=26)
    if label_space == "regions_mask":
        ignored = target[:, 3:] == 1
    else:
        ignored = target == IGNORE
    spoiled = logits.masked_fill(ignored, 1e4)

    result = value_and_gradient(CASES[name].function, logits, target, **settings, **where)
    of_spoiled = value_and_gradient(CASES[name].function, spoiled, target, **settings, **where)
    assert not result[1][ignored.expand_as(logits).numpy()].any()
    np.testing.assert_allclose(of_spoiled[0], result[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(of_spoiled[1], result[1], rtol=1e-9, atol=1e-12)


@SPACE
@ALL_LOSSES
def test_vmap_gives_the_gradients_of_each_sample(name, settings, label_space):
    logits, target, where = problem(label_space, (4, 3), seed=30)

    def loss_of_sample(sample, labels):
        return CASES[name].function(
            sample[None],
            labels[None],
            check_labels=False,  # vmap hides the labels of a sample
            **settings,
            **where,
        )

    gradient_of_sample = torch.func.grad(loss_of_sample)
    one_by_one = torch.stack([gradient_of_sample(*pair) for pair in zip(logits, target)])
    at_once = torch.func.vmap(gradient_of_sample)(logits, target)
    torch.testing.assert_close(at_once, one_by_one, rtol=1e-9, atol=1e-12)


@ALL_LOSSES
def test_any_number_may_be_the_ignore_label(name, settings):
    logits, target, _ = problem("classes", (4, 5))
    is_ignored = target == 1

    def result_with(number):
        labels = torch.where(is_ignored, number, target)
        return value_and_gradient(
            CASES[name].function, logits, labels, **settings, ignore_label=number
        )

    expected = result_with(IGNORE)
    the_number_of_a_class = 1  # whose channel remains one of the softmax
    for number in (the_number_of_a_class, 3, 255, -1, -100):
        assert_same(result_with(number), expected)


@ALL_LOSSES
def test_an_ignore_label_that_no_voxel_has_changes_nothing(name, settings):
    loss = CASES[name].function
    logits, target, _ = problem("classes", (4, 5))
    expected = value_and_gradient(loss, logits, target, **settings)
    assert_same(value_and_gradient(loss, logits, target, **settings, ignore_label=-1), expected)


@ALL_LOSSES
def test_a_mask_in_which_no_voxel_is_ignored_changes_nothing(name, settings):
    loss = CASES[name].function
    logits, target, _ = problem("regions", (4, 5))
    expected = value_and_gradient(loss, logits, target, **settings, regions=True)
    with_mask = torch.cat([target, torch.zeros_like(target[:, :1])], dim=1)
    assert_same(value_and_gradient(loss, logits, with_mask, **settings, regions=True), expected)


LABEL_TYPES = [torch.uint8, torch.int8, torch.int16, torch.float16, torch.float64]


@pytest.mark.parametrize("name", CASES)
def test_labels_of_any_dtype_with_or_without_channel_axis(name):
    logits, target, where = problem("classes_ignore", (3, 4))
    loss = CASES[name].module(**CASES[name].settings, **where)
    expected = value_and_gradient(loss, logits, target)
    for dtype in LABEL_TYPES:
        assert_same(value_and_gradient(loss, logits, target.to(dtype)), expected)
        assert_same(value_and_gradient(loss, logits, target[:, 0].to(dtype)), expected)


@pytest.mark.parametrize("name", CASES)
def test_regions_and_mask_of_any_dtype(name):
    logits, target, where = problem("regions_mask", (3, 4))
    loss = CASES[name].module(**CASES[name].settings, **where)
    expected = value_and_gradient(loss, logits, target)
    for dtype in (*LABEL_TYPES, torch.bool, torch.uint16, torch.uint32, torch.uint64):
        assert_same(value_and_gradient(loss, logits, target.to(dtype)), expected)


def test_a_label_map_whose_spatial_size_equals_its_batch_is_not_misread():
    """(B, *spatial) and (B, 1, *spatial) are told apart by the number of axes alone."""
    logits, target, _ = problem("classes", (1, 2), batch=2)  # target (2, 1, 1, 2)
    assert_same(
        value_and_gradient(losses.nacl, logits, target[:, 0]),
        value_and_gradient(losses.nacl, logits, target),
    )


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint32, torch.float32], ids=str
)
def test_many_classes_of_any_type_and_minus_1_is_not_255(dtype):
    logits, target, _ = problem("classes", (4, 5), channels=256, batch=1)
    target[0, 0, 0, 0] = 255
    for case in CASES.values():
        settings = {"penalty_weight": 2.0} if "penalty_weight" in case.settings else {}
        result = value_and_gradient(
            case.function, logits, target.to(dtype), ignore_label=-1, **settings
        )
        assert_same(result, case.reference(logits, target, **settings))


@pytest.mark.parametrize("regions", [False, True])
def test_beside_a_dice_term_gradients_are_added_in_a_fixed_order(regions: bool) -> None:
    """Dice, cross-entropy, penalty.

    Another order has other last bits, and seeded trainings other weights.
    """
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 3, 12, 10, generator=generator)
    target_shape = logits.shape if regions else (2, 1, 12, 10)
    target = torch.randint(2, target_shape, generator=generator)

    def dice(leaf: Tensor) -> Tensor:
        return (leaf.sigmoid() ** 2).mean()

    def cross_entropy(leaf: Tensor) -> Tensor:
        return losses.cross_entropy(leaf, target, regions=regions)

    def nacl_beside_dice(leaf: Tensor) -> Tensor:
        return losses.nacl(leaf, target, regions=regions) + dice(leaf)

    def penalty(leaf: Tensor) -> Tensor:
        batch = read_batch(leaf, target, ignore_label=None, regions=regions, check_labels=False)
        factor = 0.1 * batch.class_factor("mean")
        shares = batch.shares(Neighborhood())
        return batch.mean(factor * losses.NACLLoss()._penalty(batch, shares))

    def gradient_of(loss_function: Callable[[Tensor], Tensor]) -> Tensor:
        leaf = logits.clone().requires_grad_()
        loss_function(leaf).backward()
        return leaf.grad

    in_order = (gradient_of(dice) + gradient_of(cross_entropy)) + gradient_of(penalty)
    assert torch.equal(gradient_of(nacl_beside_dice), in_order)
