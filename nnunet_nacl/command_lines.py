"""Commands that messages and pages give to copy: the one place below `cli/` that knows options."""

from __future__ import annotations

import shlex
from pathlib import Path


def calibrate_command(model: Path) -> str:
    """The command that calibrates a model, by its folder, on its validation cases."""
    path = model.resolve()
    trainer, plans, configuration, *_ = [*path.name.split("__"), "", ""]
    words = ["nnunet_nacl", "calibrate", *_model_options(path.parent.name, trainer, configuration)]
    if plans not in ("", "nnUNetPlans"):
        words += ["-p", plans]
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
