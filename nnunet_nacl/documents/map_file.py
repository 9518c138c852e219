"""calibration_map.json: a map, what it was fitted on and what it changes. The format is described in docs/reference."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from typing_extensions import TypedDict

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.learned_quality import LearnedQuality
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_writable, checksum
from nnunet_nacl.json_files import decode, fits, read_dict

__all__ = [
    "APPLIED_FILE",
    "MAP_FILE",
    "SCHEMA_VERSION",
    "MapContent",
    "MapPart",
    "MapQuality",
    "MapRecord",
    "check_output_map",
    "fitted_cases",
    "map_of",
    "map_path_of",
    "map_to_json",
    "read_map",
    "read_record",
    "sha256",
    "slopes_and_offsets",
    "structures_of",
]

MAP_FILE = "calibration_map.json"
APPLIED_FILE = "calibration_applied.json"
"""In a folder that was calibrated: the map, and the folder that it was applied to."""

SCHEMA_VERSION = 1


class MapRow(TypedDict):
    """A structure in the file."""

    key: str
    name: str
    slope: float
    offset: float


class MapContent(TypedDict):
    """The part of the file that a reader needs."""

    structures: list[MapRow]
    regions: bool


class _Applied(TypedDict):
    map: str
    map_sha256: str


def structures_of(labels: Any) -> dict[str, str]:
    """Name of each structure that has a slope and an offset, by nnU-Net's key, in their order.

    Args:
        labels: The :class:`~nnunet_nacl.cases.labels.Labels` of the predictions.
    """
    return {labels.key(channel): labels.names[channel] for channel in labels.foreground}


@dataclass(frozen=True, eq=False)
class MapQuality:
    """What was learned about Dice and volumes.

    Attributes:
        unit: Of the volumes.
        learned: By delivered segmentation; empty if nothing was learned.
        why_not: Why nothing was learned.
    """

    unit: str = ""
    learned: dict[str, LearnedQuality] = field(default_factory=dict)
    why_not: str = ""


@dataclass(frozen=True)
class MapPart:
    """A part of the cross-fit."""

    cases: list[str]


@dataclass(frozen=True, eq=False)
class MapRecord:
    """What a file holds beside its map; a map that was made by hand has none of it.

    Attributes:
        quality: What was learned about Dice and volumes.
        cross_fit: By name, the parts of the cases that it was fitted to.
        groups: Patient of each case; a case that is not there is a patient of its own.
        checkpoint_sha256: By fold, of the checkpoint that holds the map.
    """

    quality: MapQuality | None = None
    cross_fit: dict[str, MapPart] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    checkpoint_sha256: dict[str, str] = field(default_factory=dict)

    @property
    def part_of(self) -> dict[str, str]:
        """Part of each case that the map was fitted to."""
        return {case: name for name, part in self.cross_fit.items() for case in part.cases}

    @property
    def learned(self) -> dict[str, LearnedQuality]:
        """By delivered segmentation, what was learned about Dice and volumes."""
        return self.quality.learned if self.quality else {}


def read_record(path: Path) -> MapRecord:
    """What calibration_map.json holds beside the map; UserError if it is missing or damaged."""
    return decode(MapRecord, read_dict(path), path, fix="calibrate again")


def map_to_json(calibration: AffineMap, structures: Mapping[str, str]) -> dict[str, Any]:
    """The part of the file that a reader needs.

    Args:
        calibration: The map.
        structures: Name of each structure by nnU-Net's key, in order.
    """
    rows = zip(structures.items(), calibration.slopes, calibration.offsets)
    return {
        "schema_version": SCHEMA_VERSION,
        "regions": calibration.regions,
        "structures": [{"key": key, "name": name, "slope": float(a), "offset": float(b)} for (key, name), a, b in rows],
    }


def read_map(path: str | os.PathLike, structures: Mapping[str, str], regions: bool) -> AffineMap:
    """Read a map back, for predictions of certain structures.

    Args:
        path: The file.
        structures: Name of each structure of the predictions by nnU-Net's key, in order.
        regions: Whether they are sigmoid regions.

    Raises:
        UserError: The file is missing, is no such file, is of a newer schema, or of other structures.
    """
    path = Path(path)
    data = read_dict(path)
    if data.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {data.get('schema_version')!r}, this version of nnunet_nacl reads "
            f"{SCHEMA_VERSION}; update it or calibrate again."
        )
    content = decode(MapContent, data, f"{path}: not a map of `nnunet_nacl calibrate`", fix=f"give its {MAP_FILE}")
    rows = content["structures"]
    there, here = _listed({row["key"]: row["name"] for row in rows}, data["regions"]), _listed(structures, regions)
    if there != here:
        raise UserError(f"{path} is for the {there}, the predictions have the {here}; give the map of this model.")
    try:
        return AffineMap(np.array([row["slope"] for row in rows]), np.array([row["offset"] for row in rows]), regions)
    except ValueError as error:
        raise UserError(f"{path}: {error} Calibrate again.") from None


def check_output_map(path: Path) -> None:
    """Fail before the work rather than after it: UserError unless a map may be written there."""
    if path.suffix != ".json":
        raise UserError(f"{path}: the map's file name must end with .json.")
    check_writable(path)
    if path.is_file() and not fits(MapContent, read_dict(path)):
        raise UserError(f"{path} is no calibration map and would be lost; choose another -o.")


def slopes_and_offsets(content: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Those of each structure, in order, of a map's file or of what a checkpoint says of its map."""
    return [(row["slope"], row["offset"]) for row in content["structures"]]


def sha256(source: Path | IO[bytes]) -> str:
    """SHA-256 of a file or stream: by it cards and outputs name maps and checkpoints. OSError if it cannot be read."""
    return checksum(source, hashlib.sha256())


def map_of(folder: Path) -> dict[str, str]:
    """``map_sha256`` of the map that a folder of predictions was calibrated by; empty where its files do not tell."""
    applied = folder / APPLIED_FILE
    named = read_dict(applied).get("map_sha256") if applied.is_file() else None
    return {"map_sha256": named} if isinstance(named, str) else {}


def map_path_of(folder: Path) -> Path | None:
    """The map that `nnunet_nacl review -map` calibrated a folder by, if it is still what and where it was."""
    applied = folder / APPLIED_FILE
    named = read_dict(applied) if applied.is_file() else {}
    if not fits(_Applied, named):
        return None
    path = Path(named["map"])
    return path if path.is_file() and sha256(path) == named["map_sha256"] else None


def fitted_cases(folder: Path) -> set[str]:
    """Names of the cases that the map of a calibrated folder was fitted to; empty where its files do not tell."""
    path = map_path_of(folder)
    return set() if path is None else set(read_record(path).part_of)


def _listed(structures: Mapping[str, str], regions: bool) -> str:
    return f"{'regions' if regions else 'classes'} " + ", ".join(f"{key} {name}" for key, name in structures.items())
