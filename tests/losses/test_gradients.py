"""Gradients: against finite differences, by torch.func, and none where a voxel is ignored."""

from __future__ import annotations

import pytest
import torch

from tests.losses.cases import CASES, CONFIGURED, CONFIGURED_IDS, IGNORE, problem

ALL_LOSSES = pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)
SPACE = pytest.mark.parametrize("label_space", ["classes_ignore", "regions_mask"])


@SPACE
@ALL_LOSSES
def test_gradcheck(name, settings, label_space):
    """In float64 throughout: a single step of float32 inside would fail it."""
    logits, target, where = problem(label_space, (3, 2), seed=21)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: CASES[name].function(x, target, **settings, **where), (logits,))


@SPACE
@ALL_LOSSES
def test_ignored_voxels_have_zero_gradient_and_their_logits_do_not_matter(name, settings, label_space):
    logits, target, where = problem(label_space, (5, 4), seed=26)
    ignored = (target == IGNORE) if label_space == "classes_ignore" else target[:, 3:] == 1
    assert 0.1 < ignored.double().mean() < 0.6
    loss = CASES[name].function
    leaf, given = logits.clone().requires_grad_(), target.clone()
    value = loss(leaf, given, **settings, **where)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert torch.equal(leaf.detach(), logits) and torch.equal(given, target)  # nothing is written into what is given
    everywhere = ignored.expand_as(logits)
    assert (gradient[everywhere] == 0).all()
    assert (gradient[~everywhere] != 0).double().mean() > 0.5
    spoiled = torch.where(everywhere, torch.tensor(1e4, dtype=torch.float64), logits).requires_grad_()
    other = loss(spoiled, target, **settings, **where)
    (other_gradient,) = torch.autograd.grad(other, spoiled)
    torch.testing.assert_close(other, value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other_gradient, gradient, rtol=1e-9, atol=1e-12)


@SPACE
@ALL_LOSSES
def test_vmap_gives_the_gradients_of_each_sample(name, settings, label_space):
    logits, target, where = problem(label_space, (4, 3), seed=30)

    def of_one(x, labels):  # labels of a sample that vmap hides cannot be looked at
        return CASES[name].function(x[None], labels[None], check_labels=False, **settings, **where)

    one_by_one = torch.stack([torch.func.grad(of_one)(*sample) for sample in zip(logits, target)])
    at_once = torch.func.vmap(torch.func.grad(of_one))(logits, target)
    torch.testing.assert_close(at_once, one_by_one, rtol=1e-9, atol=1e-12)
