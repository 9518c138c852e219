"""What the command line calls the arguments of the functions, for messages that name them."""

from __future__ import annotations

_OPTIONS = {
    "methods": "-i or -tr",
    "methods:folders": "-i",
    "methods:models": "-tr",
    "predictions": "-i",
    "scans": "-i",
    "images": "-i",
    "labels": "-gt",
    "model": "-m",
    "data": "--data",
    "datasets": "-d",
    "configuration": "-c",
    "plans": "-p",
    "folds": "-f",
    "checkpoint": "-chk",
    "calibration_map": "-map",
    "dataset_json": "-djfile",
    "plans_json": "-pfile",
    "output": "-o",
    "n_bins": "-bins",
    "dilation_mm": "-dilated",
    "boundary_mm": "-boundary",
    "num_processes": "-np",
    "num_readers": "-npp",
    "num_exporters": "-nps",
    "previous_stage": "-prev_stage_predictions",
    "part": "-part_id",
    "allow_missing": "--allow-missing",
    "thresholds": "-threshold",
    "training_cases": "--allow-training-cases",
    "allow_training_cases": "--allow-training-cases",
    "mirroring": "--disable_tta",
    "everything_on_device": "--not_on_device",
    "progress": "--disable_progress_bar",
}
"""By argument, with its kind where it takes two, the option that has another name."""
_SWITCH_VALUES = ("True", "False")


def option_of(argument: str, kind: str = "", value: str | None = None) -> str:
    """The option for an argument that a message names, with its value: ``-find 0.9``,
    ``--overwrite``.

    Args:
        argument: Name of the function's argument.
        kind: Which of two things it is, where it takes two.
        value: As the message gives it; None for none.
    """
    name = f"{argument}:{kind}" if kind else argument
    if value in _SWITCH_VALUES:
        return _OPTIONS.get(name, f"--{argument}")
    option = _OPTIONS.get(name, f"-{argument}")
    return option if value is None else f"{option} {value}"
