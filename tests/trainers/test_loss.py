"""What nnU-Net minimises: a voxel-wise loss in every label space, with or without nnU-Net's Dice term."""

from __future__ import annotations

import pytest
import torch

from nnunet_nacl.losses import nacl
from tests.trainers.plans import LABEL_SPACES

IGNORE = 3
NUM_HEADS = {"classes": 3, "ignore": 3, "regions": 2, "regions_ignore": 2}


def batch(label_space: str, spatial: tuple[int, ...] = (7, 6), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits, and a target in the form in which nnU-Net hands it over."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, NUM_HEADS[label_space], *spatial, generator=generator)
    labels = torch.randint(4 if "ignore" in label_space else 3, (2, 1, *spatial), generator=generator)
    if not label_space.startswith("regions"):
        return logits, labels.to(torch.int16)
    channels = [(labels == 1) | (labels == 2), labels == 2]
    if label_space == "regions_ignore":
        channels.append(labels == IGNORE)
    return logits, torch.cat(channels, 1)


def keywords(label_space: str) -> dict:
    if label_space.startswith("regions"):
        return {"regions": True}
    return {"ignore_label": IGNORE} if label_space == "ignore" else {}


def gradient(loss, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    logits = logits.clone().requires_grad_()
    loss(logits, target).backward()
    return logits.grad


@pytest.fixture
def stock_dice(make_loss):
    """nnU-Net's own compound loss without its cross-entropy."""

    def make(label_space: str, **kwargs):
        stock = make_loss("nnUNetTrainer", label_space, **kwargs).loss
        stock.weight_ce = 0
        return stock

    return make


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("label_space", LABEL_SPACES)
def test_it_is_the_voxelwise_loss_or_with_dice_the_sum(make_loss, stock_dice, label_space: str, num_axes: int) -> None:
    logits, target = batch(label_space, (6, 5, 4)[:num_axes], seed=1)
    loss = make_loss("nnUNetTrainerDiceNACL", label_space, num_axes=num_axes).loss
    voxelwise = nacl(logits, target, kernel_size=3, **keywords(label_space))
    dice = stock_dice(label_space, num_axes=num_axes)(logits, target)
    assert -1 < dice < -0.1
    for weight in (1.0, 0.25, 0.0):
        loss.weight_dice = weight
        torch.testing.assert_close(loss(logits, target), voxelwise + weight * dice)
    alone = make_loss("nnUNetTrainerNACL", label_space, num_axes=num_axes).loss
    torch.testing.assert_close(alone(logits, target), voxelwise)


@pytest.mark.parametrize("label_space", ["classes", "ignore", "regions"])
def test_with_plain_cross_entropy_it_is_nnunets_own_loss(make_loss, label_space: str) -> None:
    """Focal loss at gamma 0. Regions with an ignore label are left out: nnU-Net sums over regions there."""
    logits, target = batch(label_space, seed=2)
    ours = make_loss("nnUNetTrainerDiceFocal_gamma0", label_space).loss
    stock = make_loss("nnUNetTrainer", label_space).loss
    target_of_stock = target if label_space != "regions" else target.float()
    torch.testing.assert_close(ours(logits, target), stock(logits, target_of_stock))
    torch.testing.assert_close(
        gradient(ours, logits, target), gradient(stock, logits, target_of_stock), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("label_space", ["ignore", "regions_ignore"])
def test_ignored_voxels_have_no_gradient(make_loss, label_space: str) -> None:
    logits, target = batch(label_space, seed=3)
    ignored = target[:, -1] == 1 if label_space == "regions_ignore" else target[:, 0] == IGNORE
    found = gradient(make_loss("nnUNetTrainerDiceNACL", label_space).loss, logits, target).movedim(1, -1)
    assert ignored.any() and not found[ignored].any() and found[~ignored].abs().sum(-1).min() > 0


@pytest.mark.parametrize("label_space", ["ignore", "regions_ignore"])
@pytest.mark.parametrize("name", ["nnUNetTrainerNACL", "nnUNetTrainerDiceNACL", "nnUNetTrainerDiceSVLS"])
def test_a_batch_without_ground_truth_is_no_nan(make_loss, name: str, label_space: str) -> None:
    logits, target = batch(label_space)
    nothing = torch.full_like(target, IGNORE if label_space == "ignore" else 1)
    loss = make_loss(name, label_space).loss
    assert torch.isfinite(loss(logits, nothing))
    assert torch.isfinite(gradient(loss, logits, nothing)).all()


@pytest.mark.parametrize("name", ["nnUNetTrainerNACL", "nnUNetTrainerDiceFocal"])
@pytest.mark.parametrize(("label_space", "label"), [("classes", 7), ("classes", -1), ("ignore", 4)])
def test_a_label_that_is_no_class_is_named_in_the_first_batch(
    make_loss, name: str, label_space: str, label: int
) -> None:
    logits, target = batch(label_space)
    target[0, 0, 2, 3] = label
    with pytest.raises(ValueError, match=rf"label\(s\) {label}, but the logits have classes 0 to 2"):
        make_loss(name, label_space).loss(logits, target)
