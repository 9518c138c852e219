"""MONAI's NACLLoss is our NACL with `zeros` padding and the mean prior."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_nacl import losses
from tests.losses.cases import value_and_gradient

monai_losses = pytest.importorskip("monai.losses")


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("spatial", [(7, 6), (5, 6, 4)], ids=["2d", "3d"])
def test_nacl_with_zeros_padding_is_monai(spatial, kernel_size, distance):
    torch.manual_seed(len(spatial))
    logits = torch.randn(2, 4, *spatial) * 3
    labels = torch.randint(0, 4, (2, *spatial))
    theirs = monai_losses.NACLLoss(
        classes=4, dim=len(spatial), kernel_size=kernel_size, distance_type=distance, alpha=0.3
    )
    expected = value_and_gradient(theirs, logits, labels)
    ours = value_and_gradient(
        losses.nacl, logits, labels, kernel_size=kernel_size, penalty=distance, penalty_weight=0.3, padding="zeros"
    )
    np.testing.assert_allclose(ours[0], expected[0], rtol=2e-6)
    np.testing.assert_allclose(ours[1], expected[1], atol=2e-8, rtol=2e-6)
