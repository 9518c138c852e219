"""nnU-Net's export of a predicted case, which measures the case on the way: no probabilities are saved for it.

nnU-Net calls its export in worker processes, with a network's logits in half precision. :class:`MeasuredExport` stands
in for it there: nnU-Net's own function converts and writes as always, and while the logits are at hand everything that
an evaluation says of the case, and the sample that calibration is fitted to, is computed block by block and left in
small files. Whatever goes wrong with that is a line in a file for the training's log, never a lost prediction.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.documents.document import FILE_NAME
from nnunet_nacl.documents.results import EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import name_finished, temporary_folder
from nnunet_nacl.io.image_files import why_broken
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.runs.evaluate import ledger_folder, save_case
from nnunet_nacl.runs.ledger import PROBLEM, Ledger
from nnunet_nacl.runs.logits_export import ExportedLogits, watch_plans
from nnunet_nacl.runs.measure import measure, sign
from nnunet_nacl.runs.quality_block import QUALITY
from nnunet_nacl.runs.sample_files import make_sample

_EXPORT = "export_prediction_from_logits"


@dataclass(frozen=True)
class MeasuredExport:
    """Stands in for nnU-Net's ``export_prediction_from_logits``; can be pickled.

    Attributes:
        folder: Where the predictions go, and their ground truth.
        settings: What is measured.
        members_dice: Of the case that comes next, by nnU-Net's key, the mean Dice between the segmentations of two
            folds; empty where one network predicts.
        replaces: Put new files in the place of others; else only those get their names that are not there.
    """

    folder: PredictionFolder
    settings: EvaluationSettings = EvaluationSettings()
    members_dice: Mapping[str, float] = field(default_factory=dict)
    replaces: bool = True

    def __call__(self, *arguments: Any, **options: Any) -> None:
        """Export and measure; what goes wrong with the measurement is left to whoever evaluates the folder."""
        problem, target = self.export(*arguments, **options), Path(arguments[5])
        with contextlib.suppress(Exception):
            self.tell(target.name, problem)

    def export(
        self,
        predicted_array_or_file: Any,
        properties_dict: dict[str, Any],
        configuration_manager: Any,
        plans_manager: Any,
        dataset_json_dict_or_file: Any,
        output_file_truncated: str,
        save_probabilities: bool = False,
        num_threads_torch: int = 0,
    ) -> str:
        """Export as nnU-Net does, each file under its name when it is whole, then measure; what is wrong with that.

        The arguments are those of nnU-Net's function; 0 threads are its default.
        """
        from nnunetv2.configuration import default_num_processes
        from nnunetv2.inference.export_prediction import export_prediction_from_logits

        target = Path(output_file_truncated)

        def export(plans: Any) -> None:
            with temporary_folder(target.parent) as work:
                given = predicted_array_or_file, properties_dict, configuration_manager, plans
                output = str(work / target.name), save_probabilities, num_threads_torch or default_num_processes
                export_prediction_from_logits(*given, dataset_json_dict_or_file, *output)
                if problem := why_broken(work / f"{target.name}{self.folder.file_ending}"):
                    raise OSError(errno.ENOSPC, problem)
                for made in () if self.replaces else [*work.iterdir()]:
                    if (target.parent / made.name).exists():
                        made.unlink()
                name_finished(work, target.parent)

        shown: list[Any] = []
        try:
            export(watch_plans(plans_manager, shown.append))
        except Exception as error:  # nnU-Net's own failure comes again, and goes where it always went
            export(plans_manager)
            return f"nnU-Net's export cannot be watched: {type(error).__name__}: {error}"
        try:
            self._measure(target.name, shown[0], properties_dict, plans_manager)
        except UserError as error:
            return str(error)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _measure(self, case: str, logits: Any, properties: dict[str, Any], plans_manager: Any) -> None:
        folder, labels = self.folder, self.folder.labels
        with _one_thread():
            files = folder.files(case)
            made = folder.load(files, probabilities=False)
            axes, manager = plans_manager.transpose_backward, folder.label_manager
            exported = ExportedLogits(made.segmentation, np.asarray(logits), properties, axes, manager)
            if exported.shape != made.segmentation.shape:
                raise ValueError(
                    f"logits of an image of shape {exported.shape}, the ground truth has {made.segmentation.shape}"
                )
            made = replace(made, probabilities=exported)
            result = measure(files, made, self.settings)
            make_sample(made, files, folder, self.settings, save=True)
            for key, value in self.members_dice.items():
                result.blocks[QUALITY]["structures"][key]["members_dice"] = value
            result = replace(result, signature=sign(labels, self.settings, files))
        save_case(folder.folder / FILE_NAME, result)

    def tell(self, case: str, problem: str) -> None:
        """Leave a line for whoever evaluates the folder; empty: all is well, and an earlier line is removed.

        Raises:
            UserError: Not even a line can be written.
        """
        folder = ledger_folder(self.folder.folder / FILE_NAME)
        Ledger(folder).remember_problem(case, problem)
        if problem and not (folder / f"{case}{PROBLEM}").is_file():
            raise UserError(f"{folder.parent}: nothing can be written there; free some space. {case}: {problem}")


def changed_in_nnunet() -> str:
    """What the installed nnU-Net has changed of what :class:`MeasuredExport` stands in for; empty if nothing."""
    from nnunetv2.inference import export_prediction
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    function = getattr(export_prediction, _EXPORT, None)
    if function is None:
        return f"{_EXPORT} is gone"
    if list(inspect.signature(function).parameters) != list(inspect.signature(MeasuredExport.export).parameters)[1:]:
        return f"{_EXPORT} takes other arguments"
    if getattr(module, _EXPORT, None) is not function:
        return f"the trainer does not import {_EXPORT}"
    if _EXPORT not in module.nnUNetTrainer.perform_actual_validation.__code__.co_names:
        return f"the validation does not call {_EXPORT}"
    return ""


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """There are as many workers as there may be threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
