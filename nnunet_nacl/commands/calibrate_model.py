"""The former function of `calibrate`, which goes with the next version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from nnunet_nacl.calibrator.calibration_map import CalibrationMap
from nnunet_nacl.commands.calibrate import calibrate
from nnunet_nacl.nnunet.places import FINAL


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """What :func:`calibrate_model` calibrates on, and how: arguments of
    :func:`~nnunet_nacl.calibrate` by other names.

    Attributes:
        images: Folder of images of one's own, or, without a model, of predictions with their
            probabilities; None: the model's validation cases.
        labels: Ground truth of the images.
        output: The map's file; None: calibration_map.json in the model's, or the predictions',
            folder.
        folds: Of the model; None: all that are trained.
        checkpoint: File in each fold.
        form: One of :data:`~nnunet_nacl.calibration.fitting.FORMS`, or ``auto``.
        groups: Patient of each case: a .json file, or a regular expression; None: each case its
            own.
        device: Of networks, where cases must be predicted: ``cuda``, ``mps``, ``cpu``, or ``auto``,
            the first of these.
        step_size: Of the sliding window, as a share of the patch.
        mirroring: Predict mirrored copies too.
        num_processes: Cases at the same time.
        any_age: Take predictions that are older than the checkpoint.
        training_cases: With ``images``, take cases that the folds were trained on; the map notes
            it.
        dataset_json: Of predictions; None: in their folder or above.
        plans: plans.json, likewise.
    """

    images: str | PathLike | None = None
    labels: str | PathLike | None = None
    output: str | PathLike | None = None
    folds: Sequence[str] | None = None
    checkpoint: str = FINAL
    form: str = "auto"
    groups: str | None = None
    device: str = "auto"
    step_size: float = 0.5
    mirroring: bool = True
    num_processes: int = 1
    any_age: bool = False
    training_cases: bool = False
    dataset_json: Path | None = None
    plans: Path | None = None


def calibrate_model(
    model: str | PathLike | None = None, options: CalibrationOptions = CalibrationOptions()
) -> CalibrationMap:
    """Fit a map as :func:`~nnunet_nacl.calibrate` does, and write it.

    Use that function: this one goes with the next version.

    Args:
        model: nnU-Net's model folder; None with ``images`` for a folder of predictions with their
            probabilities.
        options: What it is calibrated on, and how.

    Returns:
        The map with what it changes, promises and was learned from.

    Raises:
        UserError: What was given does not fit, cannot be read, or is too little to calibrate.
    """
    arguments = dict(vars(options))
    arguments["plans_json"] = arguments.pop("plans")
    if model is None:
        arguments["predictions"] = arguments.pop("images")
    result = calibrate(model, **arguments)
    result.calibration_map.save(result.output)
    return result.calibration_map
