"""Where the cases of a run come from, and what documents of `predict` and `review` say of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.calibrator.map_file import APPLIED_FILE, read_applied_map_digest
from nnunet_nacl.dicom.codes import read_codes
from nnunet_nacl.dicom.output import DicomMaker
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import checksum
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.nnunet.image_files import RERUN
from nnunet_nacl.nnunet.places import PREDICT_ARGUMENTS
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.scans import Images
from nnunet_nacl.settings import ScanSettings


@dataclass(frozen=True)
class Run:
    """Where the cases of a run come from, and what documents say of it.

    Attributes:
        folder: That the cases come from, which the output must not lie in.
        arguments: Name and content of the file that tells whose the output folder is.
        document: What prediction.json says of cases, networks, map and settings.
        notes: What whoever uses the list must know.
        applied: What calibration_applied.json says; empty writes none.
        command: As it was given.
        num_parts: Runs that share the cases, each with a number of its own.
        part: Which of them this is, from 0.
        patients: To whom each case belongs; None: each is of a patient of its own.
    """

    folder: Path
    arguments: tuple[str, Mapping[str, Any]]
    document: Mapping[str, Any]
    notes: Sequence[str] = ()
    applied: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    num_parts: int = 1
    part: int = 0
    patients: Mapping[str, str] | None = None

    def names_of_part(self, names: Sequence[str]) -> list[str]:
        """Of all cases those that this part does."""
        return list(names[self.part :: self.num_parts])


def review_run(
    folder: PredictionFolder, calibrator: Calibrator = Calibrator(), command: str = ""
) -> Run:
    """What documents say of a folder of predictions, and of the map on them.

    Args:
        folder: Opened without a truth.
        calibrator: The map that it is calibrated by, and what it has learned.
        command: As it was given.

    Raises:
        UserError: The folder holds no probabilities.
    """
    place = folder.folder
    if next(place.glob("*.npz"), None) is None:
        raise UserError(f"{place} holds no probabilities (*.npz); {RERUN}.")
    made_by = {"generated_by": "nnunet_nacl review"}
    form = "least certain region of each voxel" if folder.labels.regions else "classes"
    document = {
        "predictions": {"folder": os.path.abspath(place)} | read_applied_map_digest(place),
        "dataset": folder.dataset.name,
        "form": form,
        "structures": folder.labels.structures,
        "calibration_map": calibrator.used_map(),
    }
    applied = _applied_map(place, calibrator)
    if applied:
        applied |= made_by
    return Run(
        folder=place,
        arguments=("review_args.json", made_by | {"predictions": os.path.abspath(place)}),
        document=document,
        notes=calibrator.notes,
        applied=applied,
        command=command,
    )


def _applied_map(folder: Path, calibrator: Calibrator) -> dict[str, Any]:
    """By which map the output is calibrated, and what from; empty where it is not."""
    if (folder / APPLIED_FILE).is_file():  # as calibrated as what it is made from
        return read_dict(folder / APPLIED_FILE)
    if calibrator.path is None:
        return {}
    return {
        "applied_to": str(folder.resolve()),
        "map": str(calibrator.path.resolve()),
        "map_sha256": checksum(calibrator.path),
    }


def predict_run(
    source: Images,
    calibrator: Calibrator,
    folder: Path,
    reading: ScanSettings,
    patients: Mapping[str, str] | None,
    command: str,
) -> Run:
    """What documents say of scans in a folder, and of the networks and the map that predict them.

    Args:
        source: The scans, and the networks.
        calibrator: The map, and what it has learned.
        folder: Of the scans.
        reading: In how many runs, and in which of them.
        patients: To whom each scan belongs; None: each is of a patient of its own.
        command: As it was given.

    Raises:
        UserError: There is no such part.
    """
    num_parts = reading.num_parts
    part = reading.part
    if not 0 <= part < num_parts:
        raise UserError(
            f"[[part]] must be from 0 to {num_parts - 1} for [[num_parts={num_parts}]], got {part}."
        )
    arguments = {
        "list_of_lists_or_source_folder": str(folder.resolve()),
        "generated_by": "nnunet_nacl predict",
        "num_parts": num_parts,
        "part_id": part,
    }
    return Run(
        folder=folder,
        arguments=(PREDICT_ARGUMENTS, arguments),
        document=_describe_prediction(source, calibrator, folder),
        notes=_notes_on_prediction(source, calibrator),
        command=command,
        num_parts=num_parts,
        part=part,
        patients=patients,
    )


def _describe_prediction(source: Images, calibrator: Calibrator, folder: Path) -> dict[str, Any]:
    """What prediction.json says of scans, networks and map."""
    model = source.model
    compared_with = "the training" if len(model.training.sizes_mm) else None
    return {
        "images": str(folder.resolve()),
        "model": {
            "folder": str(model.folder.resolve()),
            "dataset": model.dataset.name,
            "trainer": model.trainer,
            "configuration": model.configuration,
            "checkpoint": model.checkpoint,
            "checkpoints_sha256": dict(zip(model.folds, model.hashes)),
            "files_sha256": dict(model.file_hashes),
        },
        "calibrated": calibrator.log_odds_map is not None,
        "calibration_map": calibrator.used_map(),
        "step_size": source.network.step_size,
        "mirroring": source.network.mirroring,
        "training_range": compared_with,
    }


def _notes_on_prediction(source: Images, calibrator: Calibrator) -> list[str]:
    """What whoever uses the list must know: what the model lacks, and where its map is unsure."""
    notes = [f"{missing[0].upper()}{missing[1:]}" for missing in calibrator.missing]
    notes += calibrator.other_inference(source.network.inference)
    notes += calibrator.caveats((), several=len(source.model.folds) > 1)
    return notes


def make_dicom_maker(source: Images, folder: Path, reading: ScanSettings) -> DicomMaker | None:
    """What writes the objects of DICOM series; None for other scans.

    Args:
        source: The scans, and the networks.
        folder: Of the scans, for messages.
        reading: With the file of codes, and the orientation that was asked for.

    Raises:
        UserError: Codes are missing, or something is given that other scans do not need.
    """
    if not source.orientation:
        if reading.codes or reading.orientation:
            raise UserError(
                f"[[codes]] and [[orientation]] go with DICOM series; {folder} holds other images."
            )
        return None
    names = list(source.labels.structures.values())
    if reading.codes is None:
        raise UserError(
            f"{folder} holds DICOM series: give [[codes]] FILE, with a code for {', '.join(names)}."
        )
    serial = source.model.hashes[0]
    if len(source.model.hashes) > 1:
        serial = hashlib.sha256("".join(source.model.hashes).encode()).hexdigest()
    return DicomMaker(read_codes(Path(reading.codes), names), source.model.folder.name, serial)
