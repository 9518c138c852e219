"""`calibrate`: fits a calibration map to cases that the networks were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path

from nnunet_nacl.calibration.crossfit import PRIOR_FORM
from nnunet_nacl.calibrator.calibration_map import CalibrationMap
from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.calibrator.fit import fit_held_out
from nnunet_nacl.calibrator.map_file import MAP_FILE, check_output_map
from nnunet_nacl.calibrator.map_parts import MapQuality, Origin
from nnunet_nacl.cases.groups import read_groups
from nnunet_nacl.commands.calibration_cases import (
    CalibrationCases,
    OwnImages,
    PredictedCases,
    ValidationCases,
)
from nnunet_nacl.commands.calibration_result import CalibrationResult
from nnunet_nacl.commands.python_function import python_function
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_folder, check_ours, write_atomically
from nnunet_nacl.nnunet.calibration_profiles import learn_profiles
from nnunet_nacl.nnunet.held_out import HeldOut
from nnunet_nacl.nnunet.places import FINAL
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.quality.bad_limits import check_bad, read_bad
from nnunet_nacl.quality.intervals import DEFAULT_ALPHA
from nnunet_nacl.quality.risk_control import patients_needed
from nnunet_nacl.settings import BadSpec, NetworkSettings


@python_function
def calibrate(
    model: str | PathLike | None = None,
    images: str | PathLike | None = None,
    labels: str | PathLike | None = None,
    *,
    predictions: str | PathLike | None = None,
    folds: Sequence[str | int] | None = None,
    checkpoint: str = FINAL,
    form: str = "auto",
    groups: str | None = None,
    bad: BadSpec | None = None,
    structures: Sequence[str] | None = None,
    device: str = "auto",
    step_size: float = 0.5,
    mirroring: bool = True,
    any_age: bool = False,
    training_cases: bool = False,
    dataset_json: str | PathLike | None = None,
    plans_json: str | PathLike | None = None,
    output: str | PathLike | None = None,
    num_processes: int = 1,
    trust_checkpoint: bool = False,
) -> CalibrationResult:
    """Fit a calibration map to cases that the networks were not trained on.

    From the same cases it learns how well Dice, volumes and presence can be predicted of new ones.

    The cases are a model's validation cases (``calibrate(model)``), images of one's own with their
    ground truth, which the model predicts (``calibrate(model, images, labels)``), or saved
    predictions (``calibrate(predictions=..., labels=...)``). Nothing is trained, and no label
    changes. What an earlier run has predicted or measured is not done again. Nothing is printed:
    what is predicted is logged to ``nnunet_nacl`` (level INFO), and progress bars go to stderr.

    Args:
        model: nnU-Net's model folder, TRAINER__PLANS__CONFIGURATION; None with ``predictions``.
        images: Folder of images of one's own; None: the model's validation cases.
        labels: Folder with the ground truth of ``images`` or ``predictions``.
        predictions: In place of a model, folder of segmentations with their probabilities (npz).
        folds: Of the model; None: all that are trained.
        checkpoint: File of the network in each fold.
        form: Of the map: ``temperature``, ``shift``, ``conditional``, or ``auto``, what left-out
            cases allow.
        groups: Patient of each case: a .json file ``{"case": "patient"}``, or a regular expression
            whose first group, or whole match, in a case's name is the patient; None: each case its
            own.
        bad: The Dice below which a structure, and so its scan, is bad: one of all structures, or by
            name. For what flags would cost; it changes no map.
        structures: Names of those that count for ``bad``; None: all, or those that it names.
        device: Of networks, where cases must be predicted: ``cuda``, ``mps``, ``cpu``, or ``auto``,
            the first of these that there is.
        step_size: Of the sliding window, as a share of the patch.
        mirroring: Predict mirrored copies too.
        any_age: Take predictions that are older than the checkpoint.
        training_cases: With ``images``, also take cases that the folds were trained on; the map
            notes it.
        dataset_json: dataset.json of ``predictions``; None: in their folder or up to two levels
            above.
        plans_json: plans.json, likewise.
        output: File of the map, which must end with .json; that it can be written is checked before
            the work. None: calibration_map.json in the folder of the model or the predictions.
        num_processes: Cases at the same time.
        trust_checkpoint: Load all that checkpoints hold, and call what plans.json names, which can
            run code.

    Returns:
        The map, what it changes and has learned, and which cases could not be used;
        :meth:`CalibrationResult.write` writes it.

    Raises:
        UserError: What was given does not fit, cannot be read, or is too little to calibrate.

    Examples:
        >>> result = calibrate(model_folder, device="cpu")
        >>> nll = result.effect.loc["NLL all"]  # on cases that the fit has not seen
        >>> bool(nll.after < nll.before)
        True
        >>> result.failed
        {}
        >>> written = result.write()  # where `nnunet_nacl predict` finds it
        >>> written.calibration_map.name, written.figure.name
        ('calibration_map.json', 'calibration_map.png')
    """
    _check_arguments(model, images, labels, predictions)
    check_bad(bad, structures=structures)
    _check_folders(model, images, predictions)
    map_file = Path(output or Path(model or predictions or "") / MAP_FILE)
    _check_output(map_file)

    cases: CalibrationCases
    network = NetworkSettings(device=device, step_size=step_size, mirroring=mirroring)
    if model is None:
        cases = PredictedCases.open(Path(predictions or ""), labels, dataset_json, plans_json)
    elif images is None:
        cases = ValidationCases(
            trained=TrainedModel.open(Path(model), folds, checkpoint),
            given_folder=model,
            network=network,
            any_age=any_age,
        )
    else:
        cases = OwnImages(
            trained=TrainedModel.open(Path(model), folds, checkpoint),
            given_folder=model,
            network=network,
            images=Path(images),
            labels=Path(labels or ""),
            map_file=map_file,
            training_cases=training_cases,
        )
    bad_below = (
        read_bad(bad, cases.dataset.labels.structures, structures) if bad is not None else None
    )

    held_out = cases.measure(num_processes)
    patients = read_groups(groups, list(held_out.records)) if groups else None

    map_of_folds = cases.find_map_of_folds(held_out)
    fitted_map = fit_held_out(
        held_out,
        patients=patients,
        form=form,
        prior_map=None if map_of_folds is None else map_of_folds.calibration(),
        as_deployed=cases.is_predicted_as_deployed,
    )
    quality, notes = _learn_profiles(fitted_map, held_out, cases.model, num_processes)
    notes += _notes(fitted_map, cases.model, training_cases)
    quality_of_folds = None if map_of_folds is None else map_of_folds.quality
    # what few patients teach of Dice is worth less than what the validation cases taught
    if quality_of_folds is not None and _has_few_patients(fitted_map):
        quality = quality_of_folds
        notes.append(_few_patients_note(fitted_map))
    calibration_map = replace(
        fitted_map, quality=quality, origin=_make_origin(fitted_map, held_out, cases, notes)
    )
    return CalibrationResult(calibration_map=calibration_map, bad=bad_below, output=map_file)


@python_function
def take_map(
    model: str | PathLike,
    calibration_map: str | PathLike,
    *,
    folds: Sequence[str | int] | None = None,
    checkpoint: str = FINAL,
    trust_checkpoint: bool = False,
) -> Path:
    """Take a map that was fitted elsewhere, such as at another site, for the model's own: nothing
    is fitted.

    Args:
        model: nnU-Net's model folder, TRAINER__PLANS__CONFIGURATION.
        calibration_map: The map's file.
        folds: Of the model; None: all that are trained.
        checkpoint: File of the network in each fold.
        trust_checkpoint: Load all that checkpoints hold, and call what plans.json names, which can
            run code.

    Returns:
        The file that was written into the model's folder.

    Raises:
        UserError: The map is of other networks or structures, or the file cannot be written.
    """
    map_of_others = Path(calibration_map)
    Calibrator.of_model(TrainedModel.open(Path(model), folds, checkpoint), map_of_others)
    path = Path(model) / MAP_FILE
    check_output_map(path)
    write_atomically(path, map_of_others.read_text(encoding="utf-8"))
    return path


def _check_arguments(model: object, images: object, labels: object, predictions: object) -> None:
    if images is not None and model is None:
        raise UserError("images need a model that predicts them; name one, or give predictions.")
    if (model is None) == (predictions is None):
        raise UserError("name a model, or a folder of predictions.")
    if labels is None and (images is not None or predictions is not None):
        raise UserError(f"{images or predictions}: the ground truth of these cases is needed, too.")


def _check_folders(
    model: str | PathLike | None, images: str | PathLike | None, predictions: str | PathLike | None
) -> None:
    """UserError where one of them is no folder.

    The check whether a map can be written there would make it.
    """
    if model is not None:
        check_folder(Path(model), "the model, TRAINER__PLANS__CONFIGURATION")
    for folder_of_cases in (images, predictions):
        if folder_of_cases is not None:
            check_folder(Path(folder_of_cases), "the images, or the predictions")


def _check_output(map_file: Path) -> None:
    """UserError, before hours of work, where the map cannot be written, or would replace files of
    others."""
    check_output_map(map_file)
    check_ours([map_file.with_suffix(".png")])


def _notes(
    calibration_map: CalibrationMap, model: TrainedModel | None, training_cases: bool
) -> list[str]:
    notes = []
    if training_cases:
        notes.append(
            "cases that these networks were trained on were allowed; what is said of such cases"
            " flatters them."
        )
    if model is not None and model.previous_stage:
        notes.append(
            "cascade: this map is for its last stage; the stage before is predicted as ever."
        )
    if any(score.form == PRIOR_FORM for score in calibration_map.fitted.forms):
        notes.append(
            "the map is shrunk towards that of the model's validation cases, as far as these cases"
            " allow."
        )
    return notes


def _has_few_patients(calibration_map: CalibrationMap) -> bool:
    """Whether there are too few patients for an interval of the predicted Dice."""
    return len(set(calibration_map.fitted.patients)) < patients_needed(DEFAULT_ALPHA)


def _few_patients_note(calibration_map: CalibrationMap) -> str:
    n_patients = len(set(calibration_map.fitted.patients))
    return (
        f"{n_patients} patients; with fewer than {patients_needed(DEFAULT_ALPHA)}, what is"
        " predicted of Dice, volumes and presence, and sensitive labels, stay what the"
        " model's validation"
        " cases taught."
    )


def _learn_profiles(
    calibration_map: CalibrationMap,
    held_out: HeldOut,
    model: TrainedModel | None,
    num_processes: int,
) -> tuple[MapQuality | None, list[str]]:
    """What the map has learned, with what the scans look like; and a note where that is not
    known."""
    quality = calibration_map.quality
    if quality is None or quality.why_not:
        return quality, []
    why = "predictions alone do not tell; name the model, and give images"
    if model is not None:
        records = [held_out.records[case] for case in calibration_map.fitted.part_of]
        patients = calibration_map.fitted.patients
        try:
            profiles = learn_profiles(records, patients, model, num_processes=num_processes)
            return replace(quality, profiles=profiles), []
        except UserError as error:  # no preprocessed images: the map is as good without
            why = str(error)
    note = (
        f"what these scans look like was not learned, so none will be said to be unlike them: {why}"
    )
    return quality, [note]


def _make_origin(
    calibration_map: CalibrationMap, held_out: HeldOut, cases: CalibrationCases, notes: list[str]
) -> Origin:
    """Where the cases come from, for the map's file."""
    checksums = dict(zip(cases.model.folds, cases.model.hashes)) if cases.model is not None else {}
    return replace(
        calibration_map.origin,
        source=cases.source,
        folds=sorted(set(held_out.fold.values())),
        inference=cases.read_inference(held_out),
        checkpoint_sha256=checksums,
        versions={package: version(package) for package in ("nnunet_nacl", "nnunetv2", "torch")},
        settings=held_out.settings,
        notes=notes,
        problems=held_out.problems,
    )
