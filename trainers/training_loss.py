"""The loss that a trainer trains with: one of this package and, where it is wanted, nnU-Net's
Dice loss."""

from __future__ import annotations

from torch import Tensor, nn

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.losses import SegmentationLoss


class TrainingLoss(nn.Module):
    """``voxelwise(logits, target) + weight_dice * dc(logits, target)``, of one scale of the deep
    supervision.

    Args:
        voxelwise: A loss of :mod:`nnunet_nacl.losses`, compiled or not.
        label_space: Classes or regions, and the ignore label.
        dc: nnU-Net's soft Dice loss as nnU-Net built it, or None. Ignored voxels are masked for it
            as in nnU-Net's compound losses.

    """

    def __init__(
        self, voxelwise: nn.Module, label_space: LabelSpace, dc: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.voxelwise = voxelwise
        self.dc = dc
        self.weight_dice = 1.0  # nnU-Net's compound losses have it, too: both are annealed alike
        self._label_space = label_space
        self._has_checked_labels = False

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of one batch, logits (B, C, *spatial) and target as nnU-Net's loaders give
        it.

        Raises:
            ValueError: The first batch holds a label that is no class. Later batches are not looked
                at: that would make the GPU wait in every iteration.

        """
        if not self._has_checked_labels:
            self._label_space.read(logits, target, check_labels=True)
            self._has_checked_labels = True
        loss = self.voxelwise(logits, target)
        if self.dc is None or self.weight_dice == 0:
            return loss
        return loss + self.weight_dice * self._dice_loss(self.dc, logits, target)

    def _dice_loss(self, dc: nn.Module, logits: Tensor, target: Tensor) -> Tensor:
        read_target = self._label_space.read(logits, target, check_labels=False)
        labels = read_target.labels if self._label_space.regions else read_target.labels[:, None]
        mask = None if read_target.valid is None else read_target.valid[:, None]
        return dc(logits, labels, loss_mask=mask)

    def extra_repr(self) -> str:
        """Shown in nnU-Net's debug.json."""
        if self.dc is None:
            return ""
        return f"weight_dice={self.weight_dice}"


def describe_loss(loss: nn.Module) -> str:
    """The loss of one scale with all its settings, in one line; also nnU-Net's own."""
    if not isinstance(loss, TrainingLoss):
        return _describe(loss)
    voxelwise = _describe(loss.voxelwise)
    if loss.dc is None:
        return voxelwise
    return f"{voxelwise} + {loss.weight_dice:g} * {_describe(loss.dc)}"


def _describe(module: nn.Module) -> str:
    module = getattr(module, "_orig_mod", module)  # out of what torch.compile wraps it in
    if isinstance(module, SegmentationLoss):
        return " ".join(repr(module).split())
    settings = []  # nnU-Net's losses do not show theirs
    for name, value in vars(module).items():
        is_private = name.startswith("_") or name == "training"  # those are PyTorch's
        if isinstance(value, bool | int | float | str) and not is_private:
            settings.append(f"{name}={value!r}")
    settings += [f"{name}={_describe(part)}" for name, part in module.named_children()]
    return f"{type(module).__name__}({', '.join(settings)})"
