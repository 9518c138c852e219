"""Every loss in every setting and label space against the slow reference: values and gradients."""

from __future__ import annotations

import itertools

import torch

from nnunet_nacl import losses
from nnunet_nacl.losses.neighborhood import PADDINGS, PRIORS
from tests.losses.cases import (
    CASES,
    CONFIGURED,
    LABEL_SPACES,
    PENALTY_FORMS,
    assert_same,
    pairwise,
    problem,
    value_and_gradient,
)

SPATIAL = [(5, 4), (3, 4, 3)]
FURTHER = [
    *[("mbls", {"margin": margin, "class_reduction": "sum"}) for margin in (0.0, 4.0)],
    *[("focal", {"gamma": gamma}) for gamma in (0.0, 0.5, 1.0, 2.0)],
    *[("svls", {"kernel_size": 3, "sigma": 0.3, "padding": padding}) for padding in PADDINGS],
    ("svls", {"kernel_size": 5, "sigma": 3.0, "padding": "zeros"}),
]


def assert_is_reference(name, label_space, spatial, settings, dtype=torch.float64, seed=1):
    logits, target, where = problem(label_space, spatial, seed=seed)
    logits = logits.to(dtype)
    result = value_and_gradient(CASES[name].function, logits, target, **settings, **where)
    expected = CASES[name].reference(logits, target, **settings, **where)
    assert_same(result, expected, message=str(settings))


@pairwise(prior=PRIORS, padding=PADDINGS, label_space=LABEL_SPACES, spatial=SPATIAL)
def test_nacl_in_every_prior_padding_penalty_space_reduction_and_scale(
    prior, padding, label_space, spatial
):
    for form, scale in itertools.product(PENALTY_FORMS, (1.0, 5.0)):
        neighborhood = {"prior": prior, "padding": padding}
        settings = neighborhood | form | {"penalty_weight": 0.4, "prior_scale": scale}
        assert_is_reference("nacl", label_space, spatial, settings)


@pairwise(
    name__settings=[*CONFIGURED, *FURTHER],
    dtype=[torch.float32, torch.float64],
    label_space=LABEL_SPACES,
    spatial=SPATIAL,
)
def test_every_loss(name, settings, dtype, label_space, spatial):
    assert_is_reference(name, label_space, spatial, settings, dtype, seed=2)


@pairwise(
    kernel_size__spatial=[
        (1, (3, 4)),
        (5, (1, 7)),
        (7, (3, 2)),
        ((1, 3), (4, 5)),
        ((1, 3, 3), (3, 4, 4)),
        ((3, 1, 5), (3, 3, 6)),
        (3, (6,)),
    ],
    padding=PADDINGS,
    label_space=LABEL_SPACES,
)
def test_kernel_sizes_per_axis_and_beyond_the_image(kernel_size, spatial, padding, label_space):
    # the svls weights need a neighbour
    priors = ("mean", "gaussian") if kernel_size == 1 else PRIORS
    for prior in priors:
        settings = {"kernel_size": kernel_size, "prior": prior, "padding": padding, "sigma": 0.8}
        assert_is_reference("nacl", label_space, spatial, settings, seed=3)


def test_proportions_take_labels_with_a_channel_axis_and_any_value_where_not_valid():
    labels = torch.tensor([[0, 1, 1], [1, 0, 0]])[None]
    valid = torch.tensor([[1, 1, 0], [0, 1, 1]], dtype=torch.bool)[None]
    expected = losses.neighborhood_proportions(labels, 2, valid=valid)
    spoiled = torch.where(valid, labels, 255)
    with_channel_axis = (spoiled[:, None], valid[:, None])
    for given, mask in ((spoiled, valid), with_channel_axis, (spoiled.float(), valid)):
        proportions = losses.neighborhood_proportions(given, 2, valid=mask)
        torch.testing.assert_close(proportions, expected)
