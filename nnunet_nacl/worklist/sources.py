"""Opens the cases of `predict` and of `review`, with what documents say of where they come from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.calibrator.map_file import APPLIED_FILE, map_of
from nnunet_nacl.dicom.output import DicomMaker, read_codes
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import checksum
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.nnunet.image_files import RERUN
from nnunet_nacl.nnunet.places import PREDICT_ARGUMENTS
from nnunet_nacl.nnunet.predicted import NetworkSettings
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.scans import Images
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.worklist.deliver import Run


def review_run(folder: PredictionFolder, calibrator: Calibrator = Calibrator()) -> Run:
    """What documents say of a folder of predictions, opened without a truth, and of the map on them.

    UserError where the folder holds no probabilities.
    """
    place, labels = folder.folder, folder.labels
    if next(place.glob("*.npz"), None) is None:
        raise UserError(f"{place} holds no probabilities (*.npz); {RERUN}.")
    made_by, applied = {"generated_by": "nnunet_nacl review"}, dict[str, Any]()
    if (place / APPLIED_FILE).is_file():  # as calibrated as what it is made from
        applied = read_dict(place / APPLIED_FILE)
    elif calibrator.path is not None:
        applied = {
            "applied_to": str(place.resolve()),
            "map": str(calibrator.path.resolve()),
            "map_sha256": checksum(calibrator.path),
        }
    document = {
        "predictions": {"folder": os.path.abspath(place)} | map_of(place),
        "dataset": folder.plans.get("dataset_name"),
        "form": "least certain region of each voxel" if labels.regions else "classes",
        "structures": labels.structures,
        "calibration_map": calibrator.used_map(),
    }
    arguments = "review_args.json", made_by | {"predictions": os.path.abspath(place)}
    if applied:
        applied |= made_by
    return Run(place, arguments, document, calibrator.notes, applied)


def predict_source(
    model: TrainedModel,
    calibrator: Calibrator,
    network: NetworkSettings,
    images: Path,
    *,
    previous: Path | None = None,
    dicom: tuple[Path | None, str] = (None, ""),
    parts: tuple[int, int] = (1, 0),
    **options: Any,
) -> tuple[Images, DicomMaker | None, Run]:
    """A folder of scans and the networks of a model as cases, what writes DICOM objects, and what documents say.

    Args:
        model: The model.
        calibrator: Its map.
        network: How the networks predict.
        images: Folder of the scans.
        previous: Folder with the segmentations of the stage before, for a cascade.
        dicom: For DICOM series, file of the structures' codes and axes of the training's images.
        parts: Runs that share the scans, and which of them this is, from 0.
        **options: Of :class:`~nnunet_nacl.nnunet.scans.Images`.

    Raises:
        UserError: There are no scans, or codes, stage before or number of the part do not fit.
    """
    if model.previous_stage and previous is None:
        raise UserError(
            f"a cascade: this network needs the segmentations of {model.previous_stage}. Predict them with that "
            "configuration's original checkpoint, and give their folder with -prev_stage_predictions."
        )
    if previous is not None and not model.previous_stage:
        raise UserError(f"-prev_stage_predictions {previous}: {model.configuration} is no stage of a cascade.")
    source = Images.find(model, network, images, previous=previous, orientation=dicom[1], **options)
    maker, (num_parts, part) = _dicom_maker(source, images, *dicom), parts
    if not 0 <= part < num_parts:
        raise UserError(f"-part_id must be from 0 to {num_parts - 1} for -num_parts {num_parts}, got {part}.")
    notes = [f"{missing[0].upper()}{missing[1:]}" for missing in calibrator.missing]
    notes += calibrator.other_inference(network.inference)
    notes += calibrator.caveats((), several=len(model.folds) > 1)
    document: dict[str, Any] = {
        "images": str(images.resolve()),
        "model": {
            "folder": str(model.folder.resolve()),
            "dataset": model.opened.plans.get("dataset_name"),
            "trainer": model.trainer,
            "configuration": model.configuration,
            "checkpoint": model.checkpoint,
            "checkpoints_sha256": dict(zip(model.folds, model.hashes)),
            "files_sha256": dict(model.file_hashes),
        },
        "calibrated": calibrator.log_odds_map is not None,
        "calibration_map": calibrator.used_map(),
        "step_size": network.step_size,
        "mirroring": network.mirroring,
        "training_range": "the training" if len(model.training.sizes_mm) else None,
    }
    asked = {"list_of_lists_or_source_folder": str(images.resolve()), "generated_by": "nnunet_nacl predict"}
    arguments = PREDICT_ARGUMENTS, asked | {"num_parts": num_parts, "part_id": part}
    return source, maker, Run(images, arguments, document, notes, num_parts=num_parts, part=part)


def _dicom_maker(source: Images, images: Path, codes: Path | None, orientation: str) -> DicomMaker | None:
    """Writes the objects of DICOM series; None for other scans. UserError if codes are missing, or not needed."""
    if not source.orientation:
        if codes or orientation:
            raise UserError(f"-codes and -orientation go with DICOM series; {images} holds other images.")
        return None
    model, names = source.model, list(source.labels.structures.values())
    if codes is None:
        raise UserError(f"{images} holds DICOM series: give -codes FILE, with a code for {', '.join(names)}.")
    several = hashlib.sha256("".join(model.hashes).encode()).hexdigest()
    serial = model.hashes[0] if len(model.hashes) == 1 else several
    return DicomMaker(read_codes(codes, names), model.folder.name, serial)
