"""mL1-ACE: against a loop over bins, and what a term of a loss must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nnunet_nacl.losses.average_calibration_error import MarginalL1ACE, marginal_l1_ace
from tests.losses.cases import IGNORE, LABEL_SPACES, problem, value_and_gradient

BINNING = pytest.mark.parametrize("binning", ["hard", "soft"])
SPACE = pytest.mark.parametrize("label_space", LABEL_SPACES)


def slow(
    logits: torch.Tensor, target: torch.Tensor, label_space: str, num_bins: int = 20, binning: str = "hard"
) -> float:
    """Image by image, channel by channel, bin by bin. The weight of a voxel in a soft bin falls linearly to 0 at the
    next bins' centres, and stays 1 outside of the first and last centre."""
    logits, target = logits.double().numpy(), target.numpy()
    errors = []
    for scores, labels in zip(logits, target):
        regions = "regions" in label_space
        probs = 1 / (1 + np.exp(-scores)) if regions else np.exp(scores) / np.exp(scores).sum(0)
        ignored = {"classes_ignore": labels[0] == IGNORE, "regions_mask": labels[-1] == 1}.get(label_space)
        valid = np.ones(labels[0].shape, bool) if ignored is None else ~ignored
        for k, prob in enumerate(probs):
            member = labels[k] == 1 if regions else labels[0] == k
            gaps = []
            for m in range(num_bins):
                weight = (prob > m / num_bins) & (prob <= (m + 1) / num_bins)
                if binning == "soft":
                    in_bins = np.clip(prob * num_bins, 0.5, num_bins - 0.5)
                    weight = np.maximum(0, 1 - np.abs(in_bins - (m + 0.5)))
                weight = weight * valid
                if weight.sum() >= 0.01:
                    gaps.append(abs((weight * prob).sum() / weight.sum() - (weight * member).sum() / weight.sum()))
            if gaps:
                errors.append(np.mean(gaps))
    return float(np.mean(errors))


@SPACE
@pytest.mark.parametrize("spatial", [(40,), (9, 8), (4, 5, 6)], ids=str)
def test_it_is_what_a_loop_gives(label_space, spatial):
    logits, target, where = problem(label_space, spatial, seed=51)
    if label_space in ("classes_ignore", "regions_mask"):  # an image without ground truth does not count
        target[1] = IGNORE if label_space == "classes_ignore" else 1
    assert marginal_l1_ace(logits, target, **where).item() == pytest.approx(slow(logits, target, label_space))
    assert marginal_l1_ace(logits, target, num_bins=7, **where).item() == pytest.approx(
        slow(logits, target, label_space, 7)
    )


@SPACE
def test_soft_bins_are_what_a_loop_gives(label_space):
    logits, target, where = problem(label_space, (9, 8), seed=56, scale=4.0)
    value = marginal_l1_ace(logits, target, binning="soft", **where).item()
    assert value == pytest.approx(slow(logits, target, label_space, binning="soft"))


def test_two_bins_worked_out():
    """Region probabilities 1/4, 1/4 and 3/4, the first inside: |1/4 - 1/2| and |3/4 - 0|, each bin as heavy."""
    low, high = math.log(1 / 3), math.log(3)
    logits = torch.tensor([[[low, low, high]]], dtype=torch.float64)
    value, gradient = value_and_gradient(marginal_l1_ace, logits, torch.tensor([[[1, 0, 0]]]), num_bins=2, regions=True)
    assert value == pytest.approx((0.25 + 0.75) / 2)
    slope = 3 / 16  # p (1 - p)
    np.testing.assert_allclose(gradient[0, 0], [-slope / 4, -slope / 4, slope / 2])


@SPACE
@BINNING
def test_gradcheck(label_space, binning):
    logits, target, where = problem(label_space, (4, 3), seed=52)
    where["binning"] = binning
    assert torch.autograd.gradcheck(lambda x: marginal_l1_ace(x, target, **where), logits.requires_grad_())


@BINNING
@pytest.mark.parametrize("label_space", ["classes_ignore", "regions_mask"])
def test_ignored_voxels_have_no_gradient_and_nothing_valid_gives_zero(label_space, binning):
    logits, target, where = problem(label_space, (6, 5), seed=53)
    where["binning"] = binning
    ignored = (target == IGNORE) if label_space == "classes_ignore" else target[:, -1:] == 1
    _, gradient = value_and_gradient(marginal_l1_ace, logits, target, **where)
    everywhere = ignored.expand_as(logits).numpy()
    assert not gradient[everywhere].any() and gradient[~everywhere].all()
    nothing = torch.full_like(target, IGNORE if label_space == "classes_ignore" else 1)
    value, gradient = value_and_gradient(marginal_l1_ace, logits, nothing, **where)
    assert value == 0 and not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32_also_under_autocast(dtype):
    logits, target, where = problem("classes_ignore", (9, 8), seed=54)
    half = logits.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        value = marginal_l1_ace(half, target, **where)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(slow(half.detach(), target, "classes_ignore"), rel=1e-5)
    (65536 * value).backward()
    assert half.grad.dtype == dtype and torch.isfinite(half.grad).all() and half.grad.any()


@BINNING
def test_it_compiles_into_one_graph(binning):
    logits, target, where = problem("classes_ignore", (5, 4), seed=55)
    module = MarginalL1ACE(binning=binning, **where)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    (value, gradient), expected = (value_and_gradient(it, logits, target) for it in (compiled, module))
    torch._dynamo.reset()
    assert value == pytest.approx(expected[0])
    np.testing.assert_allclose(gradient, expected[1])


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="num_bins must be a positive integer, got 0"):
        MarginalL1ACE(num_bins=0)
    with pytest.raises(ValueError, match="binning must be one of hard, soft, got 'none'"):
        MarginalL1ACE(binning="none")
