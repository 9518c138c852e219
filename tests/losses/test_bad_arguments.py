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
    ("label_smoothing", "smoothing"): [-0.1, 1.5, NAN],
    ("focal", "gamma"): [-1.0, NAN, INFINITE],
    ("mbls", "margin"): [-2.0],
    ("ace", "n_bins"): [0, 2.5],
    ("svls", "sigma"): [0.0, NAN, INFINITE],
    ("nacl", "penalty_weight"): [-0.5],
    ("nacl", "prior_scale"): [NAN],
    ("nacl", "kernel_size"): [2, 0, -3, (3, 4), 3.5, (3, 3, 3)],  # the images have two axes
    ("nacl", "penalty"): ["l3"],
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
    255: [*WHOLE, torch.uint8, torch.uint16],
    -1: [*WHOLE, torch.int8],
    **dict.fromkeys((0.5, NAN, INFINITE), [torch.float32]),
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


@ALL_LOSSES
def test_regions_and_masks_are_0_or_1_and_there_is_no_ignore_label(name):
    for value in (2, 0.5, NAN):
        for channel in (1, 3):  # a region, the mask
            target = torch.zeros(2, 4, 4, 5)
            target[1, channel, 2, 3] = value
            with raises_naming(value):
                CASES[name].function(LOGITS, target, regions=True)
    with raises_naming("ignore_label", 2):
        CASES[name].module(regions=True, ignore_label=2)


SHAPES = {
    False: [(1, 1, 4, 5), (2, 1, 5, 4), (2, 2, 4, 5), (2, 3, 4, 5), (2, 4), (2, 1, 4), (2, 1, 4, 5, 1)],
    True: [(2, 1, 4, 5), (2, 2, 4, 5), (2, 5, 4, 5), (1, 3, 4, 5), (2, 3, 5, 4), (2, 4, 5), (2, 3, 4)],
}


@ALL_LOSSES
def test_logits_and_targets_of_other_shapes_and_types_are_named(name):
    for regions, shapes in SHAPES.items():
        for shape in shapes:
            with raises_naming(tuple(LOGITS.shape), shape):
                CASES[name].function(LOGITS, torch.zeros(shape), regions=regions)
    for spatial in ((), (2, 2, 2, 2)):
        with raises_naming((2, 3, *spatial)):
            CASES[name].function(torch.zeros(2, 3, *spatial), torch.zeros(2, 1, *spatial))
    with raises_naming(torch.int64):
        CASES[name].function(LOGITS.long(), LABELS)


@ALL_LOSSES
def test_what_is_no_tensor_is_named_with_what_to_do(name):
    loss = CASES[name].module()
    scales = [LOGITS, LOGITS[..., ::2, ::2]]
    with pytest.raises(TypeError, match="logits must be one tensor, got a list of 2: for deep supervision"):
        loss(scales, [LABELS, LABELS[..., ::2, ::2]])
    with pytest.raises(TypeError, match="target must be one tensor, got a tuple of 1"):
        loss(LOGITS, (LABELS,))
    with pytest.raises(TypeError, match="target must be a torch.Tensor, got ndarray; torch.as_tensor"):
        loss(LOGITS, LABELS.numpy())


def test_proportions_name_a_valid_mask_of_another_shape():
    for target, num_classes in ((LABELS, 3), (REGIONS, None)):
        with raises_naming((2, 1, 4, 4)):
            losses.neighborhood_proportions(target, num_classes, valid=torch.ones(2, 1, 4, 4, dtype=torch.bool))
