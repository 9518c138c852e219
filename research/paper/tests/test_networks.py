"""The networks that a name can ask for: those of their sources, with the plans' features, and
nnU-Net's to use."""

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
        place = (
            configuration if key in configuration else configuration["architecture"]["arch_kwargs"]
        )
        place[key] = value
    manager = PlansManager(content)
    trainer = getattr(trainers, f"nnUNetTrainerNACL_{network}_adam")
    torch.manual_seed(0)
    return trainer.build_network_architecture(
        manager, manager.get_configuration(name), inputs, outputs, False
    )


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("network", SMALL)
def test_logits_have_the_shape_of_the_patch_in_2d_and_3d(network, num_axes) -> None:
    built = make(network, num_axes, inputs=2)
    image = torch.randn((1, 2, *[32] * num_axes))
    logits = built(image)
    assert logits.shape == (1, 3, *[32] * num_axes) and logits.std() > 0
    logits.square().mean().backward()
    gone = {
        name
        for name, parameter in built.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    }
    assert not gone  # DDP would wait for them


def test_the_plain_unet_has_the_parameters_of_the_papers() -> None:
    """Its code: two convolutions a stage with 32 to 512 filters, the same on the way up, one of
    size 1 for classes."""
    stages = {"kernel_sizes": [[3, 3]] * 5, "strides": [[1, 1], *[[2, 2]] * 4]}
    assert (
        count(
            make("unet", features_per_stage=list(PAPER.features), n_stages=5, outputs=4, **stages)
        )
        == 7846180
    )


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
            kernel, bias = weights[f"{name}.{layer}.weight"], weights[f"{name}.{layer}.bias"]
            x = functional.conv2d(x, kernel, bias, padding=1).clamp(min=0)
        return x

    first = stage(image, "down.0")
    second = stage(functional.max_pool2d(first, 2), "down.1")
    third = stage(functional.max_pool2d(second, 4), "down.2")
    x = stage(torch.cat([third.repeat_interleave(4, 2).repeat_interleave(4, 3), second], 1), "up.1")
    x = stage(torch.cat([x.repeat_interleave(2, 2).repeat_interleave(2, 3), first], 1), "up.0")
    expected = functional.conv2d(x, weights["classes.weight"], weights["classes.bias"])
    torch.testing.assert_close(network(image), expected)


def test_monais_networks_are_monais() -> None:
    image = torch.randn(2, 1, 32, 32)
    ours = make("attunet").eval()
    theirs = AttentionUnet(2, 1, 3, [4, 8, 8, 8], [2, 2, 2]).eval()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(image), theirs(image))
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
    monkeypatch.setattr(
        timm, "create_model", partial(timm.create_model, embed_dim=48, depth=1, num_heads=3)
    )


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
        (
            "unet",
            2,
            {"patch_size": [20, 33]},
            r"multiples of 8 x 8 voxels, the plans have 20 x 33.*\[24, 32\]",
        ),
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


def test_the_trainers_of_every_configuration_are_registered_as_the_classes_of_their_names() -> None:
    named = {
        name
        for path in (Path(__file__).parents[1] / "config").glob("*.yaml")
        for name in re.findall(r"nnUNetTrainer\w+", path.read_text(encoding="utf-8"))
    }
    here = {
        trainer.name: trainer
        for trainer in registered_trainers()
        if "nnunet_nacl_paper" in trainer.value
    }
    others = {name for name in named if not set(trainers.NETWORKS) & set(name.split("_"))}
    assert named - others <= here.keys() and all(parse(name) for name in others)
    for name, trainer in here.items():
        assert (
            resolve(name)
            is trainer.load()
            is getattr(trainers, name)
            is pickle.loads(pickle.dumps(trainer.load()))
        )
        ours, stock = (
            inspect.signature(kind.__init__).parameters for kind in (trainer.load(), nnUNetTrainer)
        )
        assert [(p.name, p.default) for p in ours.values()] == [
            (p.name, p.default) for p in stock.values()
        ]


def test_a_name_that_is_not_registered_says_where_its_network_is() -> None:
    for name in ("nnUNetTrainerNACL_unet", "nnUNetTrainerDiceCE_5epochs_transunet"):
        with pytest.raises(
            ValueError, match="`pip install ./research/paper` in the sources of nnunet_nacl"
        ):
            resolve(name)
    with pytest.raises(AttributeError):
        trainers.nnUNetTrainerNACL  # noqa: B018
