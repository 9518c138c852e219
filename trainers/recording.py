"""Calibration in a training: of the validation batches of each epoch, and of the cases of the final validation.

Whatever fails here is a line in the training log, and the value of the epoch is NaN: it never stops a training.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from nnunetv2.configuration import default_num_processes
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock_module
from torch import Tensor

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.metrics import BinStats, count_masks, ece, nll

ECE_KEY, NLL_KEY = "val_ece_foreground", "val_nll"
"""Names in nnU-Net's logger, beside its own."""
_EXPORT = "export_prediction_from_logits"


class CalibrationRecorder:
    """What a trainer calls when an epoch's validation starts and ends, and whenever its loss gets logits."""

    def __init__(self, trainer: stock_module.nnUNetTrainer, space: LabelSpace) -> None:
        self._trainer, self._space = trainer, space
        self._harmless = partial(harmless, trainer.print_to_log_file, "calibration in a training, which goes on", set())
        self._seen: list[tuple[BinStats, BinStats]] | None = []  # of this epoch's batches; None once one has failed

    def on_validation_epoch_start(self) -> None:
        """Forget a validation that was broken off."""
        self._seen = []

    def on_loss(self, loss: Any, arguments: tuple) -> None:
        """Measure a batch at its highest resolution; training iterations are not observed."""
        if not torch.is_grad_enabled() and self._seen is not None:
            seen, self._seen = self._seen, None
            with self._harmless():
                logits, target = (value if isinstance(value, Tensor) else value[0] for value in arguments)
                self._seen = [*seen, count_batch(logits, target, self._space)]

    def on_validation_epoch_end(self) -> None:
        """Log the values of all ranks together, NaN where one has failed; it takes part, since the others wait."""
        trainer, values = self._trainer, {ECE_KEY: float("nan"), NLL_KEY: float("nan")}
        with self._harmless():
            of_rank: Any = self._seen and [BinStats.merge(stats) for stats in zip(*self._seen)]
            ranks = [of_rank] * (dist.get_world_size() if trainer.is_ddp else 1)
            if trainer.is_ddp:
                dist.all_gather_object(ranks, of_rank)
            if all(ranks):
                foreground, every = map(BinStats.merge, zip(*ranks))
                values = {ECE_KEY: ece(foreground), NLL_KEY: nll(every)}
        for key, value in values.items():
            with self._harmless():
                trainer.logger.local_logger.my_fantastic_logging.setdefault(key, [])  # it takes only keys that it has
                trainer.logger.log(key, value, trainer.current_epoch)
        if trainer.local_rank == 0:
            with self._harmless():
                numbers = f"ECE of the foreground {values[ECE_KEY]:.4f}, NLL {values[NLL_KEY]:.4f}"
                trainer.print_to_log_file(f"Calibration on validation batches: {numbers}")


@torch.no_grad()
def count_batch(logits: Tensor, target: Tensor, space: LabelSpace) -> tuple[BinStats, BinStats]:
    """Sums of the true foreground and of all valid voxels of a batch (B, C, *spatial) and nnU-Net's target."""
    read = space.read(logits, target, check_labels=False)
    logits = (logits if logits.dtype == torch.float64 else logits.float()).transpose(0, 1)
    labels = read.labels.transpose(0, 1) if space.regions else read.labels
    probs = logits.sigmoid() if space.regions else logits.softmax(0)
    sums = count_masks(probs, labels, valid=read.valid, regions=space.regions)
    return sums["foreground"], sums["all"]


@contextmanager
def harmless(log: Callable[[str], None], what: str, told: set[str]) -> Iterator[None]:
    """Make of an error a line in the log (on other ranks than the first, of their output) that was not told yet."""
    try:
        yield
    except Exception as error:
        line = f"WARNING: {what}: {type(error).__name__}: {' '.join(str(error).split())}"
        with suppress(Exception):  # the log cannot be written either
            if line not in told:
                told.add(line)
                log(line)


@contextmanager
def measured_validation(trainer: stock_module.nnUNetTrainer, weights: Path | None = None) -> Iterator[None]:
    """Around nnU-Net's validation: its workers measure each case that they export, and rank 0 writes calibration.json.

    A failure of that is a warning in the training log, never a lost validation. ``weights`` is the checkpoint whose
    weights the trainer's network has; None where that is not known.
    """
    validation = Path(trainer.output_folder, "validation")
    references = Path(trainer.preprocessed_dataset_folder_base, "gt_segmentations")
    stock, log = getattr(stock_module, _EXPORT, None), trainer.print_to_log_file
    with harmless(log, "calibration is not measured in this validation", set()):
        from nnunet_nacl.nnunet.export import MeasuredExport
        from nnunet_nacl.nnunet.prediction_folder import PredictionFolder

        validation.mkdir(parents=True, exist_ok=True)
        export = MeasuredExport(PredictionFolder.open(validation, references), _made_by(weights))
        pickle.dumps(export)  # or nnU-Net's workers would never get it
        setattr(stock_module, _EXPORT, export)
    try:
        yield
    finally:
        setattr(stock_module, _EXPORT, stock)
    if trainer.local_rank == 0:  # all ranks have met at nnU-Net's barrier by now
        with harmless(log, "calibration was not evaluated", set()):
            _evaluate(validation, references, log)


def _made_by(weights: Path | None) -> dict[str, Any]:
    """What records say of the network that predicts, as nnU-Net does; nothing where its checkpoint is not known."""
    from nnunet_nacl.files import checksum
    from nnunet_nacl.nnunet.held_out import NNUNETS_OWN

    return {"checkpoint": checksum(weights), **NNUNETS_OWN} if weights is not None and weights.is_file() else {}


def _evaluate(validation: Path, references: Path, log: Callable[[str], None]) -> None:
    from nnunet_nacl.evaluation.evaluation import FILE_NAME, Evaluation
    from nnunet_nacl.files import remove_leftovers
    from nnunet_nacl.nnunet.held_out import measure_folders
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
    from nnunet_nacl.nnunet.records import Work

    output, folder = validation / FILE_NAME, PredictionFolder.open(validation, references)
    work = Work(settings=folder.settings, with_sample=True)
    remove_leftovers(validation)
    found = measure_folders({"": folder}, work, jobs=default_num_processes)
    for case, problem in found.problems.items():
        log(f"WARNING: calibration: {case}: {problem}")
    evaluation = Evaluation(list(found.records.values()), folder.labels, work.settings, found.problems)
    evaluation.write(output)
    means = (f"{mask} {evaluation.calibration['mean'][mask]['ECE']:.4f}" for mask in ("foreground", "predicted", "all"))
    log(f"Calibration (mean over {len(found.records)} cases): ECE {', '.join(means)}; more in {output}")
