"""Calibration of nnU-Net's own validation batches, epoch by epoch, beside the losses in nnU-Net's logger.

So the values are in nnU-Net's checkpoints, and a training that is continued goes on with them. Whatever fails here is
one line in the training log, and the value of the epoch is NaN: it never stops a training.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, bin_index
from nnunet_nacl.show.calibration_progress import ECE_KEY, NLL_KEY, draw_calibration_progress

if TYPE_CHECKING:
    from nnunet_nacl_trainers.base import CalibrationTrainer

FIGURE = "calibration_progress.png"

DRAWING_EVERY_S = 300.0
"""A picture takes about a second, so that a training spends less than 0.4 % of its time on them."""


class CalibrationRecorder:
    """Observes the logits of a trainer's validation batches and logs what they tell of calibration.

    The trainer calls the ``on_...`` methods, and :meth:`register` when nnU-Net's logger is new or has loaded a
    checkpoint. While an epoch is validated the loss carries a hook that sees what it gets; in training iterations there
    is none.

    Args:
        trainer: One of this package's, with its logger.
    """

    def __init__(self, trainer: CalibrationTrainer) -> None:
        self._trainer = trainer
        self._warned: set[str] = set()  # parts that have failed
        self._failed = False  # in this epoch
        self._sums: Tensor | None = None  # of this epoch
        self._hook: Any = None
        self._drawn_s = time.monotonic()
        self.register()

    def __repr__(self) -> str:  # lands in nnU-Net's debug.json
        return f"CalibrationRecorder({ECE_KEY}, {NLL_KEY})"

    def register(self) -> None:
        """Make the keys known to nnU-Net's logger, with NaN for finished epochs that have no value.

        The logger takes no other key than those that it has, a checkpoint brings its own, and nnU-Net's progress.png
        ends with the shortest list.
        """
        with self._harmless("logger"):
            logged = self._trainer.logger.local_logger.my_fantastic_logging
            for key in (ECE_KEY, NLL_KEY):
                values = logged.setdefault(key, [])
                values += [float("nan")] * (self._trainer.current_epoch - len(values))

    def on_validation_epoch_start(self) -> None:
        """Register the forward hook on the loss."""
        self._remove_hook()  # of a validation that was broken off
        self._sums, self._failed = None, False
        with self._harmless("measuring"):
            # On the outermost loss, whoever made it: it gets all resolutions, and nothing that is compiled is touched.
            self._hook = self._trainer.loss.register_forward_pre_hook(self._observe)

    def on_validation_epoch_end(self) -> None:
        """Remove the forward hook, and log what it saw.

        With DDP every rank takes part in the exchange in every epoch, also if it failed: the others wait for it. Its
        sums are then NaN, and so are those of all ranks together.
        """
        self._remove_hook()
        trainer, values = self._trainer, {ECE_KEY: float("nan"), NLL_KEY: float("nan")}
        with self._harmless("measuring"):
            sums = self._sums
            if sums is None or self._failed:
                labels = trainer.label_manager
                rows = labels.num_segmentation_heads if labels.has_regions else 1
                sums = torch.full((rows, DEFAULT_N_BINS + 3), float("nan"), dtype=torch.float64)
            if trainer.is_ddp:
                sums = sums.to(trainer.device)
                dist.all_reduce(sums)
            values = values_of(sums.cpu().numpy())
        for key, value in values.items():
            with self._harmless("logger"):
                trainer.logger.log(key, value, trainer.current_epoch)
        if trainer.local_rank != 0:
            return
        with self._harmless("line in the log"):
            numbers = f"ECE of the foreground {values[ECE_KEY]:.4f}, NLL {values[NLL_KEY]:.4f}"
            trainer.print_to_log_file(f"Calibration on validation batches: {numbers}")
        if time.monotonic() - self._drawn_s >= DRAWING_EVERY_S:
            self.draw()

    def draw(self) -> None:
        """Draw the training so far into its folder; nothing on other ranks than the first."""
        trainer = self._trainer
        if trainer.local_rank != 0:
            return
        with self._harmless("figure"):
            data = f"{trainer.plans_manager.dataset_name}, {trainer.configuration_name}, fold {trainer.fold}"
            epochs = {type(trainer).__name__: trainer.logger.get_checkpoint()}
            draw_calibration_progress(epochs, Path(trainer.output_folder) / FIGURE, subtitle=data)
        self._drawn_s = time.monotonic()

    def _observe(self, module: nn.Module, args: tuple) -> None:
        if not self._failed:
            with self._harmless("measuring"):
                logits, target = (value if isinstance(value, Tensor) else value[0] for value in args)
                sums = sums_of(logits, target, self._trainer._label_space())
                self._sums = sums if self._sums is None else self._sums + sums

    def _remove_hook(self) -> None:
        hook, self._hook = self._hook, None
        if hook is not None:
            hook.remove()

    @contextmanager
    def _harmless(self, part: str) -> Iterator[None]:
        """Make of an error a line in the log (on other ranks than the first, of their output), once for each part."""
        try:
            yield
        except Exception as error:
            self._failed = True
            if part not in self._warned:
                self._warned.add(part)
                reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0].rstrip('.')}"
                with suppress(Exception):  # the log cannot be written either
                    self._trainer.print_to_log_file(
                        f"WARNING: calibration during training, {part}: {reason}. The training goes on."
                    )


@torch.no_grad()
def sums_of(logits: Tensor, target: Tensor, space: LabelSpace) -> Tensor:
    """What a batch adds to the sums of an epoch.

    No operation has a result whose size depends on the data, so that a GPU is never waited for.

    Args:
        logits: (B, K, *spatial) for K classes, (B, R, *spatial) for R regions, of any floating type.
        target: As nnU-Net gives it to its loss. It is not changed.
        space: How the target is to be read.

    Returns:
        (T, DEFAULT_N_BINS + 3) float64 on the device of the logits, with T = 1 row for classes and one for each region:
        of the voxels of the true foreground (in any region) the sum of correct - confidence of the most probable class
        in each bin of confidence, and their number; of all voxels the sum of -log p(truth) in nats, and their number.
        Ignored voxels are in none of them. Where a logit is NaN, sums are NaN.
    """
    if logits.device.type not in ("cpu", "cuda"):  # Apple's GPUs have no double precision
        logits, target = logits.cpu(), target.cpu()
    read = space.read(logits, target, check_labels=False)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if space.regions:
        truth, probs = read.labels != 0, logits.sigmoid()
        foreground, inside = truth.any(1, keepdim=True), probs > 0.5
        nll = functional.softplus(torch.where(truth, -logits, logits))
        confidence, correct = torch.where(inside, probs, 1 - probs), inside == truth
    else:
        truth, log_probs = read.labels[:, None].long(), logits.log_softmax(1)
        foreground = truth != 0
        nll = -log_probs.gather(1, truth.clamp(0, logits.shape[1] - 1))  # on a GPU a wrong index would end the process
        confidence, winner = log_probs.max(1, keepdim=True)
        confidence, correct = confidence.exp(), winner == truth
    valid = torch.ones_like(foreground) if read.valid is None else read.valid[:, None]
    foreground = foreground & valid
    gap = correct.to(confidence.dtype) - confidence
    index = torch.where(foreground, bin_index(confidence.nan_to_num(), DEFAULT_N_BINS), DEFAULT_N_BINS)
    parts = [torch.where(index == i, gap, 0) for i in range(DEFAULT_N_BINS)]
    parts += [foreground.expand_as(gap), torch.where(valid, nll, 0), valid.expand_as(gap)]
    axes = (0, *range(2, logits.ndim))
    return torch.stack([part.sum(axes, dtype=torch.float64) for part in parts], 1)


def values_of(sums: np.ndarray) -> dict[str, float]:
    """Values by the logger's keys, from the sums of :func:`sums_of`.

    The expected calibration error of the foreground is ``sum_b |sum of correct - confidence in bin b| / n``, the
    negative log likelihood the mean over all voxels; of regions both are means over the regions. NaN without a voxel.
    """
    with np.errstate(invalid="ignore"):
        errors = np.abs(sums[:, :DEFAULT_N_BINS]).sum(1) / sums[:, -3]
        return {ECE_KEY: float(errors.mean()), NLL_KEY: float((sums[:, -2] / sums[:, -1]).mean())}
