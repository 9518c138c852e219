"""The paper's learning rate."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["HalfwayDecay"]


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
