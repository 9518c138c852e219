"""What cannot be meant raises ValueError that names what was received."""

from __future__ import annotations

import re

import pytest
import torch

from nnunet_nacl import losses
from tests.losses.cases import CASES, NAMES

LOGITS = torch.zeros(2, 3, 4, 5)
LABELS = torch.zeros(2, 1, 4, 5)
REGIONS = torch.zeros(2, 3, 4, 5)
ALL_LOSSES = pytest.mark.parametrize("name", NAMES)

NOT_FINITE = (float("nan"), float("inf"))
BAD_SETTINGS = [
    ("label_smoothing", "smoothing", -0.1),
    ("label_smoothing", "smoothing", 1.5),
    ("focal", "gamma", -1.0),
    ("ecp", "penalty_weight", -0.5),
    ("ecp", "reduction", "none"),
    ("mbls", "penalty_weight", -0.5),
    ("mbls", "margin", -2.0),
    ("mbls", "reduction", "average"),
    ("svls", "sigma", 0.0),
    ("svls", "sigma", -1.5),
    ("svls", "kernel_size", 4),
    ("svls", "padding", "reflect"),
    ("nacl", "penalty_weight", -0.5),
    ("nacl", "kernel_size", 2),
    ("nacl", "kernel_size", 0),
    ("nacl", "kernel_size", -3),
    ("nacl", "kernel_size", (3, 4)),
    ("nacl", "kernel_size", (3, 3, 3)),  # the images have two axes
    ("nacl", "kernel_size", 3.5),
    ("nacl", "prior", "median"),
    ("nacl", "penalty", "l3"),
    ("nacl", "space", "probs"),
    ("nacl", "reduction", None),
    ("nacl", "padding", "same"),
    *[("nacl", name, value) for name in ("penalty_weight", "prior_scale") for value in NOT_FINITE],
    *[("svls", "sigma", value) for value in NOT_FINITE],
    *[("ecp", "penalty_weight", value) for value in NOT_FINITE],
    *[("mbls", "margin", value) for value in NOT_FINITE],
    *[("focal", "gamma", value) for value in NOT_FINITE],
    *[("label_smoothing", "smoothing", value) for value in NOT_FINITE],
]


def raises_naming(*received):
    """ValueError whose message holds each of the received values."""
    return pytest.raises(ValueError, match="(?s)" + "".join(f"(?=.*{re.escape(str(value))})" for value in received))


@pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
@pytest.mark.parametrize("name, argument, value", BAD_SETTINGS)
def test_function_names_the_bad_setting(name, argument, value, regions):
    with raises_naming(argument, value):
        CASES[name].function(LOGITS, REGIONS if regions else LABELS, regions=regions, **{argument: value})


@pytest.mark.parametrize("name, argument, value", [bad for bad in BAD_SETTINGS if bad[2] != (3, 3, 3)])
def test_module_names_it_when_it_is_made(name, argument, value):
    with raises_naming(argument, value):
        CASES[name].module(**{argument: value})


# ---------------------------------------------------------------------------------------------------------------------
# labels


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64, torch.float32], ids=str)
@pytest.mark.parametrize("label", [3, 255])
@ALL_LOSSES
def test_a_label_beyond_the_classes_is_named(name, label, dtype):
    target = LABELS.clone()
    target[1, 0, 2, 3] = label
    for where in ({}, {"ignore_label": 7}):
        with raises_naming(label, 2):  # the highest that there may be
            CASES[name].function(LOGITS, target.to(dtype), **where)
    CASES[name].function(LOGITS, target.to(dtype), ignore_label=label)


@pytest.mark.parametrize("label", [-1, -100])
@ALL_LOSSES
def test_a_negative_label_is_named(name, label):
    target = LABELS.clone()
    target[0, 0, 0, 0] = label
    for dtype in (torch.int64, torch.float32, torch.int8):
        with raises_naming(label):
            CASES[name].function(LOGITS, target.to(dtype))


@pytest.mark.parametrize("label", [0.5, 1.25, float("nan"), float("inf")])
@ALL_LOSSES
def test_a_label_that_is_no_integer_is_named(name, label):
    target = LABELS.clone()
    target[1, 0, 0, 0] = label
    for where in ({}, {"ignore_label": 7}):
        with raises_naming(label):
            CASES[name].function(LOGITS, target, **where)


@pytest.mark.parametrize("value", [2, -1, 0.5, float("nan")])
@pytest.mark.parametrize("channel", [1, 3], ids=["region", "mask"])
@ALL_LOSSES
def test_a_region_or_mask_that_is_neither_0_nor_1_is_named(name, channel, value):
    target = torch.zeros(2, 4, 4, 5)
    target[1, channel, 2, 3] = value
    with raises_naming(value):
        CASES[name].function(LOGITS, target, regions=True)


@ALL_LOSSES
def test_regions_have_a_mask_and_no_ignore_label(name):
    with raises_naming("ignore_label", 2):
        CASES[name].function(LOGITS, REGIONS, regions=True, ignore_label=2)
    with raises_naming("ignore_label", 2):
        CASES[name].module(regions=True, ignore_label=2)


# ---------------------------------------------------------------------------------------------------------------------
# shapes and types


@pytest.mark.parametrize(
    "shape", [(1, 1, 4, 5), (2, 1, 5, 4), (2, 2, 4, 5), (2, 3, 4, 5), (2, 4), (2, 1, 4), (2, 1, 4, 5, 1)]
)
@ALL_LOSSES
def test_a_target_of_another_shape_is_named(name, shape):
    with raises_naming(tuple(LOGITS.shape), shape):
        CASES[name].function(LOGITS, torch.zeros(shape))


@pytest.mark.parametrize(
    "shape", [(2, 1, 4, 5), (2, 2, 4, 5), (2, 5, 4, 5), (1, 3, 4, 5), (2, 3, 5, 4), (2, 4, 5), (2, 3, 4)]
)
@ALL_LOSSES
def test_regions_of_another_shape_are_named(name, shape):
    with raises_naming(tuple(LOGITS.shape), shape):
        CASES[name].function(LOGITS, torch.zeros(shape), regions=True)


@pytest.mark.parametrize("spatial", [(), (2, 2, 2, 2)], ids=["no axis", "four axes"])
@ALL_LOSSES
def test_images_have_one_to_three_axes(name, spatial):
    with raises_naming((2, 3, *spatial)):
        CASES[name].function(torch.zeros(2, 3, *spatial), torch.zeros(2, 1, *spatial))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool], ids=str)
@ALL_LOSSES
def test_logits_are_floats(name, dtype):
    with raises_naming(dtype):
        CASES[name].function(LOGITS.to(dtype), LABELS)


def test_proportions_name_a_valid_mask_of_another_shape():
    with raises_naming((2, 1, 4, 4)):
        losses.neighborhood_proportions(LABELS, 3, valid=torch.ones(2, 1, 4, 4, dtype=torch.bool))
    with raises_naming((2, 1, 4, 4)):
        losses.neighborhood_proportions(REGIONS, None, valid=torch.ones(2, 1, 4, 4, dtype=torch.bool))
