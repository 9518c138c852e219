"""Half precision, extreme logits, and inputs with something missing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from nnunet_nacl import losses
from tests.losses.cases import (
    CASES,
    CONFIGURED,
    CONFIGURED_IDS,
    LABEL_SPACES,
    PENALTY_FORMS,
    pairwise,
    problem,
    value_and_gradient,
)

SPACES = ["classes_ignore", "regions_mask"]
# largest relative error of rounding to that type
ROUNDING = {torch.float16: 2**-11, torch.bfloat16: 2**-8}
SMALLEST = {torch.float16: 2**-24, torch.bfloat16: 0.0}  # spacing of the smallest numbers


@pairwise(
    name__settings=CONFIGURED,
    label_space=SPACES,
    autocast=[None, *ROUNDING],
    logits_dtype=[torch.float32, *ROUNDING, torch.float64],
)
def test_half_logits_and_autocast_are_computed_in_float32(
    name, settings, label_space, autocast, logits_dtype
):
    logits, target, where = problem(label_space, (5, 4), seed=31)
    leaf = logits.to(logits_dtype).requires_grad_()
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        loss = CASES[name].function(leaf, target, **settings, **where)
    assert loss.dtype == torch.promote_types(logits_dtype, torch.float32)
    (gradient,) = torch.autograd.grad(loss, leaf)  # outside of autocast, as in a training loop
    assert gradient.dtype == logits_dtype
    value, expected = CASES[name].reference(leaf.detach().double(), target, **settings, **where)
    assert loss.item() == pytest.approx(value, rel=2e-6)
    # but for the rounding to the logits' type, with room for a unit in the last place
    relative = 2 * ROUNDING.get(logits_dtype, 0) + 1e-4
    absolute = SMALLEST.get(logits_dtype, 0) + 1e-12
    np.testing.assert_allclose(gradient.double(), expected, rtol=relative, atol=absolute)


@pairwise(name__settings=CONFIGURED, label_space=SPACES, dtype=list(ROUNDING))
def test_a_scaled_gradient_does_not_flush_to_zero(name, settings, label_space, dtype):
    """With N voxels the gradient is about 1 / N, and float16 holds nothing below 6e-8.

    What is divided by N before it is multiplied by the GradScaler's factor is lost.
    """
    scale = 65536.0
    logits, target, where = problem(label_space, (64, 48), seed=33, batch=1, scale=4.0)
    half = logits.to(dtype)
    loss = CASES[name].module(**settings, **where)
    _, unscaled = value_and_gradient(loss, half.double(), target)
    expected = scale * unscaled
    leaf = half.clone().requires_grad_()
    (scale * loss(leaf, target)).backward()
    gradient = leaf.grad.double().numpy()

    # p - 1 in float32 is right to 1e-7 of the largest gradient, or of cross-entropy's, 1 / N, where
    # that of a loss is nowhere so large; everything above that must be there
    n_voxels = logits[0, 0].numel()
    noise = 2e-7 * max(np.abs(expected).max(), scale / n_voxels)
    above_noise = np.abs(expected) > 4 * noise
    assert above_noise.mean() > 0.2
    assert (gradient[above_noise] != 0).all()
    np.testing.assert_allclose(gradient, expected, rtol=2 * ROUNDING[dtype] + 1e-4, atol=noise)


@pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)
def test_an_empty_batch_gives_zero(name, settings):
    without_images = {"spatial": (3, 4), "batch": 0}
    without_voxels = {"spatial": (0, 4), "batch": 2}
    for label_space, shape in itertools.product(LABEL_SPACES, (without_images, without_voxels)):
        logits, target, where = problem(label_space, **shape)
        loss = CASES[name].module(**settings, **where)
        value, gradient = value_and_gradient(loss, logits, target)
        assert value == 0
        assert gradient.shape == logits.shape


def extreme_logits(dtype):
    """Three channels at magnitude 1e4: all patterns of sign, some equal, and near ones far from 0.

    The small numbers are no share of up to nine neighbours, where |tau - l| would have its kink.
    """
    values_of_channel = [(-1e4, 0.37, 1e4), (-1e4, 0.37, 1e4), (-1e4, 0.61, 1e4)]
    patterns = list(itertools.product(*values_of_channel))
    patterns += [(9.992e3, 1e4, -1e4), (1e4, 9.999e3, 9.998e3), (-1e4, 3.0, 2.0)]
    return torch.tensor(patterns, dtype=torch.float64).T.reshape(1, 3, 5, 6).to(dtype)


def voxels_with_a_tie(logits, regions):
    """Where a loss has no one gradient: MbLS's maximum of equal logits, |l| of a region at 0."""
    if regions:
        return logits == 0
    equal_pairs = (logits[:, :, None] == logits[:, None]).sum((1, 2))  # each logit equals itself
    return (equal_pairs > logits.shape[1])[:, None].expand_as(logits)


def expected_at(logits, target, name, settings, where):
    """The reference's value and gradient."""
    value, gradient = CASES[name].reference(logits.double(), target, **settings, **where)
    if name == "focal" and settings.get("gamma", 3) < 1:
        # (1 - p)^gamma has no complex derivative where p is 1; there log p = 0, and so is the
        # gradient
        gradient = np.where(np.isfinite(gradient), gradient, 0)
    return value, gradient


FOCAL_BELOW_1 = ("focal", {"gamma": 0.5})
NACL_FORMS = [("nacl", form) for form in PENALTY_FORMS]


@pairwise(
    name__settings=[*CONFIGURED, FOCAL_BELOW_1, *NACL_FORMS],
    label_space=SPACES,
    dtype=[torch.float64, torch.float32, *ROUNDING],
)
def test_logits_of_magnitude_1e4(name, settings, label_space, dtype):
    logits = extreme_logits(dtype)
    for seed in range(2):
        _, target, where = problem(label_space, (5, 6), seed=seed, batch=1)
        loss = CASES[name].module(**settings, **where)
        value, gradient = value_and_gradient(loss, logits, target)
        assert math.isfinite(value)
        assert np.isfinite(gradient).all()

        expected_value, expected = expected_at(logits, target, name, settings, where)
        assert value == pytest.approx(expected_value, rel=1e-5)
        has_gradient = ~voxels_with_a_tie(logits, "regions" in where).numpy()
        np.testing.assert_allclose(
            gradient[has_gradient],
            expected[has_gradient],
            rtol=2 * ROUNDING.get(dtype, 5e-6),
            atol=1e-6 * np.abs(expected).max() + 2**-24,
        )


@pytest.mark.parametrize("kernel_size, size", [(7, 9), (41, 33)])
def test_wide_kernels_count_right(kernel_size, size):
    """7^3 places are more than 8 bits hold, 41^3 more than 16; float16 counts only up to 2048."""
    labels = torch.ones(1, size, size, size, dtype=torch.uint8)
    labels[0, 0, 0, 0] = 0
    tau = losses.neighborhood_proportions(labels, 2, kernel_size=kernel_size)

    seen_from_middle = min(kernel_size, size) ** 3
    middle = size // 2
    share = 1 / seen_from_middle if kernel_size > size else 0
    np.testing.assert_allclose(tau[0, :, middle, middle, middle], [share, 1 - share], atol=1e-7)

    seen_from_corner = min(kernel_size // 2 + 1, size) ** 3
    share = 1 / seen_from_corner
    np.testing.assert_allclose(tau[0, :, 0, 0, 0], [share, 1 - share], atol=1e-6)
