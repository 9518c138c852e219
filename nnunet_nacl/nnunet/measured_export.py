"""nnU-Net's export of a validation case, which also measures the case, so that no probabilities need be saved.

nnU-Net's own function converts and writes as always. While a network's logits are at hand everything that an evaluation
says of the case, and the sample that calibration is fitted to, is computed block by block and left in its record.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.record import RECORDS, record_path
from nnunet_nacl.files import name_finished, temporary_folder
from nnunet_nacl.images import why_broken
from nnunet_nacl.nnunet.network import ExportedLogits, watch_plans
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work, key_of_prediction


@dataclass(frozen=True)
class MeasuredExport:
    """Stands in for nnU-Net's ``export_prediction_from_logits``; can be pickled.

    Attributes:
        folder: Where the predictions go, and their ground truth.
        made_by: How the probabilities are made, as far as it is known: see the record's.
        work: What is measured.
    """

    folder: PredictionFolder
    made_by: Mapping[str, Any] = field(default_factory=dict)
    work: Work = Work(with_sample=True)

    def __call__(self, *arguments: Any, **options: Any) -> None:
        """As nnU-Net's function, which runs itself where ours fails; the case then has no record."""
        import torch
        from nnunetv2.inference.export_prediction import export_prediction_from_logits

        torch.set_num_threads(1)  # there are as many workers as there may be threads
        case, problem = Path(arguments[5]).name, ""
        with contextlib.suppress(OSError):  # of an earlier network
            record_path(self.folder.folder / RECORDS, case).unlink(missing_ok=True)
        try:
            self.export(*arguments, **options)
        except _NotMeasured as error:
            problem = str(error)
        except Exception as error:  # nnU-Net's own failure comes again, and goes where it always went
            export_prediction_from_logits(*arguments, **options)
            problem = f"nnU-Net's export cannot be watched: {type(error).__name__}: {error}"
        if problem:
            print(f"WARNING: calibration: {case}: {' '.join(problem.split())}", flush=True)

    def export(self, logits: Any, properties: dict, configuration: Any, plans: Any, *others: Any, **named: Any) -> None:
        """Export as nnU-Net does, each file under its name when it is whole, then measure.

        Takes nnU-Net's arguments, and raises what it raises; OSError for a truncated segmentation.
        """
        from nnunetv2.inference.export_prediction import export_prediction_from_logits

        dataset, path, *save = others
        target, shown = Path(path), list[Any]()
        with temporary_folder(target.parent) as work:
            given = logits, properties, configuration, watch_plans(plans, shown.append), dataset
            export_prediction_from_logits(*given, str(work / target.name), *save, **named)
            if problem := why_broken(work / f"{target.name}{self.folder.file_ending}"):
                raise OSError(errno.ENOSPC, problem)
            name_finished(work, target.parent)
        try:
            self._measure(target.name, np.asarray(shown[0]), properties, plans.transpose_backward)
        except Exception as error:
            raise _NotMeasured(f"{type(error).__name__}: {error}") from error

    def _measure(self, case: str, logits: np.ndarray, properties: Mapping[str, Any], axes: Sequence[int]) -> None:
        folder = self.folder
        made = folder.load(case, probabilities=False)
        exported = ExportedLogits(made.segmentation, logits, properties, axes, folder.label_manager)
        record = self.work(replace(made, probabilities=exported, made_by=dict(self.made_by)))
        key = key_of_prediction(folder, case, self.work.key, None)
        replace(record, key=key).save(record_path(folder.folder / RECORDS, case))


class _NotMeasured(Exception):
    """The case is exported, but has no record."""
