"""nnU-Net's export of a predicted case, which measures the case on the way: no probabilities are saved for it.

nnU-Net's own function converts and writes as always. While a network's logits are at hand everything that an evaluation
says of the case, and the sample that calibration is fitted to, is computed block by block and left in small files.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.document import FILE_NAME
from nnunet_nacl.case.measure import measure, sign
from nnunet_nacl.case.results import EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import temporary_folder
from nnunet_nacl.nnunet.image_files import why_broken
from nnunet_nacl.nnunet.network import ExportedLogits, watch_plans
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.runs.evaluate import ledger_folder, save_case
from nnunet_nacl.runs.ledger import Ledger
from nnunet_nacl.runs.sample_files import make_sample


@dataclass(frozen=True)
class MeasuredExport:
    """Stands in for nnU-Net's ``export_prediction_from_logits``; can be pickled.

    Attributes:
        folder: Where the predictions go, and their ground truth.
        settings: What is measured.
        members_dice: Of the case that comes next, by nnU-Net's key, the mean Dice between two folds' segmentations.
        replaces: Put new files in the place of others; else only those get their names that are not there.
    """

    folder: PredictionFolder
    settings: EvaluationSettings = EvaluationSettings()
    members_dice: Mapping[str, float] = field(default_factory=dict)
    replaces: bool = True

    def __call__(self, *arguments: Any, **options: Any) -> None:
        """As nnU-Net's function, which runs itself where ours fails; why is left to whoever evaluates the folder."""
        import torch
        from nnunetv2.inference.export_prediction import export_prediction_from_logits

        torch.set_num_threads(1)  # there are as many workers as there may be threads
        try:
            problem = self.export(*arguments, **options)
        except Exception as error:  # nnU-Net's own failure comes again, and goes where it always went
            export_prediction_from_logits(*arguments, **options)
            problem = f"nnU-Net's export cannot be watched: {type(error).__name__}: {error}"
        with contextlib.suppress(Exception):
            self.tell(Path(arguments[5]).name, problem)

    def export(self, logits: Any, properties: dict, configuration: Any, plans: Any, *others: Any, **named: Any) -> str:
        """Export as nnU-Net does, each file under its name when it is whole, then measure; what is wrong with that.

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
            for made in sorted(work.iterdir(), key=lambda file: file.suffix == ".npz"):  # where these lie, all do
                if self.replaces or not (target.parent / made.name).exists():
                    os.replace(made, target.parent / made.name)
        try:
            self._measure(target.name, np.asarray(shown[0]), properties, plans.transpose_backward)
        except Exception as error:
            return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return ""

    def _measure(self, case: str, logits: np.ndarray, properties: Mapping[str, Any], axes: Sequence[int]) -> None:
        folder, files = self.folder, self.folder.files(case)
        made = folder.load(files, probabilities=False)
        exported = ExportedLogits(made.segmentation, logits, properties, axes, folder.label_manager)
        made = replace(made, probabilities=exported)
        result = measure(files, made, self.settings)
        make_sample(made, files, folder, self.settings, save=True)
        structures = {
            key: replace(structure, members_dice=self.members_dice.get(key))
            for key, structure in result.quality.structures.items()
        }
        result = replace(result, quality=replace(result.quality, structures=structures))
        save_case(folder.folder / FILE_NAME, replace(result, signature=sign(folder.labels, self.settings, files)))

    def tell(self, case: str, problem: str) -> None:
        """Leave a line for whoever evaluates the folder, or take an earlier one away; UserError if that cannot be."""
        Ledger(ledger_folder(self.folder.folder / FILE_NAME)).remember_problem(case, problem)
