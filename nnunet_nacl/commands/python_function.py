"""What the functions of all commands share when they are called from Python."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from nnunet_nacl.errors import errors_name_arguments
from nnunet_nacl.nnunet.trust import trusting

_Function = TypeVar("_Function", bound=Callable[..., Any])

_ARGUMENTS = {
    "bad": "bad",
    "structures": "structures",
    "find": "find",
    "miss": "miss",
    "also": "also",
    "unlike": "unlike",
    "recall": "recall",
    "maps": "maps",
    "findings": "findings",
    "pages": "pages",
    "codes": "codes",
    "orientation": "orientation",
    "groups": "groups",
    "form": "form",
    "f": "folds",
    "m": "model",
    "chk": "checkpoint",
    "map": "calibration_map",
    "gt": "labels",
    "o": "output",
    "djfile": "dataset_json",
    "pfile": "plans_json",
    "np": "num_processes",
    "npp": "num_readers",
    "nps": "num_exporters",
    "num_parts": "num_parts",
    "part_id": "part",
    "device": "device",
    "step_size": "step_size",
    "prev_stage_predictions": "previous_stage",
    "unranked": "unranked",
    "-disable_tta": "mirroring=False",
    "-any_size": "any_size=True",
    "-overwrite": "overwrite=True",
    "-any_age": "any_age=True",
    "-allow-training-cases": "training_cases=True",
    "-allow-missing": "allow_missing=True",
    "-trust_checkpoint": "trust_checkpoint=True",
}
"""By option of the commands, which messages name, the argument that stands for it."""


def python_function(**arguments: str) -> Callable[[_Function], _Function]:
    """Decorator of a command's function: its errors name arguments, and ``trust_checkpoint`` holds
    while it runs.

    ``arguments`` are those of this function that are named otherwise, by option.
    """
    by_option = _ARGUMENTS | arguments

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            is_trusted = bool(named.get("trust_checkpoint"))
            with errors_name_arguments(by_option), trusting(is_trusted):
                return function(*given, **named)

        return cast(_Function, call)

    return decorate
