"""Settings that travel together: each is documented, and has its default, here alone.

The functions of the commands take them as arguments of the same names and collect them once, by
:func:`settings_of`; the command line takes default, type and help of its options from here. The
first sentence of an attribute is that help. Nothing heavy is imported, since `--help` is fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any, TypeVar

FINAL = "checkpoint_final.pth"
TUNED = "checkpoint_tuned.pth"
"""What `nnunet_nacl tune` writes beside nnU-Net's own."""
DEVICES = ("auto", "cuda", "mps", "cpu")
PAGES = ("flagged", "all", "none")
_Settings = TypeVar("_Settings")

BadSpec = float | Mapping[str, float] | Sequence[str]
"""One Dice for all structures, or by name or nnU-Net's key; a structure that is not among them does
not count."""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Which networks of a model predict, and how. Records name ``step_size`` and ``mirroring``,
    which numbers depend on.

    Attributes:
        folds: Folds: 0 to 4, or all for fold_all (default: every fold that there is). Their
            networks are averaged.
        checkpoint: Checkpoint: the file of the network in each fold (default:
            checkpoint_final.pth).
        device: cuda, mps, cpu, or auto (default): the first that there is.
        step_size: Step of the sliding window, as a share of the patch (default: 0.5). Above 0, at
            most 1.
        mirroring: Predict mirrored copies too, as calibration expects.
        everything_on_device: Keep a case's logits on a GPU.
        verbose: Let nnU-Net print.
        trust_checkpoint: Run code that checkpoints and plans name: for models of people that you
            trust. All that checkpoints hold is loaded, and what plans.json names is called.
    """

    folds: Sequence[str | int] | None = None
    checkpoint: str = FINAL
    device: str = "auto"
    step_size: float = 0.5
    mirroring: bool = True
    everything_on_device: bool = True
    verbose: bool = False
    trust_checkpoint: bool = False

    @property
    def inference(self) -> dict[str, Any]:
        """What numbers depend on, in JSON values."""
        return {"step_size": self.step_size, "mirroring": self.mirroring}


@dataclass(frozen=True, kw_only=True)
class ListSettings:
    """What is asked of a list of scans, and of the files beside it.

    Attributes:
        bad: A scan is bad below this Dice of any structure. One Dice of all structures, or by name;
            scans that may be bad are flagged. None: no scan is flagged by its predicted Dice.
        structures: Structures that count for ``bad`` (default: all, or those that ``bad`` names).
        find: Flag enough scans to find this share of the bad ones (default: 0.9). With ``bad``;
            None: .9, or nothing with ``miss``.
        miss: In place of ``find``: the share of all scans that may be bad and not flagged.
        unlike: Report scans whose image is this improbable among calibration scans (default: 0.05).
            That is the p-value of its image, tested against theirs.
        groups: Patient of each case: .json file or regular expression (default: each case is a
            patient). The file holds ``{"scan": "patient"}``; of the expression the first group, or
            the whole match, in a name is the patient. A batch is compared with the calibration
            scans by patients.
        also: Choose N more scans by chance: they show how many bad scans are not flagged.
        pages: Scans with a page: flagged (default; and the next ten), all or none.
        maps: Images of the uncertainty: ``confidence``, ``entropy``, ``mutual_information``,
            ``probabilities``, ``fractional`` (for DICOM). An empty list: the first three (without
            networks the first two); None: none.
        recall: Sensitive labels, which find this share of each structure's voxels: OUT/sensitive.
            None: none are written.
        findings: Structures whose parts findings.csv lists (no name: all; default: as the map
            says).
        slicer: What the extension SegmentationReview of 3D Slicer opens: OUT/review.
        save_probabilities: The probabilities (.npz, .pkl).
    """

    bad: BadSpec | None = None
    structures: Sequence[str] | None = None
    find: float | None = None
    miss: float | None = None
    unlike: float = 0.05
    groups: str | None = None
    also: int = 0
    pages: str = PAGES[0]
    maps: Sequence[str] | None = None
    recall: float | None = None
    findings: Sequence[str] | None = None
    slicer: bool = False
    save_probabilities: bool = False


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """How scans in a folder are read, and shared among runs.

    Attributes:
        codes: For DICOM: a .json file, {"liver": {"code": "10200004", "meaning": "Liver"}}.
        orientation: For DICOM: axes of the training images (default: as in nnUNet_preprocessed).
            Three letters, such as RAS.
        previous_stage: For a cascade, folder with the segmentations of the stage before.
        any_size: Also predict scans far larger or smaller than the training's. They may take hours.
        num_parts: Share the scans among N runs, each with another ``part``: 0, 1, ... (default: 1).
        part: Which of them this is, from 0.
        num_readers: Processes that read scans ahead; 0 reads them in this one.
        num_exporters: Processes that work on scans after the network; 0 works in this one.
    """

    codes: str | PathLike | None = None
    orientation: str = ""
    previous_stage: str | PathLike | None = None
    any_size: bool = False
    num_parts: int = 1
    part: int = 0
    num_readers: int = 0
    num_exporters: int = 0


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where a list and its files are written, and how the work is done.

    Attributes:
        output: Output folder: open index.html there.
        overwrite: Do every case again, and replace what others wrote or edited at the places of its
            files.
        num_processes: Cases at the same time.
        progress: Show a progress bar.
        command: What prediction.json says was run.
    """

    output: str | PathLike
    overwrite: bool = False
    num_processes: int = 1
    progress: bool = True
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class GivenCases:
    """Where cases with a ground truth come from: a folder of predictions, or a model with its
    validation cases or with images of one's own.

    Attributes:
        predictions: Folder of predictions with their probabilities. In place of a model.
        labels: Folder with the ground truth of ``predictions`` or ``images``. None: nnU-Net's own,
            in ``nnUNet_preprocessed``.
        model: The model's folder, TRAINER__PLANS__CONFIGURATION.
        images: Folder of images of one's own. None: the model's validation cases.
        dataset_json: dataset.json of the predictions (default: in their folder or up to two levels
            above).
        plans_json: plans.json of the predictions (default: in their folder or up to two levels
            above).
    """

    predictions: str | PathLike | None = None
    labels: str | PathLike | None = None
    model: str | PathLike | None = None
    images: str | PathLike | None = None
    dataset_json: str | PathLike | None = None
    plans_json: str | PathLike | None = None


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a calibration map is fitted, and what it is learned for.

    Attributes:
        form: temperature, conditional, or auto (default): what left-out cases allow.
        groups: As of :class:`ListSettings`.
        bad: As of :class:`ListSettings`. For what flags would cost; it changes no map.
        structures: As of :class:`ListSettings`.
        any_age: Also take predictions that are older than the checkpoint.
        training_cases: Also take cases that the networks were trained on. With images of one's own;
            the map notes it.
        output: File of the map (default: calibration_map.json in the folder of the model or the
            predictions, of another checkpoint calibration_map_NAME.json). Its name must end with
            .json; that it can be written is checked before the work.
        num_processes: Cases at the same time.
    """

    form: str = "auto"
    groups: str | None = None
    bad: BadSpec | None = None
    structures: Sequence[str] | None = None
    any_age: bool = False
    training_cases: bool = False
    output: str | PathLike | None = None
    num_processes: int = 1


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """How a decision is learned for each structure.

    Attributes:
        structures: Structures that may get a bias of their own (default: all).
        thresholds: Probability at which each structure is cut, by its name or nnU-Net's key. In
            place of a choice: nothing is measured, and structures that are not named stay.
        metric: dice (default), nnU-Net's mean over the cases where truth or labels have the
            structure, or present, over the cases whose truth has it.
        groups: As of :class:`ListSettings`.
        any_age: Also take predictions that are older than the checkpoint.
        training_cases: Also take cases that the networks were trained on. With images of one's own.
        num_processes: Cases at the same time.
    """

    structures: Sequence[str] | None = None
    thresholds: Mapping[str, float] | Sequence[str] | None = None
    metric: str = "dice"
    groups: str | None = None
    any_age: bool = False
    training_cases: bool = False
    num_processes: int = 1


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """What is measured of cases, and where it is written.

    Attributes:
        predict: Predict the validation cases first, as nnU-Net does. They get folders of their own.
        calibration_map: Calibration map that the probabilities of ``predictions`` are taken
            through. How good its predicted Dice is is then measured, too.
        n_bins: Bins of the confidence (default: 15).
        dilation_mm: Radius of the masks dilated and near, in mm (default: 2, or a wider voxel in
            the plane).
        boundary_mm: Reach of boundary, in mm (default: 2, or a wider voxel in the plane). To either
            side of a surface.
        bad: As of :class:`ListSettings`.
        structures: As of :class:`ListSettings`.
        findings: Structures whose connected parts, such as lesions, are counted (no name: all;
            default: those of lesions: structures that have several in the truth of some case and
            are absent from another).
        chill: Accept that cases of the ground truth have no prediction.
        output: The report, a .json file (default: calibration.json beside what is measured). That
            it can be written is checked before the work.
        csv: Also write every number to a .csv file beside it.
        num_processes: Cases at the same time.
    """

    predict: bool = False
    calibration_map: str | PathLike | None = None
    n_bins: int = 15
    dilation_mm: float | None = None
    boundary_mm: float | None = None
    bad: BadSpec | None = None
    structures: Sequence[str] | None = None
    findings: Sequence[str] | None = None
    chill: bool = False
    output: str | PathLike | None = None
    csv: bool = False
    num_processes: int = 1


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """How what is compared is found and measured.

    Attributes:
        datasets: Data sets: their names or numbers. Of folders of predictions at most one.
        configuration: Configuration: 2d, 3d_fullres, ... Of trainers.
        plans: Name of the plans of trainers.
        folds: Of models (default: all that are present for all). ``["all"]`` is nnU-Net's fold_all.
        labels: Folder with the ground truth of folders of predictions (default: nnU-Net's own).
        dataset_json: As of :class:`GivenCases`.
        plans_json: As of :class:`GivenCases`.
        unranked: Methods that are shown, but not tested. By their labels.
        bad: As of :class:`ListSettings`.
        structures: As of :class:`ListSettings`.
        findings: As of :class:`MeasureSettings`.
        groups: Patient of each case: .json file or regular expression (default: as the models' maps
            say). Else each case is a patient.
        allow_missing: Compare the folds and cases that all have, with a note.
        allow_training_cases: Compare cases that networks were trained on, with a note.
        n_bootstrap: Samples of the bootstrap.
        seed: Of its random numbers.
        num_processes: Cases that are measured at the same time.
    """

    datasets: Sequence[str | int] = ()
    configuration: str = ""
    plans: str = "nnUNetPlans"
    folds: Sequence[str | int] | None = None
    labels: str | PathLike | None = None
    dataset_json: str | PathLike | None = None
    plans_json: str | PathLike | None = None
    unranked: Sequence[str] = ()
    bad: BadSpec | None = None
    structures: Sequence[str] | None = None
    findings: Sequence[str] | None = None
    groups: str | None = None
    allow_missing: bool = False
    allow_training_cases: bool = False
    n_bootstrap: int = 10_000
    seed: int = 0
    num_processes: int = 1


def settings_of(kind: type[_Settings], arguments: Mapping[str, Any]) -> _Settings:
    """The settings of a kind among arguments by name; those that are missing keep their default."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: arguments[name] for name in names if name in arguments})
