"""The networks that a name can ask for: those of their sources, with the plans' features."""

from __future__ import annotations

import inspect
import pickle
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from monai.networks.nets import AttentionUnet, BasicUNetPlusPlus
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.nn import functional

from nnunet_nacl.registration.grammar import parse
from nnunet_nacl.registration.lookup import registered_trainers, resolve
from nnunet_nacl_paper import trainers
from nnunet_nacl_paper.files import InputError
from nnunet_nacl_paper.networks.planned import Planned
from nnunet_nacl_paper.networks.transunet import TransUNet, load_imagenet_weights
from nnunet_nacl_trainers.frequency_start import class_layers
from tests.trainers.plans import make_plans

PAPER = Planned((32, 64, 128, 256, 512), ((3, 3),) * 5, ((1, 1), *((2, 2),) * 4), (224, 224))
SMALL = ("unet", "attunet", "unetpp")


def make(
    network: str, num_axes: int = 2, inputs: int = 1, outputs: int = 3, **plans
) -> torch.nn.Module:
    """As nnU-Net's predictor does it, from the trainer's class and plans of four stages."""
    content = make_plans(num_axes)
    (name,) = content["configurations"]
    configuration = content["configurations"][name]
    configuration["patch_size"] = [32] * num_axes
    for key, value in plans.items():
        if key in configuration:
            configuration[key] = value
        else:
            configuration["architecture"]["arch_kwargs"][key] = value
    plans_manager = PlansManager(content)
    configuration_manager = plans_manager.get_configuration(name)
    trainer = getattr(trainers, f"nnUNetTrainerNACL_{network}_adam")
    torch.manual_seed(0)
    return trainer.build_network_architecture(
        plans_manager, configuration_manager, inputs, outputs, False
    )


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("network", SMALL)
def test_logits_have_the_shape_of_the_patch_in_2d_and_3d(network, num_axes) -> None:
    built = make(network, num_axes, inputs=2)
    patch = [32] * num_axes
    logits = built(torch.randn((1, 2, *patch)))
    assert logits.shape == (1, 3, *patch)
    assert logits.std() > 0


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("network", SMALL)
def test_every_weight_that_needs_a_gradient_gets_one(network, num_axes) -> None:
    """DDP would wait for it."""
    built = make(network, num_axes, inputs=2)
    built(torch.randn((1, 2, *[32] * num_axes))).square().mean().backward()
    trained = [parameter for parameter in built.parameters() if parameter.requires_grad]
    assert trained
    assert all(parameter.grad is not None for parameter in trained)


def test_the_plain_unet_has_the_parameters_of_the_papers() -> None:
    """Two convolutions a stage with 32 to 512 filters, down and up, one of size 1 for classes."""
    network = make(
        "unet",
        outputs=4,
        n_stages=5,
        features_per_stage=list(PAPER.features),
        kernel_sizes=[[3, 3]] * 5,
        strides=[[1, 1], *[[2, 2]] * 4],
    )
    assert count(network) == 7846180


def test_the_plain_unet_computes_what_its_weights_say() -> None:
    network = make(
        "unet",
        features_per_stage=[2, 3, 4],
        strides=[[1, 1], [2, 2], [4, 4]],
        kernel_sizes=[[3, 3]] * 3,
    )
    image = torch.randn(1, 1, 32, 32)
    weights = network.state_dict()

    def stage(x, name):
        for layer in (0, 2):
            kernel = weights[f"{name}.{layer}.weight"]
            bias = weights[f"{name}.{layer}.bias"]
            x = functional.conv2d(x, kernel, bias, padding=1).clamp(min=0)
        return x

    def enlarge(x, factor):
        return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)

    first = stage(image, "down.0")
    second = stage(functional.max_pool2d(first, 2), "down.1")
    third = stage(functional.max_pool2d(second, 4), "down.2")
    x = stage(torch.cat([enlarge(third, 4), second], 1), "up.1")
    x = stage(torch.cat([enlarge(x, 2), first], 1), "up.0")
    expected = functional.conv2d(x, weights["classes.weight"], weights["classes.bias"])
    torch.testing.assert_close(network(image), expected)


def test_the_attention_unet_is_monais() -> None:
    image = torch.randn(2, 1, 32, 32)
    ours = make("attunet").eval()
    theirs = AttentionUnet(2, 1, 3, [4, 8, 8, 8], [2, 2, 2]).eval()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(image), theirs(image))


def test_unet_plus_plus_is_monais() -> None:
    image = torch.randn(2, 1, 32, 32)
    ours = make("unetpp").eval()  # the plans have four stages, U-Net++ five levels
    theirs = BasicUNetPlusPlus(2, 1, 3, (4, 8, 8, 8, 8, 4)).eval()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(image), theirs(image)[0])


def test_transunet_has_the_parameters_of_its_source() -> None:
    """R50-ViT-B/16 of Chen et al. with 224 x 224 pixels and 9 classes: 105.28 million."""
    with torch.device("meta"):
        network = TransUNet(PAPER, 1, 9)
    assert round(count(network) / 1e6, 2) == 105.28


def _patch(size: tuple[int, ...]) -> Planned:
    return Planned(PAPER.features, PAPER.kernel_sizes, PAPER.strides, size)


@pytest.fixture
def short_transformer(monkeypatch) -> None:
    """TransUNet with the ResNet of its source, but one narrow transformer block."""
    create_small = partial(timm.create_model, embed_dim=48, depth=1, num_heads=3)
    monkeypatch.setattr(timm, "create_model", create_small)


def test_a_file_with_other_weights_is_refused(short_transformer, tmp_path) -> None:
    network = TransUNet(_patch((32, 32)), 1, 3)
    with pytest.raises(InputError, match="no such file"):
        load_imagenet_weights(network, tmp_path / "nowhere.npz")
    np.savez(tmp_path / "other.npz", **{"embedding/kernel": np.zeros((16, 16, 3, 48), np.float32)})
    with pytest.raises(InputError, match=r"other.npz: holds no weights of R50\+ViT-B_16"):
        load_imagenet_weights(network, tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("weights")
    with pytest.raises(InputError, match="text.npz: holds no weights"):
        load_imagenet_weights(network, tmp_path / "text.npz")


@pytest.mark.parametrize(
    ("network", "num_axes", "plans", "message"),
    [
        ("unet", 2, {"patch_size": [20, 33]}, r"multiples of 8 x 8 .* 20 x 33.*\[24, 32\]"),
        ("attunet", 3, {"patch_size": [4, 16, 16]}, r"patch_size to \[8, 16, 16\], the nearest"),
        ("unetpp", 2, {"patch_size": [16, 16]}, r"multiples of 16 x 16 voxels.*\[32, 32\]"),
        ("transunet", 3, {}, "a network for slices: train it with the configuration 2d"),
    ],
)
def test_patches_that_a_network_cannot_take_are_refused_with_the_nearest(
    network, num_axes, plans, message
) -> None:
    with pytest.raises(InputError, match=message):
        make(network, num_axes, **plans)


@pytest.mark.parametrize("network", [*SMALL, "transunet"])
def test_the_class_layer_alone_makes_the_logits(network, short_transformer) -> None:
    built = make(network)
    (name,) = class_layers(built)
    layer = built.get_submodule(name)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
        logits = built.eval()(torch.randn(1, 1, 32, 32))
    assert torch.equal(logits, layer.bias.view(1, 3, 1, 1).expand_as(logits))


def trainers_in_configurations() -> set[str]:
    """Names of all trainers in the workflow's configurations of the paper."""
    names: set[str] = set()
    for path in (Path(__file__).parents[1] / "config").glob("*.yaml"):
        names.update(re.findall(r"nnUNetTrainer\w+", path.read_text(encoding="utf-8")))
    return names


REGISTERED = {
    entry_point.name: entry_point
    for entry_point in registered_trainers()
    if "nnunet_nacl_paper" in entry_point.value
}


def test_the_trainers_of_every_configuration_can_be_found() -> None:
    for name in trainers_in_configurations():
        if set(trainers.NETWORKS) & set(name.split("_")):
            assert name in REGISTERED
        else:
            assert parse(name)


def test_a_registered_trainer_is_the_class_of_its_name() -> None:
    assert REGISTERED
    for name, entry_point in REGISTERED.items():
        trainer = entry_point.load()
        assert resolve(name) is trainer
        assert getattr(trainers, name) is trainer
        assert pickle.loads(pickle.dumps(trainer)) is trainer


def test_constructors_have_the_arguments_of_nnunets() -> None:
    """nnU-Net reads their names."""
    expected = named_arguments(nnUNetTrainer)
    for entry_point in REGISTERED.values():
        assert named_arguments(entry_point.load()) == expected


def named_arguments(trainer: type) -> list[tuple[str, object]]:
    """Name and default of each argument of the constructor."""
    parameters = inspect.signature(trainer.__init__).parameters.values()
    return [(parameter.name, parameter.default) for parameter in parameters]


def test_a_name_that_is_not_registered_says_where_its_network_is() -> None:
    fix = "`pip install ./research/paper` in the sources of nnunet_nacl"
    for name in ("nnUNetTrainerNACL_unet", "nnUNetTrainerDiceCE_5epochs_transunet"):
        with pytest.raises(ValueError, match=fix):
            resolve(name)


def test_a_trainer_without_a_network_in_its_name_is_not_one_of_these() -> None:
    with pytest.raises(AttributeError):
        trainers.nnUNetTrainerNACL  # noqa: B018
