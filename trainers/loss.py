"""The loss that a trainer hands to nnU-Net: a voxel-wise loss, with or without nnU-Net's Dice term."""

from __future__ import annotations

from torch import Tensor, nn

from nnunet_nacl.losses.label_space import LabelSpace


class TrainingLoss(nn.Module):
    """``voxelwise(logits, target) + weight_dice * dc(logits, target)``.

    ``voxelwise`` is a loss of :mod:`nnunet_nacl.losses`, compiled or not, ``dc`` nnU-Net's soft Dice loss as nnU-Net
    built it, or None. Ignored voxels are masked for it as in nnU-Net's compound losses.
    """

    def __init__(self, voxelwise: nn.Module, label_space: LabelSpace, dc: nn.Module | None = None) -> None:
        super().__init__()
        self.voxelwise = voxelwise
        self.dc = dc
        self.weight_dice = 1.0  # the name that nnU-Net's compound losses use, so that both are annealed alike
        self._label_space = label_space
        self._checked = False

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of one batch at one scale of the deep supervision.

        Raises:
            ValueError: The first batch holds a label that is no class. Later batches are not looked at: that would
                make the GPU wait in every iteration.
        """
        if not self._checked:
            self._label_space.read(logits, target, check_labels=True)
            self._checked = True
        loss = self.voxelwise(logits, target)
        if self.dc is not None and self.weight_dice != 0:
            read = self._label_space.read(logits, target, check_labels=False)
            labels = read.labels if self._label_space.regions else read.labels[:, None]
            mask = None if read.valid is None else read.valid[:, None]
            loss = loss + self.weight_dice * self.dc(logits, labels, loss_mask=mask)
        return loss

    def extra_repr(self) -> str:
        """Shown in nnU-Net's debug.json."""
        return f"weight_dice={self.weight_dice}" if self.dc is not None else ""
