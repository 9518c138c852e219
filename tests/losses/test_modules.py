"""The Modules are thin, printable, picklable, as the functions, and compiled whole.

The eager backend runs what dynamo captured: this finds graph breaks without needing a compiler.
"""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch

from nnunet_nacl.methods import METHODS
from tests.losses.cases import (
    CASES,
    CONFIGURED,
    CONFIGURED_IDS,
    IGNORE,
    LABEL_SPACES,
    assert_same,
    problem,
    value_and_gradient,
)

ALL_LOSSES = pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)
ALL_METHODS = pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)


@ALL_LOSSES
def test_module_equals_function_and_shows_every_setting(name, settings):
    for label_space in ("classes_ignore", "regions_mask"):
        logits, target, where = problem(label_space, (4, 5))
        module = CASES[name].module(**settings, **where)
        expected = CASES[name].function(logits, target, **settings, **where)
        for made in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert made(logits, target).item() == expected.item()
            assert repr(made) == repr(module)
        logged_settings = module.extra_repr()  # what a training log keeps of the loss
        for argument, value in {**settings, **where}.items():
            assert f"{argument}={value!r}" in logged_settings


@ALL_METHODS
def test_unknown_settings_are_refused(method):
    with pytest.raises(TypeError, match="colour"):
        CASES[method.function].module(colour=1)


@ALL_METHODS
def test_settings_without_a_name_are_refused(method):
    """What they set would depend on an order that nobody remembers."""
    logits, target, _ = problem("classes", (2, 2))
    with pytest.raises(TypeError):
        CASES[method.function].module(0.1)
    with pytest.raises(TypeError):
        CASES[method.function].function(logits, target, 0.1)


def test_a_setting_that_is_changed_holds_from_the_next_call():
    logits, target, _ = problem("classes", (4, 5))
    module = CASES["nacl"].module()
    module.penalty_weight = 0.3
    expected = CASES["nacl"].function(logits, target, penalty_weight=0.3)
    assert module(logits, target).item() == expected.item()


def test_a_setting_that_is_changed_is_checked_again():
    logits, target, _ = problem("classes", (4, 5))
    module = CASES["nacl"].module()
    module.penalty_weight = -1
    with pytest.raises(ValueError, match="penalty_weight"):
        module(logits, target)


def compile_and_compare(name, settings, label_space, spatial, backend="eager"):
    torch._dynamo.reset()
    logits, target, where = problem(label_space, spatial, seed=41)
    module = CASES[name].module(**settings, **where)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    logits = logits.float()
    expected = value_and_gradient(module, logits, target)
    assert_same(value_and_gradient(compiled, logits, target), expected)
    return compiled, module, target


@ALL_LOSSES
def test_each_loss_is_one_graph_that_also_serves_a_batch_in_which_nothing_is_valid(name, settings):
    label_space, ignored_label = ("regions_mask", 1) if settings else ("classes_ignore", IGNORE)
    compiled, _, target = compile_and_compare(name, settings, label_space, (5, 4))
    nothing_valid = torch.full_like(target, ignored_label)
    value, gradient = value_and_gradient(compiled, torch.randn(2, 3, 5, 4), nothing_valid)
    assert value == 0
    assert not gradient.any()


@pytest.mark.slow
@pytest.mark.parametrize("label_space", ["classes_ignore", "regions_mask"])
@ALL_LOSSES
def test_the_compiler_that_nnunet_uses_gives_the_same(name, settings, label_space):
    """On the CPU it writes C++, on a GPU Triton."""
    compile_and_compare(name, settings, label_space, (5, 6), backend="inductor")


@ALL_LOSSES
def test_nothing_is_read_from_the_device_or_moved_to_another(name, settings):
    """Tensors on ``meta`` have no numbers: whoever asks for one, or mixes devices, fails."""
    for label_space, spatial in itertools.product(LABEL_SPACES, ((5, 6), (4, 5, 6))):
        logits, target, where = problem(label_space, spatial, seed=43)
        module = CASES[name].module(**settings, **where, check_labels=False)
        logits = logits.float().to("meta").requires_grad_()
        loss = module(logits, target.to("meta"))
        loss.backward()
        assert loss.device.type == logits.grad.device.type == "meta"
        assert loss.shape == () and logits.grad.shape == logits.shape


@pytest.mark.parametrize("name", ["nacl", "svls", "focal", "ace"])
def test_shapes_that_change(name):
    """Deep supervision: from the second shape on dynamo compiles for any size."""
    compiled, module, _ = compile_and_compare(name, {}, "classes_ignore", (8, 6))
    for spatial in ((4, 3), (6, 9), (8, 6)):
        logits, target, _ = problem("classes_ignore", spatial, seed=42)
        expected = value_and_gradient(module, logits, target)
        assert_same(value_and_gradient(compiled, logits, target), expected)
