"""Calibration sums of a validation without npz files: measured where nnU-Net has the probabilities in memory.

nnU-Net's validation gives each case's logits to `export_prediction_from_logits` in a background process. For the time
of the validation a stand-in takes that name in the trainer's module. It lets nnU-Net's own function do all its work,
and keeps the probabilities that nnU-Net's conversion makes meanwhile. Their sums (about 20 kB) go where an evaluation
looks for finished cases. Where nnU-Net is not as expected, or anything fails, it takes its own course.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.cache import save_case, signature
from nnunet_nacl.evaluation.cases import PredictionFolder
from nnunet_nacl.evaluation.measure import evaluate_case
from nnunet_nacl.evaluation.results import Settings

__all__ = ["VARIABLE", "handing_over", "is_wanted"]

VARIABLE = "nnUNet_nacl_sums"

_EXPORT = "export_prediction_from_logits"
_CONVERT = "convert_predicted_logits_to_segmentation_with_correct_shape"


def is_wanted() -> bool:
    """Whether the user set the environment variable ``nnUNet_nacl_sums``."""
    return os.environ.get(VARIABLE, "").lower() in ("1", "t", "true")


@contextmanager
def handing_over(
    validation: Callable, folder: str | os.PathLike, references: str | os.PathLike, output: str | os.PathLike,
    log: Callable[[str], None] = print,
) -> Iterator[None]:
    """While it lasts, every case that nnU-Net's validation exports leaves its sums for ``output``, if so wanted.

    Args:
        validation: nnU-Net's ``perform_actual_validation``: the stand-in goes where this function looks names up.
        folder: The validation folder; it may not exist yet.
        references: The ground truth.
        output: Path of the calibration.json that is written afterwards.
        log: Takes a line that says why there will be no sums.
    """
    names, stand_in = getattr(validation, "__globals__", {}), None
    export = names.get(_EXPORT)
    if is_wanted():
        try:
            if not callable(getattr(sys.modules[export.__module__], _CONVERT)):
                raise UserError(f"{_CONVERT} is no function in this version of nnU-Net")
            os.makedirs(folder, exist_ok=True)
            stand_in = _Export(export, PredictionFolder.open(folder, references), Path(output))
        except Exception as error:  # a validation must not be lost over its evaluation
            log(f"WARNING: no calibration sums without npz: {type(error).__name__}: {error}")
    if stand_in is None:
        yield
        return
    names[_EXPORT] = stand_in
    try:
        yield
    finally:
        names[_EXPORT] = export


@dataclass(frozen=True)
class _Export:
    """Stand-in for nnU-Net's export function; the background processes get it pickled."""

    export: Callable
    folder: PredictionFolder
    output: Path

    def __call__(self, logits: Any, properties: Any, configuration: Any, plans: Any, dataset_json: Any,
                 file_truncated: str, *more: Any, **named: Any) -> Any:
        with _kept_probabilities(sys.modules[self.export.__module__]) as kept:
            result = self.export(logits, properties, configuration, plans, dataset_json, file_truncated, *more, **named)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)  # other cases are exported beside this one
            self._measure(os.path.basename(file_truncated), kept.pop())
        except Exception as error:  # the case is then reported as one without probabilities
            print(f"WARNING: calibration of {file_truncated}: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            torch.set_num_threads(threads)
        return result

    def _measure(self, case: str, probs: np.ndarray) -> None:
        files, settings, labels = self.folder.files(case), Settings(), self.folder.labels
        measured = evaluate_case(self.folder, files, settings, np.asarray(probs))
        measured = replace(measured, signature=signature(files, labels, settings))
        save_case(self.output, measured, {labels.key(c): c for c in labels.foreground}, labels.regions)


@contextmanager
def _kept_probabilities(module: Any) -> Iterator[list[np.ndarray]]:
    kept: list[np.ndarray] = []
    convert = getattr(module, _CONVERT)

    def keep(*args: Any, **named: Any) -> Any:
        try:
            segmentation, probs = convert(*args, **(named | {"return_probabilities": True}))
        except Exception:  # too little memory, or another signature: as if nobody had asked
            return convert(*args, **named)
        kept[:] = [probs]
        return (segmentation, probs) if named.get("return_probabilities") else segmentation

    setattr(module, _CONVERT, keep)
    try:
        yield kept
    finally:
        setattr(module, _CONVERT, convert)
