"""Records calibration on nnU-Net's own validation batches, epoch by epoch, and never stands in a training's way.

Whatever fails here becomes one warning in the training log; then the part that failed stays quiet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch import nn

from nnunet_nacl.cases.labels import Labels
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.binning import DEFAULT_N_BINS
from nnunet_nacl.training_record import (
    FILE_NAME,
    EpochSums,
    MaxLogitBins,
    TrainingRecord,
    describe_epoch,
    read_training_record,
    tracked_values,
)
from nnunet_nacl_trainers.observation import LogitObserver

if TYPE_CHECKING:
    from nnunet_nacl_trainers.base import CalibrationTrainer

DRAWING_SHARE = 0.003
"""At most this share of a training's time goes into pictures of the record, the last one apart.

Observing takes most of the one percent that all this may take where networks are smallest.
"""

_FIRST_DRAWING_S = 1.0  # what the first picture is expected to take

FREQUENCIES = "class_frequencies"
"""Key of the record for what the training began with, see :mod:`nnunet_nacl_trainers.frequency_start`."""


class CalibrationRecorder:
    """Observes the logits of a trainer's validation batches and keeps the record in its fold folder.

    The trainer calls the four ``on_...`` methods. While an epoch is validated the loss carries a hook that sees what
    it gets; in training iterations there is none.

    Args:
        trainer: One of this package's.
    """

    def __init__(self, trainer: CalibrationTrainer) -> None:
        self._trainer = trainer
        self._failed: dict[str, str] = {}  # part -> what went wrong there
        self._observer: Any = None  # a LogitObserver, from the first validation on
        self._hook: Any = None
        self._record: Any = None  # a TrainingRecord, once it is opened
        self._started_s = time.monotonic()
        self._drawing_s, self._next_drawing_s = 0.0, _FIRST_DRAWING_S

    def __repr__(self) -> str:  # lands in nnU-Net's debug.json
        return f"CalibrationRecorder({FILE_NAME})"

    @property
    def path(self) -> Path:
        """Where the record is kept."""
        return Path(self._trainer.output_folder) / FILE_NAME

    def on_train_start(self) -> None:
        """Continue the record of a training that nnU-Net continues; else start a new one."""
        self._started_s = time.monotonic()
        self._attempt("observation", self._open)

    def on_validation_epoch_start(self) -> None:
        """Register the forward hook on the loss."""
        self._attempt("observation", self._start_observing)

    def on_validation_epoch_end(self) -> None:
        """Remove the forward hook, and record what it saw.

        With DDP every rank takes part in the exchange in every epoch, also if it failed: the others wait for it.
        """
        observed = self._attempt("hook", self._remove_hook)  # also after a failure
        sums = self._attempt("observation", self._observer.fetch) if observed else None
        if self._trainer.is_ddp:
            sums = self._attempt("observation", self._exchange, sums, always=True)
        if sums is None or self._trainer.local_rank != 0:
            return
        # The record is written before nnU-Net writes its checkpoint: what is killed in between leaves an epoch too
        # many, which a continued training drops, and not one too few.
        entry = self._attempt("observation", self._append, sums)
        if entry is None:
            return
        # What could not be written is still in memory: there may be room on the disk in the next epoch.
        self._attempt("file", self._record.write, self.path, always=True)
        self._attempt("line in the log", lambda: self._trainer.print_to_log_file(describe_epoch(entry)))
        self._attempt("external loggers", self._log_externally, entry)
        if self._drawing_s + self._next_drawing_s <= DRAWING_SHARE * (time.monotonic() - self._started_s):
            self._attempt("figure", self._draw)

    def on_train_end(self) -> None:
        """Draw the whole record."""
        if self._trainer.local_rank == 0 and self._record is not None and self._record.epochs:
            self._attempt("figure", self._draw)

    def _open(self) -> None:
        trainer = self._trainer
        self._record = TrainingRecord(self._header())
        if trainer.local_rank != 0 or trainer.current_epoch == 0 or not self.path.exists():
            return
        try:
            old = read_training_record(self.path)
            if not self._record.same_kind(old):
                raise ValueError(f"{self.path}: its classes or bins are others.")
            self._record.header |= {key: value for key, value in old.items() if key == FREQUENCIES}
            for entry in old["epochs"]:  # those that nnU-Net's checkpoint knows too
                # Where another training in this folder wrote the record than the checkpoint is of, the times differ.
                start = _start_of(trainer, entry["epoch"])
                if entry["epoch"] < trainer.current_epoch and start in (None, entry.get("epoch_start_timestamp")):
                    self._record.append(entry)
        except (ValueError, TypeError) as error:
            self._record = TrainingRecord(self._header())
            aside = self.path.with_name(f"{self.path.stem}.old.json")
            os.replace(self.path, aside)
            trainer.print_to_log_file(f"WARNING: {error} Calibration is recorded anew; the old file is {aside.name}.")

    def _header(self) -> dict[str, Any]:
        trainer = self._trainer
        labels = Labels.of(trainer.label_manager, trainer.dataset_json, Path(trainer.preprocessed_dataset_folder_base))
        regions, channels = labels.regions, list(labels.names)
        start = trainer.frequency_start
        return {
            "trainer": type(trainer).__name__,
            "dataset": trainer.plans_manager.dataset_name,
            "configuration": trainer.configuration_name,
            "plans": trainer.plans_manager.plans_name,
            "fold": trainer.fold,
            **({} if start is None or start.frequencies is None else {FREQUENCIES: start.frequencies}),
            "regions": regions,
            "channels": channels,
            "true_classes": ["outside all regions", *channels] if regions else channels,
            "n_bins": DEFAULT_N_BINS,
            "max_logit_bins": asdict(MaxLogitBins()),
        }

    def _start_observing(self) -> None:
        if self._observer is None:
            channels = self._trainer.label_manager.num_segmentation_heads
            self._observer = LogitObserver(self._trainer._label_space(), channels)
        self._observer.start()
        self._remove_hook()  # of a validation that was broken off
        # On the outermost loss, whoever made it: it gets all resolutions, and nothing that is compiled is touched.
        self._hook = self._trainer.loss.register_forward_pre_hook(self._observe)

    def _observe(self, module: nn.Module, args: tuple) -> None:
        self._attempt("observation", lambda: self._observer.observe(*args))

    def _remove_hook(self) -> bool:
        """Whether there was one."""
        hook, self._hook = self._hook, None
        if hook is not None:
            hook.remove()
        return hook is not None

    def _exchange(self, sums: EpochSums | None) -> EpochSums | None:
        """The sums of all ranks; None on every rank if one of them has none."""
        gathered: list = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, (sums, self._failed.get("observation")))
        for rank, (_, reason) in enumerate(gathered):
            if reason is not None:
                self._give_up("observation", f"{reason} (rank {rank})")
        if any(part is None for part, _ in gathered):
            return None
        return sum((part for part, _ in gathered[1:]), start=gathered[0][0])

    def _append(self, sums: EpochSums) -> dict[str, Any]:
        trainer = self._trainer
        self._record = self._record or TrainingRecord(self._header())
        if not self._record.epochs:
            self.path.with_suffix(".png").unlink(missing_ok=True)  # it shows an earlier training in this folder
        entry = sums.entry(trainer.current_epoch, _start_of(trainer, trainer.current_epoch))
        self._record.append(entry)
        return entry

    def _log_externally(self, entry: dict[str, Any]) -> None:
        # nnU-Net's own logger raises at a key that it does not know; those beside it (Weights & Biases) take any.
        for logger in getattr(self._trainer.logger, "loggers", ()):
            for key, value in tracked_values(entry).items():
                logger.log(key, value, entry["epoch"])

    def _draw(self) -> None:
        start = time.monotonic()
        from nnunet_nacl.show.calibration_progress import draw_calibration_progress

        draw_calibration_progress(self._record.to_dict(), self.path.with_suffix(".png"))
        self._next_drawing_s = time.monotonic() - start
        self._drawing_s += self._next_drawing_s

    def _attempt(self, part: str, action: Callable, *args: Any, always: bool = False) -> Any:
        """What the action returns; None where it raises, or where its part failed before."""
        if part in self._failed and not always:
            return None
        try:
            return action(*args)
        except Exception as error:
            text = (str(error).splitlines() or [""])[0].rstrip(".")
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            self._give_up(part, kind + text, again=always)
            return None

    def _give_up(self, part: str, reason: str, again: bool = False) -> None:
        if part in self._failed:
            return
        self._failed[part] = reason
        after = "This is tried again after every epoch" if again else "The training goes on without"
        with suppress(Exception):  # the log cannot be written either
            self._trainer.print_to_log_file(f"WARNING: calibration during training, {part}: {reason}. {after}.")


def _start_of(trainer: CalibrationTrainer, epoch: int) -> float | None:
    """When an epoch began, as nnU-Net's logger knows it, also from a checkpoint."""
    try:
        return float(trainer.logger.get_value("epoch_start_timestamps", None)[epoch])
    except Exception:  # a logger that keeps no such times
        return None
