"""What nnU-Net minimises: the voxel-wise loss that the name says, with or without nnU-Net's Dice
term."""

from __future__ import annotations

import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from nnunet_nacl import losses
from nnunet_nacl.losses import nacl
from nnunet_nacl.methods import METHODS, NAMED_TRAINERS, Method
from nnunet_nacl.registration.tokens import TOKENS, Variant
from nnunet_nacl_trainers.base import TrainingLoss
from tests.losses.cases import other_settings
from tests.trainers.epochs import make_batch
from tests.trainers.plans import LABEL_SPACES

IGNORE = 3
NUM_HEADS = {"classes": 3, "ignore": 3, "regions": 2, "regions_ignore": 2}


def batch(
    label_space: str, spatial: tuple[int, ...] = (7, 6), seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits, and a target in the form in which nnU-Net hands it over."""
    logits = torch.randn(
        2, NUM_HEADS[label_space], *spatial, generator=torch.Generator().manual_seed(seed)
    )
    return logits, make_batch(label_space, len(spatial), seed, shape=spatial)["target"]


def keywords(label_space: str) -> dict:
    if label_space.startswith("regions"):
        return {"regions": True}
    return {"ignore_label": IGNORE} if label_space == "ignore" else {}


def gradient(loss, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    logits = logits.clone().requires_grad_()
    loss(logits, target).backward()
    return logits.grad


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("label_space", LABEL_SPACES)
def test_it_is_the_voxelwise_loss_or_with_dice_the_sum(
    make_loss, label_space: str, num_axes: int
) -> None:
    logits, target = batch(label_space, (6, 5, 4)[:num_axes], seed=1)
    loss = make_loss("nnUNetTrainerDiceNACL", label_space, num_axes=num_axes).loss
    voxelwise = nacl(logits, target, kernel_size=3, **keywords(label_space))
    stock = make_loss("nnUNetTrainer", label_space, num_axes=num_axes).loss
    stock.weight_ce = 0
    dice = stock(logits, target)
    assert -1 < dice < -0.1
    for weight in (1.0, 0.25, 0.0):
        loss.weight_dice = weight
        torch.testing.assert_close(loss(logits, target), voxelwise + weight * dice)
    alone = make_loss("nnUNetTrainerNACL", label_space, num_axes=num_axes).loss
    torch.testing.assert_close(alone(logits, target), voxelwise)


@pytest.mark.parametrize("label_space", ["classes", "ignore", "regions"])
def test_with_plain_cross_entropy_it_is_nnunets_own_loss(make_loss, label_space: str) -> None:
    """Focal loss at gamma 0. Regions with an ignore label are left out: nnU-Net sums over regions
    there."""
    logits, target = batch(label_space, seed=2)
    ours = make_loss("nnUNetTrainerDiceFocal_gamma0", label_space).loss
    stock = make_loss("nnUNetTrainer", label_space).loss
    target_of_stock = target if label_space != "regions" else target.float()
    assert make_loss("nnUNetTrainerDiceCE_adam", label_space).loss(
        logits, target_of_stock
    ) == stock(logits, target_of_stock)
    torch.testing.assert_close(ours(logits, target), stock(logits, target_of_stock))
    torch.testing.assert_close(
        gradient(ours, logits, target),
        gradient(stock, logits, target_of_stock),
        rtol=1e-4,
        atol=1e-6,
    )


def with_all_tokens(method: Method, with_dice: bool = False) -> Variant:
    """The trainer whose name spells out every setting of the loss that a token can set."""
    tokens = {token.form: token for token in TOKENS}
    other = other_settings(method)
    values = {}
    for form, setting in method.settings_by_token.items():
        values[form] = other[setting] if tokens[form].has_number else tokens[form].words[0]
    return Variant(method.name, with_dice, values)


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_every_setting_of_the_name_reaches_the_loss(make_loss, method: Method) -> None:
    variant = with_all_tokens(method)
    expected = {**method.defaults, "ignore_label": None, "regions": False}
    for form, value in variant.values.items():
        setting = method.settings_by_token[form]
        assert value != method.defaults[setting]
        expected[setting] = value
    if "kernel_size" in expected:
        expected["kernel_size"] = (5, 5)
    loss = make_loss(variant.name).loss
    assert type(loss.voxelwise) is getattr(losses, method.loss_class)
    assert loss.voxelwise.settings == expected
    assert loss.voxelwise.check_labels is False
    assert loss.dc is None


def test_with_dice_the_settings_are_the_same(make_loss) -> None:
    alone = make_loss(with_all_tokens(METHODS["NACL"]).name).loss
    with_dice = make_loss(with_all_tokens(METHODS["NACL"], with_dice=True).name).loss
    assert with_dice.voxelwise.settings == alone.voxelwise.settings
    assert with_dice.dc is not None


@pytest.mark.parametrize("label_space", ["ignore", "regions"])
def test_deep_supervision_is_nnunets(make_loss, label_space: str) -> None:
    ours = make_loss("nnUNetTrainerDiceNACL", label_space)
    stock = make_loss("nnUNetTrainer", label_space)
    assert type(ours) is DeepSupervisionWrapper
    assert ours.weight_factors == stock.weight_factors
    scales = [(16, 16), (8, 8), (4, 4)]
    logits, target = zip(*(batch(label_space, size) for size in scales), strict=True)
    expected = sum(
        weight * ours.loss(*pair)
        for weight, *pair in zip(ours.weight_factors, logits, target, strict=True)
        if weight != 0
    )
    torch.testing.assert_close(ours(logits, target), expected)


@pytest.mark.parametrize(
    ("name", "num_axes", "first_kernel", "size"),
    [
        ("NACL", 3, [1, 3, 3], (1, 3, 3)),
        ("DiceSVLS", 3, [5, 7, 7], (3, 3, 3)),
        ("NACL", 3, 3, (3, 3, 3)),
        ("DiceSVLS_k5", 3, [1, 3, 3], (1, 5, 5)),
    ],
)
def test_the_neighbourhood_follows_the_plans_unless_the_name_says_otherwise(
    make_trainer, name: str, num_axes: int, first_kernel, size: tuple[int, ...]
) -> None:
    trainer = make_trainer(
        f"nnUNetTrainer{name}", num_axes=num_axes, first_kernel=first_kernel, residual=True
    )
    assert trainer.neighborhood_size() == size
    assert trainer._build_loss().loss.voxelwise.settings["kernel_size"] == size
    del trainer.configuration_manager.configuration["architecture"]["arch_kwargs"]["kernel_sizes"]
    # a network without kernels: 3, or what the name says
    assert trainer.neighborhood_size()[1:] == size[1:]


def test_the_loss_is_compiled_where_nnunet_compiles_and_names_a_label_that_is_no_class(
    make_trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(
        torch, "compile", lambda module, *args, **kwargs: compiled.append(module) or module
    )
    trainer = make_trainer("nnUNetTrainerDiceNACL")
    assert isinstance(trainer._build_loss().loss, TrainingLoss) and compiled == []
    trainer._do_i_compile = lambda: True
    loss = trainer._build_loss().loss
    for part in (loss.voxelwise, loss.dc):
        assert [module for module in compiled if module is part]
    # its check of the labels must run
    assert not any(isinstance(module, TrainingLoss) for module in compiled)
    logits, target = batch("classes")
    target[0, 0, 0, 0] = 9
    with pytest.raises(ValueError, match=r"label\(s\) 9, but the logits have classes 0 to 2"):
        loss(logits, target)


@pytest.mark.parametrize(
    "trainer_name", [name for name in NAMED_TRAINERS if name != "nnUNetTrainer"]
)
def test_a_step_with_deep_supervision_reads_nothing_from_the_device(
    prepared, trainer_name: str
) -> None:
    """Tensors on ``meta`` have no numbers; the labels of the first batch alone are read."""
    for label_space in LABEL_SPACES:
        trainer = prepared(trainer_name, label_space)
        network = trainer.network.to("meta")
        trainer.loss.loss._has_checked_labels = True
        made = make_batch(label_space, 2, 0, shape=(16, 16))
        logits = network(made["data"].to("meta"))
        num_channels = made["target"].shape[1]
        target = [
            torch.zeros((len(scale), num_channels, *scale.shape[2:]), device="meta")
            for scale in logits
        ]
        loss = trainer.loss(logits, target)
        loss.backward()
        assert loss.device.type == "meta" and loss.shape == ()
        assert all(weight.grad is not None for weight in network.parameters())
