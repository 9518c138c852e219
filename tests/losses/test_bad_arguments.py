"""A value that cannot be meant raises ValueError that names it; what is no tensor, TypeError."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from nnunet_nacl import losses
from nnunet_nacl.methods import METHODS
from tests.losses.cases import CASES, NAMES

LOGITS = torch.zeros(2, 3, 4, 5)
LABELS = torch.zeros(2, 1, 4, 5)
REGIONS = torch.zeros(2, 3, 4, 5)

NAN = float("nan")
INFINITE = float("inf")

ALL_LOSSES = pytest.mark.parametrize("name", NAMES)
ALL_SETTINGS = pytest.mark.parametrize(
    ("name", "setting"),
    [(method.function, setting) for method in METHODS.values() for setting in method.settings],
)

BAD_VALUES: dict[str, list[Any]] = {
    "penalty_weight": [-0.5, NAN],
    "kernel_size": [2, 0, -3, (3, 4), 3.5, True],
    "prior": ["median"],
    "sigma": [0.0, NAN, INFINITE],
    "penalty": ["l3"],
    "space": ["probs"],
    "class_reduction": ["max"],
    "padding": ["reflect"],
    "prior_scale": [-1.0, NAN],
    "margin": [-2.0, INFINITE],
    "smoothing": [-0.1, 1.5, NAN],
    "gamma": [-1.0, NAN, INFINITE],
    "n_bins": [0, 2.5],
}
"""Of every setting of a loss, whichever loss has it."""


def raises_naming(*received: object):
    """ValueError whose message holds each of the received values, in any order."""
    followed_by_each = [f"(?=.*{re.escape(str(value))})" for value in received]
    return pytest.raises(ValueError, match="(?s)" + "".join(followed_by_each))


@ALL_SETTINGS
def test_function_and_module_name_the_bad_setting(name, setting):
    for value in BAD_VALUES[setting]:
        for target, regions in ((LABELS, False), (REGIONS, True)):
            with raises_naming(setting, value):
                CASES[name].function(LOGITS, target, regions=regions, **{setting: value})
        with raises_naming(setting, value):
            CASES[name].module(**{setting: value})


@pytest.mark.parametrize("name", ["nacl", "svls"])
def test_sizes_for_another_number_of_axes_are_named_with_the_first_batch(name):
    loss = CASES[name].module(kernel_size=(3, 3, 3))
    with raises_naming("kernel_size", (3, 3, 3), "images have 2"):
        loss(LOGITS, LABELS)


def test_sizes_for_another_number_of_axes_are_named_also_without_a_penalty():
    with raises_naming("kernel_size", (3, 3, 3)):
        losses.nacl(LOGITS, LABELS, kernel_size=(3, 3, 3), penalty_weight=0)


WHOLE_NUMBER_TYPES = [torch.int64, torch.float32]
BAD_LABELS = {
    255: [*WHOLE_NUMBER_TYPES, torch.uint8, torch.uint16],
    -1: [*WHOLE_NUMBER_TYPES, torch.int8],
    0.5: [torch.float32],
    NAN: [torch.float32],
    INFINITE: [torch.float32],
}


@pytest.mark.parametrize("label", BAD_LABELS)
@ALL_LOSSES
def test_a_label_that_is_no_class_is_named(name, label):
    target = LABELS.clone()
    target[1, 0, 2, 3] = label
    highest_class = 2
    for dtype in BAD_LABELS[label]:
        for label_space in ({}, {"ignore_label": 7}):
            with raises_naming(label, highest_class):
                CASES[name].function(LOGITS, target.to(dtype), **label_space)


@ALL_LOSSES
def test_regions_and_masks_are_0_or_1(name):
    a_region, the_mask = 1, 3
    for value in (2, 0.5, NAN):
        for channel in (a_region, the_mask):
            target = torch.zeros(2, 4, 4, 5)
            target[1, channel, 2, 3] = value
            with raises_naming(value):
                CASES[name].function(LOGITS, target, regions=True)


@ALL_LOSSES
def test_regions_have_no_ignore_label(name):
    with raises_naming("ignore_label", 2):
        CASES[name].module(regions=True, ignore_label=2)


BAD_SHAPES_OF_CLASSES = [
    (1, 1, 4, 5),
    (2, 1, 5, 4),
    (2, 2, 4, 5),
    (2, 3, 4, 5),
    (2, 4),
    (2, 1, 4),
    (2, 1, 4, 5, 1),
]
BAD_SHAPES_OF_REGIONS = [
    (2, 1, 4, 5),
    (2, 2, 4, 5),
    (2, 5, 4, 5),
    (1, 3, 4, 5),
    (2, 3, 5, 4),
    (2, 4, 5),
    (2, 3, 4),
]


@ALL_LOSSES
@pytest.mark.parametrize(
    ("regions", "shapes"),
    [(False, BAD_SHAPES_OF_CLASSES), (True, BAD_SHAPES_OF_REGIONS)],
    ids=["classes", "regions"],
)
def test_targets_of_another_shape_are_named(name, regions, shapes):
    for shape in shapes:
        with raises_naming(tuple(LOGITS.shape), shape):
            CASES[name].function(LOGITS, torch.zeros(shape), regions=regions)


def test_one_hot_labels_are_answered_with_argmax():
    with pytest.raises(ValueError, match=r"got \(2, 3, 4, 5\); of one-hot labels give target.argm"):
        losses.nacl(LOGITS, torch.zeros(2, 3, 4, 5))


def test_probabilities_in_place_of_logits_are_warned_of_where_labels_are_checked(recwarn):
    probs = torch.randn(2, 3, 4, 5).softmax(1)
    losses.nacl(probs, LABELS, check_labels=False)
    losses.nacl(probs - 0.1, LABELS)  # these sum to another number
    losses.nacl(probs, REGIONS, regions=True)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="give the network's output before the softmax"):
        losses.nacl(probs.half(), LABELS)


@ALL_LOSSES
def test_logits_without_spatial_axes_or_with_four_are_named(name):
    for spatial in ((), (2, 2, 2, 2)):
        with raises_naming((2, 3, *spatial)):
            CASES[name].function(torch.zeros(2, 3, *spatial), torch.zeros(2, 1, *spatial))


@ALL_LOSSES
def test_logits_of_whole_numbers_are_named(name):
    with raises_naming(torch.int64):
        CASES[name].function(LOGITS.long(), LABELS)


@ALL_LOSSES
def test_a_list_of_logits_is_answered_with_what_to_do_about_deep_supervision(name):
    loss = CASES[name].module()
    logits_of_scales = [LOGITS, LOGITS[..., ::2, ::2]]
    labels_of_scales = [LABELS, LABELS[..., ::2, ::2]]
    message = "logits must be one tensor, got a list of 2: for deep supervision"
    with pytest.raises(TypeError, match=message):
        loss(logits_of_scales, labels_of_scales)


@ALL_LOSSES
def test_a_target_that_is_no_tensor_is_named(name):
    loss = CASES[name].module()
    with pytest.raises(TypeError, match="target must be one tensor, got a tuple of 1"):
        loss(LOGITS, (LABELS,))
    message = "target must be a torch.Tensor, got ndarray; torch.as_tensor"
    with pytest.raises(TypeError, match=message):
        loss(LOGITS, LABELS.numpy())


def test_proportions_name_a_valid_mask_of_another_shape():
    valid = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    for target, num_classes in ((LABELS, 3), (REGIONS, None)):
        with raises_naming((2, 1, 4, 4)):
            losses.neighborhood_proportions(target, num_classes, valid=valid)
