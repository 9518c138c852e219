"""Loss and derivatives of one case, against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.likelihood import Voxels, case_terms
from tests.calibration.problems import drawn_from


def reference(voxels: Voxels, parameters: torch.Tensor) -> torch.Tensor:
    num = len(voxels.log_odds)
    weights = torch.ones(voxels.log_odds.shape[1]).double() if voxels.weights is None else voxels.weights
    x = parameters[:num, None] * voxels.log_odds + parameters[num:, None]
    if voxels.regions:
        loss = binary_cross_entropy_with_logits(x, voxels.target.double(), reduction="none").mean(0)
    else:
        loss = cross_entropy(torch.cat([0 * x[:1], x]).T, voxels.target, reduction="none")
    return (loss * weights).sum() / weights.sum()


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_derivatives_are_those_of_autograd(regions, weighted, monkeypatch):
    monkeypatch.setattr("nnunet_nacl.calibration.likelihood._BLOCK", 37)
    voxels = drawn_from(AffineMap([0.8, 1.1, 0.6], [0.1, -0.2, 0.4], regions), cases=1, voxels=200)[0]
    weights = torch.from_numpy(np.random.default_rng(1).uniform(0.5, 9, 200)) if weighted else None
    voxels = Voxels(voxels.log_odds, voxels.target, weights)
    parameters = torch.tensor([1.2, 0.7, 0.9, 0.3, -0.5, 0.1], dtype=torch.float64)
    terms = case_terms(voxels, parameters.numpy())
    assert terms.loss == pytest.approx(float(reference(voxels, parameters)), rel=1e-12)
    leaf = parameters.clone().requires_grad_()
    reference(voxels, leaf).backward()
    np.testing.assert_allclose(terms.gradient, leaf.grad.numpy(), atol=1e-12)
    hessian = torch.autograd.functional.hessian(lambda p: reference(voxels, p), parameters)
    np.testing.assert_allclose(terms.hessian, hessian.numpy(), atol=1e-12)
