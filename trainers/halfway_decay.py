"""The schedule of the learning rate that goes with Adam."""

from __future__ import annotations

from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler


class HalfwayDecay(PolyLRScheduler):
    """Learning rate that drops to a tenth at half of the training (Murugesan et al. 2025, section
    4.2).

    A function of the epoch alone, so that a training that nnU-Net continues needs no saved state.

    """

    def step(self, current_step: int | None = None) -> None:
        """Set the rate for an epoch, counted from 0.

        PyTorch's constructor calls it without an argument, which stands for the first epoch.
        """
        rate = (
            self.initial_lr / 10 if (current_step or 0) >= self.max_steps / 2 else self.initial_lr
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._last_lr = [rate] * len(self.optimizer.param_groups)
