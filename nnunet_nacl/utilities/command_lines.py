"""Commands that messages and pages give to copy, ours and those of image viewers: the one place
below `cli/` that knows options."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path


def calibrate_command(
    model: Path,
    checkpoint: str | None = None,
    *,
    folds: Sequence[str] | None = None,
    groups: str | None = None,
) -> str:
    """The command that calibrates a model, by its folder, on its validation cases.

    ``checkpoint`` is its file where it is not nnU-Net's final one; ``folds`` and ``groups`` are
    what the user gave.
    """
    return _model_command("calibrate", model, checkpoint, folds, groups)


def tune_command(model: Path) -> str:
    """The command that learns a decision for a model, by its folder."""
    return _model_command("tune", model)


def _model_command(
    command: str,
    model: Path,
    checkpoint: str | None = None,
    folds: Sequence[str] | None = None,
    groups: str | None = None,
) -> str:
    path = model.resolve()
    trainer, plans, configuration, *_ = [*path.name.split("__"), "", ""]
    words = ["nnunet_nacl", command, *_model_options(path.parent.name, trainer, configuration)]
    if plans not in ("", "nnUNetPlans"):
        words += ["-p", plans]
    if checkpoint is not None:
        words += ["-chk", checkpoint]
    if folds is not None:
        words += ["-f", *folds]
    if groups is not None:
        words += ["-groups", groups]
    return shlex.join(words)


def calibrate_images_command(
    dataset: str, trainer: str, configuration: str, calibration_map: str
) -> str:
    """The command that calibrates a model on images of one's own, ``IMAGES`` and ``LABELS``, into a
    file."""
    model = _model_options(dataset, trainer, configuration)
    images = ["-i", "IMAGES", "-gt", "LABELS"]
    return shlex.join(["nnunet_nacl", "calibrate", *images, *model, "-o", calibration_map])


def predict_with_map(calibration_map: str) -> str:
    """What is added to a command that predicts, to use a map of its own."""
    return f"nnunet_nacl predict ... -map {shlex.quote(calibration_map)}"


def _model_options(dataset: str, trainer: str, configuration: str) -> list[str]:
    return ["-d", dataset, "-tr", trainer, "-c", configuration]


def editor_lines(image: str, segmentation: Path) -> dict[str, str]:
    """By editor the line that opens a scan, quoted for a POSIX shell and for Python.

    Args:
        image: File of the scan; empty where it is not known: the segmentation is opened alone.
        segmentation: Its file. ITK-SNAP does not open it beside an image of another format: of a
            DICOM series it has another grid.
    """
    segmentation_path = os.path.abspath(segmentation)
    lines = {}
    if not image:
        lines["ITK-SNAP"] = shlex.join(["itksnap", "-g", segmentation_path])
    elif Path(image).suffix == segmentation.suffix:
        lines["ITK-SNAP"] = shlex.join(["itksnap", "-g", image, "-s", segmentation_path])
    calls = [_slicer_call("loadSegmentation", segmentation_path)]
    if image:
        calls.insert(0, _slicer_call("loadVolume", image))
    lines["3D Slicer"] = shlex.join(["Slicer", "--python-code", "; ".join(calls)])
    return lines


def _slicer_call(function: str, path: str) -> str:
    """A call of 3D Slicer's Python: a JSON string is Python's, too, and stays legible in a
    shell."""
    return f"slicer.util.{function}({json.dumps(path, ensure_ascii=False)})"
