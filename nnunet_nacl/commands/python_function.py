"""What the functions of all commands share when they are called from Python."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from nnunet_nacl.errors import errors_name_arguments
from nnunet_nacl.nnunet.trust import trusting

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_ARGUMENTS = {
    "i": "predictions",
    "gt": "labels",
    "m": "model",
    "f": "folds",
    "chk": "checkpoint",
    "map": "calibration_map",
    "djfile": "dataset_json",
    "pfile": "plans_json",
    "o": "output",
    "bad": "bad",
    "structures": "structures",
    "find": "find",
    "miss": "miss",
    "unlike": "unlike",
    "also": "also",
    "pages": "pages",
    "maps": "maps",
    "recall": "recall",
    "findings": "findings",
    "-slicer": "slicer=True",
    "-save_probabilities": "save_probabilities=True",
    "codes": "codes",
    "orientation": "orientation",
    "back": "output",
    "marks": "marks",
    "corrected": "corrected",
    "groups": "groups",
    "form": "form",
    "bins": "n_bins",
    "dilated": "dilation_mm",
    "boundary": "boundary_mm",
    "-chill": "chill=True",
    "-csv": "csv=True",
    "-predict": "predict=True",
    "unranked": "unranked",
    "-allow-missing": "allow_missing=True",
    "-allow-training-cases": "training_cases=True",
    "-any_age": "any_age=True",
    "-any_size": "any_size=True",
    "-overwrite": "overwrite=True",
    "device": "device",
    "step_size": "step_size",
    "-disable_tta": "mirroring=False",
    "-not_on_device": "everything_on_device=False",
    "prev_stage_predictions": "previous_stage",
    "num_parts": "num_parts",
    "part_id": "part",
    "np": "num_processes",
    "npp": "num_readers",
    "nps": "num_exporters",
    "-verbose": "verbose=True",
    "-disable_progress_bar": "progress=False",
    "-trust_checkpoint": "trust_checkpoint=True",
}
"""By option of the commands, without its first dash, the argument that stands for it."""

ARGUMENTS_OF_FUNCTIONS: dict[str, Mapping[str, str]] = {}
"""By name of a function of a command, the same as it is for this function."""


def python_function(
    **arguments: str,
) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Decorator of a command's function: its errors name arguments, and ``trust_checkpoint`` holds
    while it runs.

    Args:
        **arguments: By option, arguments that have another name in this function.
    """
    by_option = _ARGUMENTS | arguments

    def decorate(
        function: Callable[_Parameters, _Result],
    ) -> Callable[_Parameters, _Result]:
        ARGUMENTS_OF_FUNCTIONS[function.__name__] = by_option

        @functools.wraps(function)
        def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            is_trusted = bool(kwargs.get("trust_checkpoint"))
            with errors_name_arguments(by_option), trusting(is_trusted):
                return function(*args, **kwargs)

        return call

    return decorate
