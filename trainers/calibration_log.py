"""Calibration in a training: of the validation batches of each epoch, and of the cases of the final
validation.

Whatever fails here is a line in the training log, and the value of the epoch is NaN: it never stops
a training.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import torch
import torch.distributed as dist
from matplotlib.ticker import MaxNLocator
from nnunetv2.configuration import default_num_processes
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunets_module
from torch import Tensor, nn

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.metrics import BinStats, count_masks, ece, nll
from nnunet_nacl.utilities import layout

ECE_KEY = "val_ece_foreground"
"""Name in nnU-Net's logger: expected calibration error of the true foreground of the validation
batches."""
NLL_KEY = "val_nll"
"""Name in nnU-Net's logger: negative log likelihood of all valid voxels of the validation
batches."""

PROGRESS_FIGURE = "progress_calibration.png"
"""Name of the figure of both by epoch, which lies beside nnU-Net's progress.png."""

_EXPORT = "export_prediction_from_logits"
"""Name of the function that nnU-Net's validation hands to its workers. ``measured_validation``
replaces it for that time in ``nnunets_module``, which is nnU-Net's file ``nnUNetTrainer.py``."""


class CalibrationLog:
    """What a trainer calls when an epoch's validation starts and ends, and whenever its loss gets
    logits."""

    def __init__(self, trainer: nnunets_module.nnUNetTrainer, label_space: LabelSpace) -> None:
        self._trainer = trainer
        self._label_space = label_space
        self._logged_errors: set[str] = set()
        # (true foreground, all valid voxels) of each batch of this epoch; None once one has failed.
        self._stats_of_batches: list[tuple[BinStats, BinStats]] | None = []

    def on_validation_epoch_start(self) -> None:
        """Forget a validation that was broken off."""
        self._stats_of_batches = []

    def on_loss(self, loss: nn.Module, arguments: tuple) -> None:
        """Measure a batch at its highest resolution; training iterations are not observed."""
        # The signature is that of PyTorch's forward pre-hooks, which are given the module, too.
        is_training = torch.is_grad_enabled()  # nnU-Net validates under torch.no_grad()
        if is_training or self._stats_of_batches is None:
            return
        earlier_batches = self._stats_of_batches
        self._stats_of_batches = None  # should this batch fail
        with self._errors_logged():
            logits, target = map(_highest_resolution, arguments)
            stats = count_batch(logits, target, self._label_space)
            self._stats_of_batches = [*earlier_batches, stats]

    def on_validation_epoch_end(self) -> None:
        """Log the values of all ranks together, NaN where one has failed; it takes part, since the
        others wait."""
        values = {ECE_KEY: float("nan"), NLL_KEY: float("nan")}
        with self._errors_logged():
            stats_of_ranks = self._gather_stats()
            if all(stats is not None for stats in stats_of_ranks):
                foreground_of_ranks, all_of_ranks = zip(*stats_of_ranks)
                values[ECE_KEY] = ece(BinStats.merge(foreground_of_ranks))
                values[NLL_KEY] = nll(BinStats.merge(all_of_ranks))
        for key, value in values.items():
            with self._errors_logged():
                self._write_value(key, value)
        if self._trainer.local_rank == 0:
            with self._errors_logged():
                self._trainer.print_to_log_file(
                    "Calibration on validation batches: "
                    f"ECE of the foreground {values[ECE_KEY]:.4f}, NLL {values[NLL_KEY]:.4f}"
                )

    def on_epoch_end(self) -> None:
        """Draw the values of all epochs."""
        if self._trainer.local_rank != 0:
            return
        with self._errors_logged():
            values_by_key = self._trainer.logger.local_logger.my_fantastic_logging
            path = Path(self._trainer.output_folder, PROGRESS_FIGURE)
            draw_progress(values_by_key[ECE_KEY], values_by_key[NLL_KEY], path)

    def _gather_stats(self) -> list[tuple[BinStats, BinStats] | None]:
        """Sums of the epoch by rank, None where a rank has none: of the true foreground, and of all
        valid voxels."""
        stats_of_rank = None
        if self._stats_of_batches:
            foreground_of_batches, all_of_batches = zip(*self._stats_of_batches)
            stats_of_rank = (BinStats.merge(foreground_of_batches), BinStats.merge(all_of_batches))
        if not self._trainer.is_ddp:
            return [stats_of_rank]
        stats_of_ranks: list[tuple[BinStats, BinStats] | None] = [None] * dist.get_world_size()
        dist.all_gather_object(stats_of_ranks, stats_of_rank)
        return stats_of_ranks

    def _write_value(self, key: str, value: float) -> None:
        logger = self._trainer.logger
        values_by_key = logger.local_logger.my_fantastic_logging
        values_by_key.setdefault(key, [])  # it takes only keys that it has
        logger.log(key, value, self._trainer.current_epoch)

    def _errors_logged(self) -> AbstractContextManager[None]:
        what = "calibration in a training, which goes on"
        return errors_logged(self._trainer.print_to_log_file, what, self._logged_errors)


def _highest_resolution(outputs: Tensor | list[Tensor]) -> Tensor:
    """The first of the scales of deep supervision, or the only one."""
    if isinstance(outputs, Tensor):
        return outputs
    return outputs[0]


@layout.figure_settings()
def draw_progress(eces: Sequence[float], nlls: Sequence[float], path: Path) -> None:
    """Draw both values of each epoch, one panel below the other; NaN is a gap."""
    body, panels = layout.new_panels(2, (8, 2.6), columns=1, sharex=True)
    labels = ("ECE, true foreground", "NLL, all voxels")
    for axes, label, values in zip(panels, labels, (eces, nlls)):
        # with a marker, since a value between two gaps has no line
        axes.plot(range(len(values)), values, color=layout.BLUE, lw=1.2, marker=".", markersize=3)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
    panels[-1].set_xlabel("epoch")
    panels[-1].set_xlim(-0.5, len(eces) - 0.5)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    title = "Calibration on the validation batches of each epoch"
    layout.write_figure(body, path, title=title, notes=["Lower is better."])


@torch.no_grad()
def count_batch(
    logits: Tensor, target: Tensor, label_space: LabelSpace
) -> tuple[BinStats, BinStats]:
    """Sums of the true foreground and of all valid voxels of a batch (B, C, *spatial) and nnU-Net's
    target."""
    read_target = label_space.read(logits, target, check_labels=False)
    if logits.dtype != torch.float64:
        logits = logits.float()
    channels_first = logits.transpose(0, 1)
    if label_space.regions:
        probs = channels_first.sigmoid()
        labels = read_target.labels.transpose(0, 1)
    else:
        probs = channels_first.softmax(0)
        labels = read_target.labels
    valid = read_target.valid
    stats_by_mask = count_masks(probs, labels, valid=valid, regions=label_space.regions)
    return stats_by_mask["foreground"], stats_by_mask["all"]


@contextmanager
def errors_logged(log: Callable[[str], None], what: str, logged_errors: set[str]) -> Iterator[None]:
    """Make of an error a line in the log, once for each error.

    Under DDP ranks other than the first print it, since nnU-Net's log is written by the first
    alone. What fails is lost, and nothing else: a training is worth more than what is measured of
    it.

    """
    try:
        yield
    except Exception as error:
        line = f"WARNING: {what}: {type(error).__name__}: {' '.join(str(error).split())}"
        if line in logged_errors:
            return
        logged_errors.add(line)
        with contextlib.suppress(Exception):  # the log cannot be written: nobody can be told
            log(line)


@contextmanager
def measured_validation(
    trainer: nnunets_module.nnUNetTrainer, checkpoint: Path | None = None
) -> Iterator[None]:
    """Around nnU-Net's validation: its workers measure each case that they export, and rank 0
    writes calibration.json.

    A failure of that is a warning in the training log, never a lost validation.

    Args:
        trainer: The trainer that validates.
        checkpoint: The file whose weights its network has; None where that is not known.

    """
    validation_folder = Path(trainer.output_folder, "validation")
    truth_folder = Path(trainer.preprocessed_dataset_folder_base, "gt_segmentations")
    log = trainer.print_to_log_file
    nnunets_export = getattr(nnunets_module, _EXPORT, None)
    with errors_logged(log, "calibration is not measured in this validation", set()):
        measuring = _import_training_validation()
        export = measuring.make_export(validation_folder, truth_folder, checkpoint)
        pickle.dumps(export)  # or nnU-Net's workers would never get it
        setattr(nnunets_module, _EXPORT, export)
    try:
        yield
    finally:
        setattr(nnunets_module, _EXPORT, nnunets_export)
    if trainer.local_rank == 0:  # all ranks have met at nnU-Net's barrier by now
        with errors_logged(log, "calibration was not evaluated", set()):
            measuring = _import_training_validation()
            measuring.write_evaluation(validation_folder, truth_folder, default_num_processes, log)


def _import_training_validation() -> ModuleType:
    """What measures whole cases: the one place where trainers reach beyond losses and metrics.

    It is imported when a validation begins, so that nothing of it can keep a training from
    starting.
    """
    from nnunet_nacl.comparison import training_validation

    return training_validation
