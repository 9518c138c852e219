"""What follows the epoch: the paper's learning rate, and the weight of a Dice term that is annealed."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nnunet_nacl.methods import Variant

__all__ = ["HalfwayDecay", "dice_weight"]


def dice_weight(variant: Variant, epoch: int, num_epochs: int) -> float:
    """Weight of the Dice term in an epoch under ``anneal``: it falls linearly and then stays."""
    begin, end = (0.4, 0.8) if variant.late else (0.0, 0.5)  # of the training
    left = min(1.0, max(0.0, (end - epoch / num_epochs) / (end - begin)))
    kept = (variant.keep or 0) / 100
    return kept + (1 - kept) * left


class HalfwayDecay(LRScheduler):
    """Learning rate that drops to a tenth at half of the training (Murugesan et al. 2025, section 4.2).

    A function of the epoch alone, so that a training that nnU-Net continues needs no saved state.

    Args:
        optimizer: Its groups' rates are set.
        initial_lr: Rate of the first half.
        num_epochs: Length of the training.
    """

    def __init__(self, optimizer: Optimizer, initial_lr: float, num_epochs: int) -> None:
        self.optimizer = optimizer
        self.initial_lr = initial_lr
        self.num_epochs = num_epochs
        self._epoch = -1
        super().__init__(optimizer)

    def step(self, epoch: int | None = None) -> None:
        """Set the rate for ``epoch``, or for the next one."""
        self._epoch = self._epoch + 1 if epoch is None else epoch
        rate = self.initial_lr if self._epoch < self.num_epochs / 2 else self.initial_lr / 10
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._last_lr = [rate] * len(self.optimizer.param_groups)
