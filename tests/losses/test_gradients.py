"""Gradients: against finite differences, once and again, and none where a voxel is ignored."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from nnunet_nacl import losses
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
def test_a_second_backward_gives_the_same_gradient_whatever_the_caller_did_with_the_first(name, settings, label_space):
    """A caller may clip it in place, or go on accumulating; logits and target stay as they were."""
    logits, target, where = problem(label_space, (4, 3), seed=23)
    leaf, given = logits.clone().requires_grad_(), target.clone()
    loss = CASES[name].function(leaf, given, **settings, **where)
    first = torch.autograd.grad(loss, leaf, retain_graph=True)[0]
    kept = first.clone()
    first.zero_()
    assert kept.abs().max() > 1e-4
    tripled = torch.autograd.grad(loss, leaf, torch.tensor(3.0, dtype=loss.dtype), retain_graph=True)[0]
    torch.testing.assert_close(tripled, 3 * kept, rtol=1e-12, atol=1e-18)
    torch.testing.assert_close(torch.autograd.grad(loss, leaf)[0], kept, rtol=1e-12, atol=0)
    assert torch.equal(leaf.detach(), logits) and torch.equal(given, target)


@SPACE
@ALL_LOSSES
def test_ignored_voxels_have_zero_gradient_and_their_logits_do_not_matter(name, settings, label_space):
    logits, target, where = problem(label_space, (5, 4), seed=26)
    ignored = (target == IGNORE) if label_space == "classes_ignore" else target[:, 3:] == 1
    assert 0.1 < ignored.double().mean() < 0.6
    loss = CASES[name].function
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target, **settings, **where)
    (gradient,) = torch.autograd.grad(value, leaf)
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
def test_value_does_not_depend_on_whether_gradients_are_asked_for(name, settings, label_space):
    logits, target, where = problem(label_space, (4, 3), seed=28)
    loss = CASES[name].function
    with_gradient = loss(logits.clone().requires_grad_(), target, **settings, **where)
    assert with_gradient.requires_grad
    plain = loss(logits, target, **settings, **where)
    with torch.no_grad():
        under_no_grad = loss(logits.clone().requires_grad_(), target, **settings, **where)
    with torch.inference_mode():
        under_inference = loss(logits.clone(), target, **settings, **where)
    assert not plain.requires_grad and not under_no_grad.requires_grad
    for value in (plain, under_no_grad, under_inference):
        assert value.item() == pytest.approx(with_gradient.item(), rel=1e-12)


@SPACE
@ALL_LOSSES
def test_memory_layout_of_the_logits_does_not_matter(name, settings, label_space):
    logits, target, where = problem(label_space, (4, 3), seed=29)
    loss = CASES[name].function
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf, target, **settings, **where), leaf)
    stepped = torch.empty(2, 3, 8, 6, dtype=torch.float64)[..., ::2, ::2].copy_(logits)
    for layout in (logits.contiguous(memory_format=torch.channels_last), logits.mT.contiguous().mT, stepped):
        leaf = layout.detach().requires_grad_()
        assert torch.equal(leaf, logits)
        (gradient,) = torch.autograd.grad(loss(leaf, target.mT.contiguous().mT, **settings, **where), leaf)
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_a_second_derivative_is_refused_or_right_but_never_a_silent_zero():
    logits = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    target = torch.randint(3, (1, 1, 4, 4))
    with pytest.raises(RuntimeError, match="automatic_differentiation"):
        torch.autograd.grad(losses.cross_entropy(logits, target), logits, create_graph=True)
    with losses.automatic_differentiation():
        assert torch.autograd.gradgradcheck(lambda x: losses.cross_entropy(x, target), logits)


@SPACE
@ALL_LOSSES
def test_torch_func_gives_the_same_gradients_also_sample_by_sample(name, settings, label_space):
    logits, target, where = problem(label_space, (4, 3), seed=30)
    loss = CASES[name].function
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf, target, **settings, **where), leaf)
    result = torch.func.grad(lambda x: loss(x, target, **settings, **where))(logits)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-12)

    def of_one(x, labels):  # labels of a sample that vmap hides cannot be looked at
        return loss(x[None], labels[None], check_labels=False, **settings, **where)

    one_by_one = torch.stack([torch.func.grad(of_one)(*sample) for sample in zip(logits, target)])
    at_once = torch.func.vmap(torch.func.grad(of_one))(logits, target)
    torch.testing.assert_close(at_once, one_by_one, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk_voxels", [7, 40])
@pytest.mark.parametrize("shape", [(3, 4, 9, 8), (2, 3, 7, 5, 6), (2, 3, 11)], ids=str)
@pytest.mark.parametrize("ignored", [False, True], ids=["all valid", "ignored"])
def test_gradients_do_not_depend_on_how_the_image_is_cut_up(shape, chunk_voxels, ignored, monkeypatch):
    """In slabs and groups of samples as at once, and as by automatic differentiation."""
    monkeypatch.setattr("nnunet_nacl.losses.analytic.engine._CHUNK_VOXELS", chunk_voxels)
    torch.manual_seed(0)
    logits = 3 * torch.randn(shape, dtype=torch.float64)
    target = torch.randint(shape[1], (shape[0], 1, *shape[2:]))
    if ignored:
        target[torch.rand(target.shape) < 0.3] = 9
    common = {"ignore_label": 9} if ignored else {}
    forms = [
        (losses.nacl, {"prior": prior, "padding": padding, "penalty": penalty, "kernel_size": size})
        for prior in ("mean", "svls")
        for padding in ("valid", "background", "zeros", "replicate")
        for penalty, size in (("l1", 3), ("l2", 5))
    ]
    forms += [
        (losses.svls, {"padding": "replicate"}),
        (losses.mbls, {"margin": 1.0}),
        (losses.ecp, {}),
        (losses.focal, {}),
        (losses.label_smoothing, {}),
    ]
    for function, settings in forms:
        results = []
        for context in (nullcontext, losses.automatic_differentiation):
            leaf = logits.clone().requires_grad_()
            with context():
                value = function(leaf, target, **settings, **common)
                value.backward()
            results.append((value.detach(), leaf.grad))
        torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-14, msg=f"{function} {settings}")
