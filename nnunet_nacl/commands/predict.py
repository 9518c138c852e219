"""`predict`: segments scans, and lists those that a human should check."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.cases.groups import read_groups
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
from nnunet_nacl.worklist.case_delivery import plan_delivery
from nnunet_nacl.worklist.deliver import DeliveredScans, deliver
from nnunet_nacl.worklist.sources import make_dicom_maker, predict_run

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
        network=on_present_device(settings_of(NetworkSettings, arguments)),
        wanted=settings_of(ListSettings, arguments),
        reading=settings_of(ScanSettings, arguments),
        output=settings_of(Output, arguments),
        calibration_map=calibration_map,
    )


def predict_scans(
    model: Path,
    scans: Path,
    *,
    network: NetworkSettings,
    wanted: ListSettings,
    reading: ScanSettings,
    output: Output,
    calibration_map: str | PathLike | None = None,
) -> DeliveredScans:
    """The recipe of :func:`predict`, with its settings collected and a device that is here."""
    with trusting(network.trust_checkpoint):
        trained = TrainedModel.open(model, network.folds, network.checkpoint)
        map_path = None if calibration_map is None else Path(calibration_map)
        calibrator = Calibrator.of_model(trained, map_path)
        delivery = plan_delivery(
            wanted,
            trained.dataset,
            calibrator,
            Path(output.output),
            num_networks=len(trained.folds),
        )
        source = Images.find(
            trained, network, scans, reading, with_disagreement=_MUTUAL_INFORMATION in delivery.maps
        )
        dicom = make_dicom_maker(source, scans, reading)
        patients = None if wanted.groups is None else read_groups(wanted.groups, source.names)
        run = predict_run(source, calibrator, scans, reading, patients, output.command)
        for note in (*calibrator.missing, *calibrator.other_inference(network.inference)):
            _LOG.info("note: %s", note)
        return deliver(
            source,
            replace(delivery, dicom=dicom),  # which needs the source, and that the delivery's maps
            run,
            output,
            title="predicting",
            with_slicer=wanted.slicer,
        )
