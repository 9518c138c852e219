"""calibration_map.json: a map, what it was fitted on and what it changes. Format: docs/reference/files.md."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from typing_extensions import TypedDict

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.effect import Relabelled
from nnunet_nacl.calibration.learned_quality import LearnedQuality
from nnunet_nacl.calibration.presence import LearnedPresence
from nnunet_nacl.documents.stored_map import StoredMap, loaded_map, stored_map
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_writable, checksum
from nnunet_nacl.json_files import decode, encode, first_line, fits, read_dict

MAP_FILE = "calibration_map.json"
DICE_MEAN = "Dice mean"
"""Key of ``decision``: the mean over the structures of a case."""
APPLIED_FILE = "calibration_applied.json"
"""In a folder that was calibrated: the map, and the folder that it was applied to."""

SCHEMA_VERSION = 2
SCOPE = "for patients like these: scanner, protocol, disease and networks as in the calibration set"
_HEADLINE = ("NLL all", "ECE predicted")
"""Of ``effect``, what other documents repeat."""


class _Structure(TypedDict):
    key: str
    name: str


class MapContent(TypedDict):
    """The part of the file that a reader needs: the structures, the form in use, and the maps by form."""

    structures: list[_Structure]
    regions: bool
    form: str
    maps: dict[str, StoredMap]


class _Applied(TypedDict):
    map: str
    map_sha256: str


def structures_of(labels: Any) -> dict[str, str]:
    """Name of each structure that has a slope and an offset, by nnU-Net's key, in their order.

    Args:
        labels: The :class:`~nnunet_nacl.io.labels.Labels` of the predictions.
    """
    return {labels.key(channel): labels.names[channel] for channel in labels.foreground}


@dataclass(frozen=True, eq=False)
class MapQuality:
    """What was learned about Dice and volumes.

    Attributes:
        unit: Of the volumes.
        learned: By delivered segmentation; empty if nothing was learned.
        why_not: Why nothing was learned.
        presence: What was learned about what is there; None in files of earlier versions.
        checks: How far it holds on cases left out, as the model card shows it.
    """

    unit: str = ""
    learned: dict[str, LearnedQuality] = field(default_factory=dict)
    why_not: str = ""
    presence: LearnedPresence | None = None
    checks: Any = None


@dataclass(frozen=True)
class CalibrationSet:
    """What a map was fitted to.

    Attributes:
        n_cases: Cases.
        n_patients: Patients they are of.
        sha256: Of the cases' names and the checkpoints' SHA-256, both sorted, a line each: maps with the same one were
            fitted to cases of the same names by the same networks. It says nothing about what the cases hold.
    """

    n_cases: int
    n_patients: int
    sha256: str

    @classmethod
    def of(
        cls, cases: Collection[str], groups: Mapping[str, str] | None, networks: Mapping[str, str]
    ) -> CalibrationSet:
        """Describe cases, the patient of each, and the SHA-256 of the networks by fold, as far as it is known."""
        text = "\n".join([*sorted(cases), *sorted(networks.values())])
        patients = {groups[case] for case in cases} if groups else cases
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return cls(len(cases), len(patients), digest)


@dataclass(frozen=True, eq=False)
class MapPart:
    """A part of the cross-fit.

    Attributes:
        cases: Its cases.
        map: As :func:`stored_map` gives it, fitted without them; None in files of earlier versions.
        presence: What the cases of the other parts taught; None likewise.
    """

    cases: list[str]
    map: Any = None
    presence: LearnedPresence | None = None


@dataclass(frozen=True, eq=False)
class MapRecord:
    """What a file holds beside its map; a map that was made by hand has none of it.

    Attributes:
        quality: What was learned about Dice and volumes.
        cross_fit: By name, the parts of the cases that it was fitted to.
        groups: Patient of each case; a case that is not there is a patient of its own.
        form: Of the map in use.
        checkpoint_sha256: By fold, of the networks whose predictions it was fitted to; empty where it is not known.
        decision: Dice of nnU-Net's labels (before) and of those decided for Dice (after), by name.
        inference: How the cases were predicted, by name (``mirroring``, ``step_size``); empty where it is not known.
        calibration_set: What it was fitted to; None in files of earlier versions.
        effect: By value what the map changes on cases that its fit has not seen.
        scope: For whom it holds.
        labels: Names of the rows of a map.
        folds: Whose held-out cases it was fitted to.
        n_cases: Their number; None where it is not known.
        relabelled: By affine form, what it would change in the labels if it were written into the checkpoints.
        notes: For the reader.
    """

    quality: MapQuality | None = None
    cross_fit: dict[str, MapPart] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    form: str = ""
    checkpoint_sha256: dict[str, str] = field(default_factory=dict)
    decision: dict[str, Any] = field(default_factory=dict)
    inference: dict[str, Any] = field(default_factory=dict)
    calibration_set: CalibrationSet | None = None
    effect: dict[str, Any] = field(default_factory=dict)
    scope: str = ""
    labels: list[str] = field(default_factory=list)
    folds: list[str] = field(default_factory=list)
    n_cases: int | None = None
    relabelled: dict[str, Relabelled] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def part_of(self) -> dict[str, str]:
        """Part of each case that the map was fitted to."""
        return {case: name for name, part in self.cross_fit.items() for case in part.cases}

    @property
    def advice(self) -> str:
        """What a decision for Dice changed on the held-out cases; empty where it was not measured."""
        row = self.decision.get(DICE_MEAN) or {}
        change = row.get("difference", {})
        if any(change.get(name) is None for name in ("mean", "low", "high")):  # of a single patient: no interval
            return ""
        return (
            f"On the {row.get('n')} held-out cases -decide dice changed the mean Dice by {change['mean']:+.4f} "
            f"(95 % interval {change['low']:+.4f} to {change['high']:+.4f})."
        )

    @property
    def learned(self) -> dict[str, LearnedQuality]:
        """By delivered segmentation, what was learned about Dice and volumes."""
        return self.quality.learned if self.quality else {}


def read_record(path: Path) -> MapRecord:
    """What calibration_map.json holds beside the map; UserError if it is missing or damaged."""
    content = read_dict(path)
    quality = content.get("quality")
    if "lines_without_patient" in str(quality):  # of 0.3, which predicted by lines
        content["quality"] = {"why_not": "an earlier version learned it, calibrate again"}
    return decode(MapRecord, content, path, fix="calibrate again")


def named_map(path: Path) -> dict[str, Any]:
    """How other documents name a map: file, SHA-256, and the little of it that a viewer or registry shows."""
    record = read_record(path)
    effect = {name: record.effect[name] for name in _HEADLINE if name in record.effect}
    known = {"form": record.form, "calibration_set": encode(record.calibration_set), "effect": effect}
    return {"file": os.path.abspath(path), "sha256": sha256(path), **known, "scope": record.scope}


def check_networks(path: Path, record: MapRecord, networks: Mapping[str, str]) -> None:
    """UserError if a map was fitted to other networks than those that it is meant for.

    Args:
        path: The map.
        record: What it holds.
        networks: By fold, SHA-256 of the checkpoints.
    """
    known = record.checkpoint_sha256
    if others := [fold for fold, digest in networks.items() if known.get(fold, digest) != digest]:
        raise UserError(
            f"{path} was fitted to other networks than those of fold {', '.join(others)} (trained again since?); "
            "calibrate again."
        )


def map_to_json(maps: Mapping[str, CalibrationMap], form: str, structures: Mapping[str, str]) -> dict[str, Any]:
    """The part of the file that a reader needs.

    Args:
        maps: By form.
        form: Of the map in use.
        structures: Name of each structure by nnU-Net's key, in order.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "regions": maps[form].regions,
        "structures": [{"key": key, "name": name} for key, name in structures.items()],
        "form": form,
        "maps": {name: stored_map(calibration) for name, calibration in maps.items()},
    }


def read_map(
    path: str | os.PathLike, structures: Mapping[str, str], regions: bool, form: str | None = None
) -> CalibrationMap:
    """Read a map back, for predictions of certain structures.

    Args:
        path: The file.
        structures: Name of each structure of the predictions by nnU-Net's key, in order.
        regions: Whether they are sigmoid regions.
        form: Which of the file's maps; None takes the one in use.

    Raises:
        UserError: The file is missing, is no such file, is of another schema, or of other structures.
    """
    path = Path(path)
    data = read_dict(path)
    if data.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {data.get('schema_version')!r}, this version of nnunet_nacl reads "
            f"{SCHEMA_VERSION}; calibrate again."
        )
    content = decode(MapContent, data, f"{path}: not a map of `nnunet_nacl calibrate`", fix=f"give its {MAP_FILE}")
    there = _listed({row["key"]: row["name"] for row in content["structures"]}, content["regions"])
    if there != (here := _listed(structures, regions)):
        raise UserError(f"{path} is for the {there}, the predictions have the {here}; give the map of this model.")
    if (asked := form or content["form"]) not in content["maps"]:
        raise UserError(f"{path} has no map of the form {asked}, but {', '.join(content['maps'])}; calibrate again.")
    try:
        found = map_in(content, form)
    except (LookupError, OverflowError, TypeError, ValueError) as error:  # of numbers beyond any float, too
        raise UserError(f"{path}: {first_line(error).rstrip('.')}. Calibrate again.") from None
    if found.num_structures != len(structures):
        raise UserError(f"{path}: {found.num_structures} slopes for {len(structures)} structures; calibrate again.")
    return found


def map_in(content: Mapping[str, Any], form: str | None = None) -> CalibrationMap:
    """The map in what a file, or a checkpoint, holds; LookupError or ValueError where there is none such."""
    return loaded_map(content["maps"][form or content["form"]], content["regions"])


def map_of_folds(
    path: Path, structures: Mapping[str, str], regions: bool, networks: Mapping[str, str], inference: dict[str, Any]
) -> tuple[CalibrationMap, dict[str, Any]] | None:
    """The map of a model's validation cases, which a map of own cases is drawn to, and what they taught (``quality``).

    Args:
        path: Of the model's file. Where that is of own cases by now, it still holds the map that it was drawn to.
        structures: See :func:`read_map`.
        regions: Likewise.
        networks: By fold, SHA-256 of the checkpoints.
        inference: How the own cases were predicted.

    Returns:
        None where there is none, or it is one of other networks, settings or structures.
    """
    try:
        record, content = read_record(path), read_dict(path)
        check_networks(path, record, networks)
        form = "given" if "given" in content["maps"] else content["form"]
        own_cases = form != "given" and any(learned.as_deployed for learned in record.learned.values())
        if not record.learned or own_cases or record.inference not in ({}, inference):
            return None
        return read_map(path, structures, regions, form), content["quality"]
    except (KeyError, UserError):
        return None


def check_output_map(path: Path) -> None:
    """Fail before the work rather than after it: UserError unless a map may be written there."""
    if path.suffix != ".json":
        raise UserError(f"{path}: the map's file name must end with .json.")
    check_writable(path)
    if path.is_file() and not fits(MapContent, read_dict(path)):
        raise UserError(f"{path} is no calibration map and would be lost; choose another -o.")


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
