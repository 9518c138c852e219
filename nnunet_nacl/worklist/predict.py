"""`predict`: segments scans, and lists those that a human should check."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.cases.groups import read_groups
from nnunet_nacl.dicom.codes import read_codes
from nnunet_nacl.dicom.output import DicomMaker
from nnunet_nacl.nnunet.folders import PREDICT_ARGUMENTS
from nnunet_nacl.nnunet.predicted import on_present_device
from nnunet_nacl.nnunet.scans import Images
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.nnunet.trust import trusting
from nnunet_nacl.settings import (
    FINAL,
    BadSpec,
    ListSettings,
    NetworkSettings,
    Output,
    ScanSettings,
    settings_of,
)
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.worklist.aims import read_aims
from nnunet_nacl.worklist.deliver import DeliveredScans, deliver
from nnunet_nacl.worklist.run import Run

_LOG = logging.getLogger(__name__)
_MUTUAL_INFORMATION = "mutual_information"
"""The image of what the folds disagree about, which must be resampled to the scan."""


def predict(
    model: str | PathLike,
    scans: str | PathLike,
    output: str | PathLike,
    *,
    folds: Sequence[str | int] | None = None,
    checkpoint: str = FINAL,
    calibration_map: str | PathLike | None = None,
    bad: BadSpec | None = None,
    structures: Sequence[str] | None = None,
    find: float | None = None,
    miss: float | None = None,
    unlike: float = 0.05,
    groups: str | None = None,
    also: int = 0,
    pages: str = "flagged",
    maps: Sequence[str] | None = None,
    recall: float | None = None,
    findings: Sequence[str] | None = None,
    slicer: bool = False,
    save_probabilities: bool = False,
    codes: str | PathLike | None = None,
    orientation: str = "",
    previous_stage: str | PathLike | None = None,
    any_size: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    step_size: float = 0.5,
    mirroring: bool = True,
    everything_on_device: bool = True,
    verbose: bool = False,
    num_parts: int = 1,
    part: int = 0,
    num_readers: int = 0,
    num_exporters: int = 0,
    progress: bool = True,
    command: str = "",
    trust_checkpoint: bool = False,
) -> DeliveredScans:
    """Segment scans as nnUNetv2_predict does and, in the same pass, list those that a human should
    check, and where.

    The output becomes a folder as nnUNetv2_predict leaves it, with index.html, its tables and
    prediction.json beside the segmentations. A scan that cannot be done costs only itself; one that
    is finished is not done again. Nothing is printed: what the model lacks is logged to
    ``nnunet_nacl`` (level INFO), and a progress bar goes to stderr. For images in memory see
    :class:`~nnunet_nacl.worklist.predictor.Predictor`.

    Args:
        model: nnU-Net's model folder, TRAINER__PLANS__CONFIGURATION.
        scans: Folder of images, SCAN_0000.nii.gz, or of DICOM series.
        output, overwrite, progress, command: The folder to write to, and how, see
            :class:`~nnunet_nacl.settings.Output`.
        calibration_map: calibration_map.json of this model; None looks for it in the model's
            folder.
        bad, structures, find, miss, unlike, groups, also, pages, maps, recall, findings, slicer,
            save_probabilities: What is asked of the list, see
            :class:`~nnunet_nacl.settings.ListSettings`.
        folds, checkpoint, device, step_size, mirroring, everything_on_device, verbose,
            trust_checkpoint: Which networks predict, and how, see
            :class:`~nnunet_nacl.settings.NetworkSettings`.
        codes, orientation, previous_stage, any_size, num_parts, part, num_readers, num_exporters:
            How scans are read and shared, see :class:`~nnunet_nacl.settings.ScanSettings`.

    Returns:
        The list, and which scans failed.

    Raises:
        UserError: What was given does not fit or cannot be read, or not a single scan could be
            done.

    Examples:
        >>> result = predict(model_folder, scans, "out", bad=0.7, device="cpu")
        >>> result.scans[["predicted_dice", "is_flagged", "why"]].shape  # a row for each scan
        (1, 3)
        >>> list(result.structures.name)  # a row for each scan and structure
        ['anterior', 'posterior']
        >>> (result.output / "index.html").is_file(), result.failed
        (True, {})
    """
    arguments = locals()
    return predict_scans(
        Path(model),
        Path(scans),
        network=settings_of(NetworkSettings, arguments),
        wanted=settings_of(ListSettings, arguments),
        reading=settings_of(ScanSettings, arguments),
        writing=settings_of(Output, arguments),
        calibration_map=calibration_map,
    )


def predict_scans(
    model: Path,
    scans: Path,
    *,
    network: NetworkSettings,
    wanted: ListSettings,
    reading: ScanSettings,
    writing: Output,
    calibration_map: str | PathLike | None = None,
) -> DeliveredScans:
    """The recipe of :func:`predict`, with its settings collected."""
    network = on_present_device(network)
    with trusting(network.trust_checkpoint):
        trained = TrainedModel.open(model, network.folds, network.checkpoint)
        map_path = None if calibration_map is None else Path(calibration_map)
        calibrator = Calibrator.of_model(trained, map_path)
        aims = read_aims(wanted, trained.labels, calibrator, len(trained.folds))
        source = Images.find(
            trained, network, scans, reading, with_disagreement=_MUTUAL_INFORMATION in aims.maps
        )
        run = Run(
            dataset=trained.dataset,
            calibrator=calibrator,
            aims=aims,
            dicom=_make_dicom_maker(source, scans, reading),
            patients=None if wanted.groups is None else read_groups(wanted.groups, source.names),
            writing=writing,
            reading=reading,
            source=scans,
            claim=_make_claim(scans, reading),
            document=_describe_prediction(source, calibrator, scans),
            notes=_notes_on_prediction(source, calibrator),
        )
        for note in (*calibrator.missing, *calibrator.other_inference(network.inference)):
            _LOG.info("note: %s", note)
        return deliver(source, run, title="predicting")


def _make_claim(folder: Path, reading: ScanSettings) -> tuple[str, dict[str, Any]]:
    """Name and content of the file that tells a run's output from that of others.

    UserError where there is no such part.
    """
    num_parts = reading.num_parts
    part = reading.part
    if not 0 <= part < num_parts:
        raise UserError(
            f"[[part]] must be from 0 to {num_parts - 1} for [[num_parts={num_parts}]], got {part}."
        )
    content = {
        "list_of_lists_or_source_folder": str(folder.resolve()),
        "generated_by": "nnunet_nacl predict",
        "num_parts": num_parts,
        "part_id": part,
    }
    return PREDICT_ARGUMENTS, content


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


def _make_dicom_maker(source: Images, folder: Path, reading: ScanSettings) -> DicomMaker | None:
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
