"""The slow reference itself, held against the published code and against MONAI: what all other tests lean on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.losses.authors import AUTHORS_LOSSES, AUTHORS_PRIORS, load_outputs
from tests.reference import losses as reference


@pytest.mark.parametrize("key", AUTHORS_LOSSES)
def test_reference_gives_what_the_published_code_gave(key):
    outputs = load_outputs()
    name, settings, dims = AUTHORS_LOSSES[key]
    value, gradient = getattr(reference, name)(outputs[f"logits_{dims}"], outputs[f"labels_{dims}"], **settings)
    np.testing.assert_allclose(value, outputs[f"{key}/loss"], atol=2e-6, rtol=0)
    np.testing.assert_allclose(gradient, outputs[f"{key}/grad"], atol=5e-9, rtol=0)


@pytest.mark.parametrize("key", AUTHORS_PRIORS)
def test_reference_proportions_are_those_of_the_published_code(key):
    outputs = load_outputs()
    tau = reference.neighborhood_proportions(outputs["labels_2d"], 4, **AUTHORS_PRIORS[key])
    np.testing.assert_allclose(tau, outputs[key], atol=2e-7, rtol=0)


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("spatial", [(5, 6), (4, 3, 5)])
def test_reference_with_zeros_padding_is_monai(spatial, distance):
    monai_losses = pytest.importorskip("monai.losses")
    torch.manual_seed(0)
    logits = torch.randn(2, 3, *spatial, requires_grad=True)
    labels = torch.randint(0, 3, (2, *spatial))
    theirs = monai_losses.NACLLoss(classes=3, dim=len(spatial), distance_type=distance)(logits, labels)
    theirs.backward()
    value, gradient = reference.nacl(logits.detach(), labels, penalty=distance, padding="zeros")
    np.testing.assert_allclose(value, theirs.item(), atol=2e-6)
    np.testing.assert_allclose(gradient, logits.grad, atol=1e-7)


@pytest.mark.parametrize("name", ["cross_entropy", "label_smoothing", "focal", "ecp", "mbls", "svls", "nacl"])
@pytest.mark.parametrize("regions", [False, True])
def test_complex_step_agrees_with_finite_differences(name, regions):
    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (1, 2, 2, 3))
    target = random.integers(0, 2, (1, 2 if regions else 1, 2, 3))
    loss = getattr(reference, name)
    _, gradient = loss(logits, target, regions=regions)
    numeric = np.zeros_like(logits)
    for place in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[place] = 1e-6
        numeric[place] = (
            loss(logits + step, target, regions=regions)[0] - loss(logits - step, target, regions=regions)[0]
        ) / 2e-6
    np.testing.assert_allclose(gradient, numeric, atol=1e-8)
