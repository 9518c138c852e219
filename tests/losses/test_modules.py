"""The Modules: thin, printable, picklable, and the same as the functions."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch

from nnunet_nacl.methods import METHODS
from tests.losses.cases import CASES, CONFIGURED, CONFIGURED_IDS, LABEL_SPACES, problem

ALL_LOSSES = pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)


@pytest.mark.parametrize("label_space", LABEL_SPACES)
@ALL_LOSSES
def test_module_equals_function(name, settings, label_space):
    logits, target, where = problem(label_space, (4, 5))
    module = CASES[name].module(**settings, **where)
    assert isinstance(module, torch.nn.Module)
    expected = CASES[name].function(logits, target, **settings, **where)
    for made in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert made(logits, target).item() == expected.item()
        assert repr(made) == repr(module)


@ALL_LOSSES
def test_representation_shows_every_setting(name, settings):
    """It is what a training log keeps of the loss."""
    module = CASES[name].module(**settings, ignore_label=7)
    for argument, value in {**settings, "ignore_label": 7}.items():
        assert f"{argument}={value}" in module.extra_repr().replace("'", "")
    assert "regions=True" in repr(CASES[name].module(regions=True))


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_function_and_module_show_their_defaults_which_are_those_of_the_table(method):
    function, module = CASES[method.function][:2]
    shown = [
        {name: parameter.default for name, parameter in inspect.signature(it).parameters.items()}
        for it in (function, module)
    ]
    common = {"ignore_label": None, "regions": False, "check_labels": True}
    assert shown[0].pop("logits") is shown[0].pop("target") is inspect.Parameter.empty
    assert shown[0] == shown[1] == {**method.defaults, **common}
    with pytest.raises(TypeError, match="colour"):
        module(colour=1)
    with pytest.raises(TypeError):  # a third positional argument could be anything
        function(*problem("classes", (2, 2))[:2], 0.1)
