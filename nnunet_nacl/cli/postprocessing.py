"""nnU-Net's postprocessing of decided segmentations: chosen again by nnU-Net itself, or applied as it was chosen."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import regular_only
from nnunet_nacl.io.checkpoint_files import NUMBERS_OF_NUMPY
from nnunet_nacl.json_files import first_line

_STEP = "remove_all_but_largest_component_from_segmentation"

Postprocessing = tuple[list[Callable], list[dict[str, Any]]]


class _NnunetUnpickler(pickle.Unpickler):
    """Reads only what nnU-Net writes: a pickle may otherwise run anything."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("nnunetv2.postprocessing.remove_connected_components", _STEP):
            return super().find_class(module, name)
        if f"{module}.{name}" not in NUMBERS_OF_NUMPY:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return NUMBERS_OF_NUMPY[f"{module}.{name}"]


def read_postprocessing(path: str | Path) -> Postprocessing:
    """Functions and arguments of a postprocessing.pkl; UserError if that is none."""
    try:
        with open(path, "rb", opener=regular_only) as file:
            functions, arguments = _NnunetUnpickler(file).load()
        if len(functions) != len(arguments) or any(function.__name__ != _STEP for function in functions):
            raise ValueError("it does not hold functions and their arguments")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a postprocessing.pkl of nnU-Net.") from None
    except Exception as error:  # pickle raises anything on broken bytes
        raise UserError(f"{path} is no postprocessing.pkl of nnU-Net: {first_line(error)}.") from None
    return functions, arguments


def choose_postprocessing(decided: Path, references: str, num_processes: int) -> None:
    """Let nnU-Net find out which removal of small components raises Dice.

    Writes postprocessing.pkl, postprocessing.json and summary.json into the folder, and the result into
    ``postprocessed``. nnU-Net says on stdout what it found.
    """
    from nnunetv2.postprocessing.remove_connected_components import determine_postprocessing

    print("\npostprocessing, as nnU-Net chooses it for the decided segmentations:", flush=True)
    _remove_earlier(decided)
    functions, _ = determine_postprocessing(str(decided), references, None, None, num_processes)
    shutil.copyfile(decided / "dataset.json", decided / "postprocessed" / "dataset.json")
    shutil.copyfile(decided / "plans.json", decided / "postprocessed" / "plans.json")
    print(f"{len(functions)} steps chosen: {decided / 'postprocessing.pkl'}, applied: {decided / 'postprocessed'}")


def apply_postprocessing(decided: Path, postprocessing: Postprocessing, num_processes: int) -> None:
    """Apply a postprocessing that was chosen before; the result goes into ``postprocessed``."""
    from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing_to_folder

    _remove_earlier(decided)
    functions, arguments = postprocessing
    apply_postprocessing_to_folder(
        str(decided), str(decided / "postprocessed"), functions, arguments, num_processes=num_processes
    )
    print(f"postprocessed, {len(functions)} steps: {decided / 'postprocessed'}")


def _remove_earlier(decided: Path) -> None:
    """nnU-Net would take an earlier run's summary.json for that of the present segmentations."""
    shutil.rmtree(decided / "postprocessed", ignore_errors=True)
    for name in ("summary.json", "postprocessing.pkl", "postprocessing.json"):
        (decided / name).unlink(missing_ok=True)
