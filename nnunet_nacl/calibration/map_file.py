"""Reads, finds and names calibration_map.json files, and checks that a map fits the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.cases.case import Labels
from nnunet_nacl.estimators.crossfit import PRIOR_FORM
from nnunet_nacl.settings import FINAL
from nnunet_nacl.utilities.errors import UserError, some
from nnunet_nacl.utilities.files import check_writable, checksum
from nnunet_nacl.utilities.json_files import decode, read_dict

MAP_FILE = "calibration_map.json"
APPLIED_FILE = "calibration_applied.json"
"""In a folder that was calibrated: by which map, and the folder that it was applied to."""

_MOST_SHOWN = 8  # structures in an error


def map_file_of(checkpoint: str) -> str:
    """Name of the map of a checkpoint in its model's folder: calibration_map_tuned.json of
    checkpoint_tuned.pth, calibration_map.json of the final one."""
    if checkpoint == FINAL:
        return MAP_FILE
    name = checkpoint.removeprefix("checkpoint_").removesuffix(".pth")
    return MAP_FILE.replace(".json", f"_{name}.json")


class _Applied(TypedDict):
    map: str
    map_sha256: str


def check_networks(
    path: Path, calibration_map: CalibrationMap, networks: Mapping[str, str]
) -> None:
    """UserError if the map in a file was fitted to other networks than these, by fold the
    checkpoints' SHA-256."""
    known = calibration_map.origin.checkpoint_sha256
    others = [fold for fold, digest in networks.items() if known.get(fold, digest) != digest]
    if others:
        raise UserError(
            f"{path} was fitted to other networks than those of fold {', '.join(others)} (trained"
            " again since?); calibrate again."
        )


def check_structures(path: Path, calibration_map: CalibrationMap, labels: Labels) -> None:
    """UserError if the map in a file is of other structures than predictions, or of these in
    another order."""
    regions = calibration_map.regions
    of_map = list(calibration_map.names.items())
    of_predictions = list(labels.structures.items())
    if regions != labels.regions or of_map != of_predictions:
        first = ""
        if max(len(of_map), len(of_predictions)) > _MOST_SHOWN:
            first = _describe_first_difference(of_map, of_predictions)
        raise UserError(
            f"{path} is for the {_structures_text(regions, of_map)}, the predictions have"
            f" the {_structures_text(labels.regions, of_predictions)}{first}; give the map of this"
            " model."
        )


def _describe_first_difference(
    of_map: Sequence[tuple[str, str]], of_predictions: Sequence[tuple[str, str]]
) -> str:
    """The first structure, as key and name, in which a map and predictions differ; empty if there
    is none."""
    none = ("none",)
    for structure, other in zip_longest(of_map, of_predictions, fillvalue=none):
        if structure != other:
            return f" (the first that differs is {' '.join(structure)}, here {' '.join(other)})"
    return ""


def _structures_text(regions: bool, structures: Sequence[tuple[str, str]]) -> str:
    kind = "regions" if regions else "classes"
    key_and_name = [" ".join(structure) for structure in structures]
    return f"{kind} {some(key_and_name, _MOST_SHOWN)}"


def load_prior_map(
    path: Path, labels: Labels, networks: Mapping[str, str], inference: Mapping[str, Any]
) -> CalibrationMap | None:
    """The map towards which one of own cases is shrunk: that of a model's validation cases, by the
    map in its folder. Its ``quality`` is None where they taught no more than a map.

    Where the map in the folder is of own cases by now, it still holds the map that it was shrunk
    towards, but nothing else that the validation cases taught. None where there is none, or it is
    one of other networks (SHA-256 by fold), settings or structures. UserError where the file is
    damaged, or of another version, which is not taken for none.
    """
    if not path.is_file():
        return None
    calibration_map = CalibrationMap.load(path)
    try:
        check_networks(path, calibration_map, networks)
        check_structures(path, calibration_map, labels)
    except UserError:  # it is of another model, or of this one before it was trained again
        return None
    learned = calibration_map.learned
    if learned is None or calibration_map.origin.inference not in ({}, inference):
        return None
    has_prior_map = PRIOR_FORM in calibration_map.maps
    if learned.as_deployed and not has_prior_map:  # all of it is of own cases
        return None
    return replace(
        calibration_map,
        form=PRIOR_FORM if has_prior_map else calibration_map.form,
        quality=None if learned.as_deployed else calibration_map.quality,
    )


def check_output_map(path: Path) -> None:
    """Fail before the work rather than after it: UserError unless a map may be written there."""
    if path.suffix != ".json":
        raise UserError(f"{path}: the map's file name must end with .json.")
    check_writable(path)
    if path.is_file() and not {"structures", "regions", "form", "maps"} <= read_dict(path).keys():
        raise UserError(
            f"{path} is no calibration map and would be lost; choose another [[output]]."
        )


def read_applied_map_digest(folder: Path) -> str | None:
    """SHA-256 of the map that a folder of predictions was calibrated by; None where its files do
    not tell."""
    applied = folder / APPLIED_FILE
    digest = read_dict(applied).get("map_sha256") if applied.is_file() else None
    return digest if isinstance(digest, str) else None


def map_path_of(folder: Path) -> Path | None:
    """The map that `nnunet_nacl review -map` calibrated a folder by, if it is still what and where
    it was."""
    try:
        applied = decode(_Applied, read_dict(folder / APPLIED_FILE), folder)
    except UserError:  # the folder was not calibrated, or by a version that wrote it otherwise
        return None
    path = Path(applied["map"])
    if path.is_file() and checksum(path) == applied["map_sha256"]:
        return path
    return None
