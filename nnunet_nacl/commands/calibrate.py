"""`calibrate`: fits a calibration map to cases that the networks were not trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_nacl.calibrator.calibration_map import CalibrationMap
from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.calibrator.fit import fit_held_out
from nnunet_nacl.calibrator.map_file import (
    APPLIED_FILE,
    MAP_FILE,
    FoldsMap,
    check_output_map,
    map_of_folds,
)
from nnunet_nacl.calibrator.map_parts import Inference, MapQuality
from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.cases.groups import read_groups
from nnunet_nacl.commands.python_function import python_function
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_folder, check_ours, write_atomically
from nnunet_nacl.nnunet.held_out import (
    HeldOut,
    inference_of,
    kept_settings,
    measure_folders,
    measure_images,
    measure_validation,
)
from nnunet_nacl.nnunet.places import FINAL, validation_folder
from nnunet_nacl.nnunet.predicted import NetworkSettings
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.scans import Images
from nnunet_nacl.nnunet.trained_model import TrainedModel, learn_profiles
from nnunet_nacl.quality.bad_limits import BadSpec, check_bad, read_bad
from nnunet_nacl.quality.flags import Flags
from nnunet_nacl.quality.intervals import DEFAULT_ALPHA
from nnunet_nacl.quality.risk_control import patients_needed

_LOG = logging.getLogger(__name__)


@python_function(i="images")
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
    """Fit a calibration map to cases that the networks were not trained on, and learn from these
    what it may promise.

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
        checkpoint: File in each fold.
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
        The map, what it changes and promises, and which cases could not be used;
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
    # else the folder would be made, to see whether a map can be written there
    if model is not None:
        check_folder(Path(model), "the model, TRAINER__PLANS__CONFIGURATION")
    given = images if predictions is None else predictions
    if given is not None:
        check_folder(Path(given), "the images, or the predictions")
    map_file = Path(output or Path(model or predictions or "") / MAP_FILE)
    _check_output(map_file)
    trained = None if model is None else TrainedModel.open(Path(model), folds, checkpoint)
    if trained is None:
        data = _open_predictions(Path(predictions or ""), labels, dataset_json, plans_json)
    else:
        data = trained.opened
    bad_below = None if bad is None else read_bad(bad, data.labels.structures, structures)

    network = NetworkSettings(device=device, step_size=step_size, mirroring=mirroring)
    if trained is None:
        held_out = _measure_predictions(data, num_processes)
    elif images is None:
        held_out = _measure_validation(trained, network, any_age, num_processes)
    else:
        held_out = _measure_own_images(
            trained,
            network,
            Path(images),
            Path(labels or ""),
            map_file,
            training_cases,
            num_processes,
        )
    patients = read_groups(groups, list(held_out.records)) if groups else None

    inference = Inference()
    if trained is not None:
        inference = inference_of(held_out.records.values())
    of_folds = None
    if trained is not None and images is not None:
        of_folds = _map_of_folds(trained, held_out, inference)
    calibration_map = fit_held_out(
        held_out,
        patients=patients,
        form=form,
        prior_map=None if of_folds is None else of_folds.log_odds_map,
        as_deployed=trained is None or images is not None,
    )
    quality, notes = _with_profiles(calibration_map, held_out, trained, num_processes)
    notes += _notes(calibration_map, trained, training_cases)
    if _has_few_patients(calibration_map) and of_folds is not None and of_folds.quality is not None:
        quality = of_folds.quality
        notes.append(_few_patients_note(calibration_map))
    origin = replace(
        calibration_map.origin,
        source=str(model or Path(predictions or "").resolve()),
        folds=sorted(set(held_out.fold.values())),
        inference=inference,
        checkpoint_sha256={} if trained is None else dict(zip(trained.folds, trained.hashes)),
        versions={package: version(package) for package in ("nnunet_nacl", "nnunetv2", "torch")},
        settings=held_out.settings,
        notes=notes,
        problems=held_out.problems,
    )
    return CalibrationResult(
        calibration_map=replace(calibration_map, quality=quality, origin=origin),
        bad=bad_below,
        output=map_file,
    )


@dataclass(frozen=True)
class CalibrationFiles:
    """What :meth:`CalibrationResult.write` has written.

    Attributes:
        calibration_map: The map.
        figure: What flags would cost; None where nothing was learned of it, or it could not be
            written.
        why_no_figure: Why it could not be written; None where it was, or there is none.
    """

    calibration_map: Path
    figure: Path | None = None
    why_no_figure: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class CalibrationResult:
    """What :func:`calibrate` has fitted and learned.

    Attributes:
        calibration_map: The map with what it changes, promises and was learned from.
        bad: By nnU-Net's key of each structure that counts, the Dice below which it is bad; None:
            nothing is bad.
        output: Where :meth:`write` writes the map.
    """

    calibration_map: CalibrationMap
    bad: Mapping[str, float] | None
    output: Path

    @cached_property
    def effect(self) -> pd.DataFrame:
        """What the map changes on cases that its fit has not seen, a row for each value, such as
        ``NLL all``.

        Columns: ``before``, ``after`` and ``difference``, the ends ``low`` and ``high`` of the
        difference's 95 % bootstrap interval over patients, and ``n``, the cases where the value is
        defined.
        """
        rows = {}
        for name, change in self.calibration_map.fitted.effect.items():
            difference = change["difference"]
            rows[name] = {
                "before": change["before"]["mean"],
                "after": change["after"]["mean"],
                "difference": difference["mean"],
                "low": difference["low"],
                "high": difference["high"],
                "n": change["n"],
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    @cached_property
    def flags(self) -> Flags | None:
        """What flags of scans that are bad by ``bad`` aim at, and would cost; None without it.

        UserError where too few patients have such a scan.
        """
        learned = self.calibration_map.learned
        if learned is None or not self.bad:
            return None
        return Flags.of(learned.scores, self.bad, self.calibration_map.names)

    @property
    def notes(self) -> list[str]:
        """Caveats, in sentences."""
        return self.calibration_map.origin.notes

    @property
    def failed(self) -> dict[str, str]:
        """By name, why a case could not be used."""
        return self.calibration_map.origin.problems

    def write(self) -> CalibrationFiles:
        """Write the map, and beside it a figure of what flags would cost, which costs itself alone
        if it fails.

        Raises:
            UserError: The map cannot be written; or too few patients have a bad scan, which is
                found when the map is written.
        """
        self.calibration_map.save(self.output)
        learned = self.calibration_map.learned
        if learned is None:
            return CalibrationFiles(self.output)
        from nnunet_nacl.reports.flag_figure import draw_flags  # which loads Matplotlib

        curves = None
        if self.flags is not None and self.bad is not None:
            curves = {self.flags.called_bad: self.bad}
        quality = self.calibration_map.quality or MapQuality()
        recall = {
            self.calibration_map.names[key]: learned for key, learned in quality.recall.items()
        }
        try:
            figure = draw_flags(learned.scores, recall, self.output.with_suffix(".png"), curves)
        except UserError as error:  # of a full disk: the map is whole, and the caller tells it
            return CalibrationFiles(self.output, why_no_figure=str(error))
        return CalibrationFiles(self.output, figure=figure)


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """What :func:`calibrate_model` calibrates on, and how; the arguments of :func:`calibrate` by
    other names.

    Attributes:
        images: Folder of images of one's own, or, without a model, of predictions with their
            probabilities; None: the model's validation cases.
        labels: Ground truth of the images.
        output: The map's file; None: calibration_map.json in the model's, or the predictions',
            folder.
        folds: Of the model; None: all that are trained.
        checkpoint: File in each fold.
        form: One of :data:`~nnunet_nacl.calibration.fitting.FORMS`, or ``auto``.
        groups: Patient of each case: a .json file, or a regular expression; None: each case its
            own.
        device: Of networks, where cases must be predicted: ``cuda``, ``mps``, ``cpu``, or ``auto``,
            the first of these.
        step_size: Of the sliding window, as a share of the patch.
        mirroring: Predict mirrored copies too.
        num_processes: Cases at the same time.
        any_age: Take predictions that are older than the checkpoint.
        training_cases: With ``images``, take cases that the folds were trained on; the map notes
            it.
        dataset_json: Of predictions; None: in their folder or above.
        plans: plans.json, likewise.
    """

    images: str | PathLike | None = None
    labels: str | PathLike | None = None
    output: str | PathLike | None = None
    folds: Sequence[str] | None = None
    checkpoint: str = FINAL
    form: str = "auto"
    groups: str | None = None
    device: str = "auto"
    step_size: float = 0.5
    mirroring: bool = True
    num_processes: int = 1
    any_age: bool = False
    training_cases: bool = False
    dataset_json: Path | None = None
    plans: Path | None = None


def calibrate_model(
    model: str | PathLike | None = None, options: CalibrationOptions = CalibrationOptions()
) -> CalibrationMap:
    """Fit a map as :func:`calibrate` does, and write it. Use that function: this one goes with the
    next version.

    Args:
        model: nnU-Net's model folder; None with ``images`` for a folder of predictions with their
            probabilities.
        options: What it is calibrated on, and how.

    Returns:
        The map with what it changes, promises and was learned from.

    Raises:
        UserError: What was given does not fit, cannot be read, or is too little to calibrate.
    """
    arguments = dict(vars(options))
    arguments["plans_json"] = arguments.pop("plans")
    if model is None:
        arguments["predictions"] = arguments.pop("images")
    result = calibrate(model, **arguments)
    result.calibration_map.save(result.output)
    return result.calibration_map


@python_function()
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
        checkpoint: File in each fold.
        trust_checkpoint: Load all that checkpoints hold, and call what plans.json names, which can
            run code.

    Returns:
        The file that was written into the model's folder.

    Raises:
        UserError: The map is of other networks or structures, or the file cannot be written.
    """
    given = Path(calibration_map)
    Calibrator.of_model(TrainedModel.open(Path(model), folds, checkpoint), given)
    path = Path(model) / MAP_FILE
    check_output_map(path)
    write_atomically(path, given.read_text(encoding="utf-8"))
    return path


def _check_arguments(model: object, images: object, labels: object, predictions: object) -> None:
    if images is not None and model is None:
        raise UserError("images need a model that predicts them; name one, or give predictions.")
    if (model is None) == (predictions is None):
        raise UserError("name a model, or a folder of predictions.")
    if labels is None and (images is not None or predictions is not None):
        raise UserError(f"{images or predictions}: the ground truth of these cases is needed, too.")


def _check_output(map_file: Path) -> None:
    """UserError, before hours of work, where the map cannot be written, or would replace files of
    others."""
    check_output_map(map_file)
    check_ours([map_file.with_suffix(".png")])


def _open_predictions(
    folder: Path,
    labels: str | PathLike | None,
    dataset_json: str | PathLike | None,
    plans_json: str | PathLike | None,
) -> PredictionFolder:
    """A folder of predictions with their ground truth; UserError where they are calibrated
    already."""
    check_folder(folder, "the images, or the predictions")
    _LOG.info("%s is taken for a folder of predictions; name a model, too, for images.", folder)
    if (folder / APPLIED_FILE).is_file():
        raise UserError(f"{folder} is calibrated already; give the folder that it was made from.")
    return PredictionFolder.open(folder, labels, dataset_json=dataset_json, plans=plans_json)


def _measure_predictions(folder: PredictionFolder, num_processes: int) -> HeldOut:
    """The records of a folder of predictions."""
    work = Work(settings=_settings([folder.folder], folder), with_sample=True)
    return measure_folders({"": folder}, work, jobs=num_processes, title="measure")


def _measure_validation(
    model: TrainedModel, network: NetworkSettings, any_age: bool, num_processes: int
) -> HeldOut:
    """The records of a model's validation cases, which are predicted where they must be."""
    if "all" in model.folds:
        raise UserError(
            "fold all was trained on every case, its validation cases too: nothing is held out."
            " Name trained folds, such as 0 1 2 3 4, or give images of your own with their ground"
            " truth."
        )
    folders = [
        validation_folder(model.folder / f"fold_{fold}", model.checkpoint) for fold in model.folds
    ]
    work = Work(settings=_settings(folders, model.opened), with_sample=True)
    return measure_validation(
        model, network.on_present_device(), work, jobs=num_processes, any_age=any_age
    )


def _measure_own_images(
    model: TrainedModel,
    network: NetworkSettings,
    images: Path,
    labels: Path,
    map_file: Path,
    training_cases: bool,
    num_processes: int,
) -> HeldOut:
    """The records of images with ground truth, which all folds predict together; they lie beside
    the map."""
    check_folder(images, "the images, or the predictions")
    records, folds = map_file.with_name(f"{map_file.stem}_records"), ", ".join(model.folds)
    _LOG.info(
        "%s is taken for images: folds %s predict them; records go to %s.", images, folds, records
    )
    work = Work(settings=_settings([model.folder], model.opened), with_sample=True)
    source = Images.find(model, network.on_present_device(), images, references=labels)
    return measure_images(source, records, work, jobs=num_processes, training_cases=training_cases)


def _settings(folders: Sequence[Path], data: PredictionFolder) -> EvaluationSettings:
    """What is measured: as in the records that are there, so that a user's choice is kept, else the
    default."""
    for folder in folders:
        settings = kept_settings(folder)
        if settings is not None:
            return settings
    return data.settings


def _map_of_folds(
    model: TrainedModel, held_out: HeldOut, inference: Mapping[str, Any]
) -> FoldsMap | None:
    """The map of the model's validation cases, towards which one of own images is shrunk; None
    where there is none."""
    networks = dict(zip(model.folds, model.hashes))
    return map_of_folds(model.folder / MAP_FILE, held_out.labels, networks, inference)


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
    if any(score.form == "given" for score in calibration_map.fitted.forms):
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
        " predicted of Dice, volumes and presence, and -recall, stay what the model's validation"
        " cases taught."
    )


def _with_profiles(
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
    return quality, [
        f"what these scans look like was not learned, so none will be said to be unlike them: {why}"
    ]
