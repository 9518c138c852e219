"""What cannot be meant raises ValueError that names what was received."""

from __future__ import annotations

import re

import pytest
import torch

from nnunet_nacl import losses
from tests.losses.cases import CASES, NAMES

LOGITS, LABELS, REGIONS = torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 4, 5), torch.zeros(2, 3, 4, 5)
ALL_LOSSES = pytest.mark.parametrize("name", NAMES)

NAN, INFINITE = float("nan"), float("inf")
BAD_SETTINGS = {
    ("label_smoothing", "smoothing"): [-0.1, 1.5, NAN, INFINITE],
    ("focal", "gamma"): [-1.0, NAN, INFINITE],
    ("ecp", "penalty_weight"): [-0.5, NAN, INFINITE],
    ("ecp", "reduction"): ["none"],
    ("mbls", "penalty_weight"): [-0.5],
    ("mbls", "margin"): [-2.0, NAN, INFINITE],
    ("mbls", "reduction"): ["average"],
    ("svls", "sigma"): [0.0, -1.5, NAN, INFINITE],
    ("svls", "kernel_size"): [4],
    ("svls", "padding"): ["reflect"],
    ("nacl", "penalty_weight"): [-0.5, NAN, INFINITE],
    ("nacl", "prior_scale"): [NAN, INFINITE],
    ("nacl", "kernel_size"): [2, 0, -3, (3, 4), 3.5, (3, 3, 3)],  # the images have two axes
    ("nacl", "prior"): ["median"],
    ("nacl", "penalty"): ["l3"],
    ("nacl", "space"): ["probs"],
    ("nacl", "reduction"): [None],
    ("nacl", "padding"): ["same"],
}


def raises_naming(*received):
    """ValueError whose message holds each of the received values."""
    return pytest.raises(ValueError, match="(?s)" + "".join(f"(?=.*{re.escape(str(value))})" for value in received))


@pytest.mark.parametrize("name, argument", BAD_SETTINGS)
def test_function_and_module_name_the_bad_setting(name, argument):
    for value in BAD_SETTINGS[name, argument]:
        for regions in (False, True):
            with raises_naming(argument, value):
                CASES[name].function(LOGITS, REGIONS if regions else LABELS, regions=regions, **{argument: value})
        if value != (3, 3, 3):  # a module does not know the images yet
            with raises_naming(argument, value):
                CASES[name].module(**{argument: value})


WHOLE = [torch.int64, torch.float32]
BAD_LABELS = {
    **dict.fromkeys((3, 255), [*WHOLE, torch.uint8, torch.uint16]),
    **dict.fromkeys((-1, -100), [*WHOLE, torch.int8]),
    **dict.fromkeys((0.5, 1.25, NAN, INFINITE), [torch.float32]),
}


@pytest.mark.parametrize("label", BAD_LABELS)
@ALL_LOSSES
def test_a_label_that_is_no_class_is_named(name, label):
    target = LABELS.clone()
    target[1, 0, 2, 3] = label
    for dtype in BAD_LABELS[label]:
        for where in ({}, {"ignore_label": 7}):
            with raises_naming(label, 2):  # the highest that there may be
                CASES[name].function(LOGITS, target.to(dtype), **where)
        if isinstance(label, int):
            CASES[name].function(LOGITS, target.to(dtype), ignore_label=label)


@pytest.mark.parametrize("value", [2, -1, 0.5, NAN])
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


SHAPES = {
    False: [(1, 1, 4, 5), (2, 1, 5, 4), (2, 2, 4, 5), (2, 3, 4, 5), (2, 4), (2, 1, 4), (2, 1, 4, 5, 1)],
    True: [(2, 1, 4, 5), (2, 2, 4, 5), (2, 5, 4, 5), (1, 3, 4, 5), (2, 3, 5, 4), (2, 4, 5), (2, 3, 4)],
}


@pytest.mark.parametrize("regions", SHAPES, ids=["classes", "regions"])
@ALL_LOSSES
def test_a_target_of_another_shape_is_named(name, regions):
    for shape in SHAPES[regions]:
        with raises_naming(tuple(LOGITS.shape), shape):
            CASES[name].function(LOGITS, torch.zeros(shape), regions=regions)


@ALL_LOSSES
def test_logits_are_floats_of_one_to_three_axes(name):
    for spatial in ((), (2, 2, 2, 2)):
        with raises_naming((2, 3, *spatial)):
            CASES[name].function(torch.zeros(2, 3, *spatial), torch.zeros(2, 1, *spatial))
    for dtype in (torch.int64, torch.bool):
        with raises_naming(dtype):
            CASES[name].function(LOGITS.to(dtype), LABELS)


def test_proportions_name_a_valid_mask_of_another_shape():
    for target, num_classes in ((LABELS, 3), (REGIONS, None)):
        with raises_naming((2, 1, 4, 4)):
            losses.neighborhood_proportions(target, num_classes, valid=torch.ones(2, 1, 4, 4, dtype=torch.bool))
