"""Every method builds its loss with the settings of its name, on the neighbourhood of the plans."""

from __future__ import annotations

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from nnunet_nacl import losses
from nnunet_nacl.methods import METHODS
from nnunet_nacl_trainers.loss import TrainingLoss
from tests.trainers.plans import LABEL_SPACES
from tests.trainers.test_loss import batch

# the settings that are not the method's defaults
CONFIGURED = {
    "NACL": {"kernel_size": (3, 3)},
    "NACL_lambda0p2_k5_gaussian_sigma2_l2_softmax_sum_m5": {
        **{"penalty_weight": 0.2, "kernel_size": (5, 5), "prior": "gaussian", "sigma": 2.0, "penalty": "l2"},
        **{"space": "softmax", "reduction": "sum", "prior_scale": 5.0},
    },
    "SVLS_k5_sigma1": {"sigma": 1.0, "kernel_size": (5, 5)},
    "MbLS": {},
    "MbLS_lambda0p2_sum_m10": {"penalty_weight": 0.2, "margin": 10.0, "reduction": "sum"},
    "LS_alpha0p2": {"smoothing": 0.2},
    "Focal_gamma2": {"gamma": 2.0},
    "ECP_sum_alpha0p3": {"penalty_weight": 0.3, "reduction": "sum"},
    "CE": {},
}


@pytest.mark.parametrize(
    ("dice", "name"), [(dice, name) for dice in ("", "Dice") for name in CONFIGURED if dice + name != "DiceCE"]
)
def test_the_settings_of_the_name_reach_the_loss(make_loss, dice: str, name: str) -> None:
    method = METHODS[name.split("_")[0]]
    loss = make_loss(f"nnUNetTrainer{dice}{name}").loss
    assert type(loss.voxelwise) is getattr(losses, method.module)
    expected = {**method.defaults, **CONFIGURED[name], "ignore_label": None, "regions": False}
    assert loss.voxelwise.settings == expected and loss.voxelwise.check_labels is False
    assert (loss.dc is None) == (dice == "")


@pytest.mark.parametrize("label_space", LABEL_SPACES)
@pytest.mark.parametrize("name", ["nnUNetTrainerNACL", "nnUNetTrainerDiceNACL", "nnUNetTrainerDiceCE_adam"])
def test_deep_supervision_is_nnunets(make_loss, name: str, label_space: str) -> None:
    ours, stock = make_loss(name, label_space), make_loss("nnUNetTrainer", label_space)
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


@pytest.mark.parametrize("label_space", LABEL_SPACES)
def test_dice_ce_is_nnunets_own_loss(make_loss, label_space: str) -> None:
    loss = make_loss("nnUNetTrainerDiceCE_adam", label_space).loss
    assert type(loss) is (DC_and_BCE_loss if label_space.startswith("regions") else DC_and_CE_loss)
    stock = make_loss("nnUNetTrainer", label_space).loss
    logits, target = batch(label_space)
    target = target.float() if label_space == "regions" else target
    assert loss(logits, target) == stock(logits, target)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("token", "num_axes", "first_kernel", "size"),
    [
        ("", 2, None, (3, 3)),
        ("", 3, None, (3, 3, 3)),
        ("", 3, [1, 3, 3], (1, 3, 3)),
        ("", 3, [5, 7, 7], (3, 3, 3)),
        ("", 3, 3, (3, 3, 3)),
        ("_k5", 2, None, (5, 5)),
        ("_k5", 3, [1, 3, 3], (1, 5, 5)),
        ("_k3", 3, [1, 3, 3], (1, 3, 3)),
    ],
)
@pytest.mark.parametrize("method", ["NACL", "DiceSVLS"])
def test_the_neighbourhood_follows_the_plans_unless_the_name_says_otherwise(
    make_trainer, method: str, token: str, num_axes: int, first_kernel, size: tuple[int, ...], residual: bool
) -> None:
    trainer = make_trainer(
        f"nnUNetTrainer{method}{token}", num_axes=num_axes, first_kernel=first_kernel, residual=residual
    )
    assert trainer.neighborhood_size() == size
    assert trainer._build_loss().loss.voxelwise.settings["kernel_size"] == size


def test_plans_of_a_network_without_convolution_kernels(make_trainer) -> None:
    trainer = make_trainer("nnUNetTrainerNACL", num_axes=3)
    del trainer.configuration_manager.configuration["architecture"]["arch_kwargs"]["kernel_sizes"]
    assert trainer.neighborhood_size() == (3, 3, 3)


@pytest.mark.parametrize("name", ["nnUNetTrainerNACL", "nnUNetTrainerDiceNACL", "nnUNetTrainerFocal"])
def test_the_loss_is_compiled_where_nnunet_compiles(make_trainer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module, *args, **kwargs: compiled.append(module) or module)
    trainer = make_trainer(name)
    assert isinstance(trainer._build_loss().loss, TrainingLoss) and compiled == []
    monkeypatch.setattr(trainer, "_do_i_compile", lambda: True)
    loss = trainer._build_loss().loss
    assert any(loss.voxelwise is module for module in compiled)
    if loss.dc is not None:
        assert any(loss.dc is module for module in compiled)
    assert not any(isinstance(module, TrainingLoss) for module in compiled)  # its check of the labels must run
    logits, target = batch("classes")
    target[0, 0, 0, 0] = 9
    with pytest.raises(ValueError, match=r"label\(s\) 9"):
        loss(logits, target)
