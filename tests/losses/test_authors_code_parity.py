"""Every loss gives what the published code gave: values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_nacl import losses
from tests.losses.authors import AUTHORS_LOSSES, AUTHORS_PRIORS, load_outputs
from tests.losses.cases import value_and_gradient


def test_every_stored_output_is_tested():
    stored = {key.removesuffix("/loss") for key in load_outputs() if key.endswith("/loss")}
    assert stored == set(AUTHORS_LOSSES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("key", AUTHORS_LOSSES)
def test_loss_and_gradient(key, dtype):
    outputs = load_outputs()
    name, settings, dims = AUTHORS_LOSSES[key]
    logits = torch.from_numpy(outputs[f"logits_{dims}"]).to(dtype)
    target = torch.from_numpy(outputs[f"labels_{dims}"])[:, None]
    value, gradient = value_and_gradient(getattr(losses, name), logits, target, **settings)
    np.testing.assert_allclose(value, outputs[f"{key}/loss"], atol=2e-6, rtol=0)
    np.testing.assert_allclose(gradient, outputs[f"{key}/grad"], atol=1e-8, rtol=0)


@pytest.mark.parametrize("key", AUTHORS_PRIORS)
def test_neighborhood_proportions(key):
    outputs = load_outputs()
    tau = losses.neighborhood_proportions(torch.from_numpy(outputs["labels_2d"]), 4, **AUTHORS_PRIORS[key])
    np.testing.assert_allclose(tau, outputs[key], atol=5e-7, rtol=0)
