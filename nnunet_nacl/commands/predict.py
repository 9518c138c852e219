"""`predict`: segments scans, and lists those that a human should check."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.cases.groups import read_groups
from nnunet_nacl.commands.python_function import python_function
from nnunet_nacl.nnunet.places import FINAL
from nnunet_nacl.nnunet.predicted import NetworkSettings
from nnunet_nacl.nnunet.scans import Images
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.quality.bad_limits import BadSpec
from nnunet_nacl.quality.unlike import DEFAULT_UNLIKE
from nnunet_nacl.worklist.case_delivery import plan_delivery
from nnunet_nacl.worklist.deliver import DeliveredScans, deliver
from nnunet_nacl.worklist.options import ListOptions
from nnunet_nacl.worklist.sources import check_previous_stage, make_dicom_maker, predict_run

_LOG = logging.getLogger(__name__)
_MUTUAL_INFORMATION = "mutual_information"
"""The image of what the folds disagree about, which must be resampled to the scan."""


@python_function
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
    unlike: float = DEFAULT_UNLIKE,
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
        output: Folder to write to.
        folds: Of the model, which are averaged; None: all that are trained.
        checkpoint: File of the network in each fold.
        calibration_map: calibration_map.json of this model; None looks for it in the model's
            folder.
        bad: The Dice below which a structure, and so its scan, is bad: one of all structures, or by
            name. Scans that may be bad are flagged; None: no scan is flagged by its predicted Dice.
        structures: Names of those that count for ``bad``; None: all, or those that it names.
        find: With ``bad``, share of the bad scans to be flagged; None: .9, or nothing with
            ``miss``.
        miss: With ``bad``, share of all scans that may be bad and not flagged.
        unlike: A scan is unlike the calibration scans if the p-value of its image, tested against
            theirs, is at most this.
        groups: Patient of each scan: a .json file ``{"scan": "patient"}``, or a regular expression
            whose first group is the patient; None: each scan is of its own. A batch is compared
            with the calibration scans by patients.
        also: Scans to be chosen by chance among those without a flag: they show how many bad ones
            are not flagged.
        pages: Which scans have a page: ``flagged`` (and the next ten), ``all`` or ``none``.
        maps: Images of the uncertainty: ``confidence``, ``entropy``, ``mutual_information``,
            ``probabilities``, ``fractional`` (for DICOM); an empty list: the first three; None:
            none.
        recall: Sensitive labels, which find this share of the voxels of each structure, are
            written, too; None: none.
        findings: Structures whose parts findings.csv lists; an empty list: all; None: as the map
            says.
        slicer: Write what the extension SegmentationReview of 3D Slicer opens, into ``review/``.
        save_probabilities: Save the probabilities, too (npz and pkl).
        codes: For DICOM series, file of the structures' codes: ``{"liver": {"code": "10200004",
            "meaning": "Liver"}}``.
        orientation: For DICOM series, axes of the training's images, such as RAS; empty: as in
            nnUNet_preprocessed.
        previous_stage: For a cascade, folder with the segmentations of the stage before.
        any_size: Also predict scans far larger or smaller than the training's, which may take
            hours.
        overwrite: Do every scan again.
        device: ``cuda``, ``mps``, ``cpu``, or ``auto``, the first of these that there is.
        step_size: Of the sliding window, as a share of the patch.
        mirroring: Predict mirrored copies too, as calibration expects.
        everything_on_device: Keep a scan's logits on a GPU.
        verbose: Let nnU-Net print.
        num_parts: Runs that share the scans, each with another ``part``.
        part: Which of them this is, from 0.
        num_readers: Processes that read scans ahead; 0 reads them in this one.
        num_exporters: Processes that work on scans after the network; 0 works in this one.
        progress: Show a progress bar.
        command: What prediction.json says was run.
        trust_checkpoint: Load all that checkpoints hold, and call what plans.json names, which can
            run code.

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
    trained = TrainedModel.open(Path(model), folds, checkpoint)
    calibrator = Calibrator.of_model(
        trained, None if calibration_map is None else Path(calibration_map)
    )
    options = ListOptions(
        bad=bad,
        structures=structures,
        find=find,
        miss=miss,
        unlike=unlike,
        also=also,
        pages=pages,
        maps=maps,
        recall=recall,
        findings=findings,
        save_probabilities=save_probabilities,
    )
    delivery = plan_delivery(
        options, trained.opened, calibrator, Path(output), num_networks=len(trained.folds)
    )

    before = None if previous_stage is None else Path(previous_stage)
    check_previous_stage(trained, before)
    network = NetworkSettings(
        device=device,
        step_size=step_size,
        mirroring=mirroring,
        everything_on_device=everything_on_device,
        verbose=verbose,
    )
    source = Images.find(
        trained,
        network.on_present_device(),
        Path(scans),
        previous=before,
        orientation=orientation,
        any_size=any_size,
        readers=num_readers,
        exporters=num_exporters,
        with_disagreement=_MUTUAL_INFORMATION in delivery.maps,
    )
    dicom = make_dicom_maker(
        source, Path(scans), None if codes is None else Path(codes), orientation
    )
    patients = read_groups(groups, list(source.names)) if groups is not None else None
    run = predict_run(
        source,
        calibrator,
        Path(scans),
        num_parts=num_parts,
        part=part,
        patients=patients,
        command=command,
    )
    for note in (*calibrator.missing, *calibrator.other_inference(network.inference)):
        _LOG.info("note: %s", note)

    return deliver(
        source,
        replace(delivery, dicom=dicom),  # which needs the source, and that the delivery's maps
        run,
        again=overwrite,
        title="predicting" if progress else "",
        images={name: source.path(name) for name in source.names} if slicer else None,
    )
