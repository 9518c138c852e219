"""`calibrate`: fits a calibration map to cases that the networks were not trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path

from nnunet_nacl.calibration.calibration_map import CalibrationMap, check_form
from nnunet_nacl.calibration.calibration_result import CalibrationResult
from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.calibration.fit import check_enough, fit_held_out
from nnunet_nacl.calibration.map_file import (
    APPLIED_FILE,
    MAP_FILE,
    check_output_map,
    load_prior_map,
    map_file_of,
)
from nnunet_nacl.calibration.map_parts import MapQuality, Origin
from nnunet_nacl.cases.groups import read_groups
from nnunet_nacl.estimators.bad_limits import check_bad, read_bad
from nnunet_nacl.estimators.crossfit import PRIOR_FORM
from nnunet_nacl.estimators.intervals import DEFAULT_ALPHA
from nnunet_nacl.estimators.risk_control import patients_needed
from nnunet_nacl.nnunet.held_out import HeldOut, learn_profiles
from nnunet_nacl.nnunet.held_out_cases import (
    HeldOutCases,
    ImagesOfModel,
    SavedCases,
    ValidationOfModel,
)
from nnunet_nacl.nnunet.predicted import on_present_device
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.nnunet.trust import trusting
from nnunet_nacl.settings import (
    FINAL,
    BadSpec,
    FitSettings,
    GivenCases,
    NetworkSettings,
    settings_of,
)
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import check_folder, check_ours, write_atomically

_LOG = logging.getLogger(__name__)


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
        model, images, labels, predictions, dataset_json, plans_json: Where the cases come from, see
            :class:`~nnunet_nacl.settings.GivenCases`.
        folds, checkpoint, device, step_size, mirroring, trust_checkpoint: Which networks predict
            where cases must be predicted, and how, see
            :class:`~nnunet_nacl.settings.NetworkSettings`.
        form, groups, bad, structures, any_age, training_cases, output, num_processes: How the map
            is fitted, see :class:`~nnunet_nacl.settings.FitSettings`.

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
    arguments = locals()
    return calibrate_cases(
        settings_of(GivenCases, arguments),
        settings_of(NetworkSettings, arguments),
        settings_of(FitSettings, arguments),
    )


def calibrate_cases(
    given: GivenCases, network: NetworkSettings, fit: FitSettings
) -> CalibrationResult:
    """The recipe of :func:`calibrate`, with its settings collected."""
    _check_given(given)
    check_bad(fit.bad, structures=fit.structures)
    check_form(fit.form)
    map_name = MAP_FILE if given.model is None else map_file_of(network.checkpoint)
    map_file = Path(fit.output or Path(given.model or given.predictions or "") / map_name)
    _check_output(map_file)
    with trusting(network.trust_checkpoint):
        cases = _choose_cases(given, network, fit, map_file)
        bad = read_bad(fit.bad, cases.dataset.labels.structures, fit.structures)
        _check_known(cases, fit.groups)

        work = Work(settings=cases.kept_settings, with_sample=True)
        held_out = cases.measure(work, fit.num_processes)
        patients = read_groups(fit.groups, list(held_out.records)) if fit.groups else None

        folds_map = _find_prior_map(cases, held_out)
        fitted_map = fit_held_out(
            held_out,
            patients=patients,
            form=fit.form,
            prior_map=None if folds_map is None else folds_map.calibration(),
            as_deployed=cases.is_predicted_as_deployed,
        )
        quality, notes = _learn_profiles(fitted_map, held_out, cases.model, fit.num_processes)
    notes += _notes(fitted_map, cases.model, fit.training_cases)
    quality_of_folds = None if folds_map is None else folds_map.quality
    # what few patients teach of Dice is worth less than what the validation cases taught
    if quality_of_folds is not None and _has_few_patients(fitted_map):
        quality = quality_of_folds
        notes.append(_few_patients_note(fitted_map))
    origin = _make_origin(fitted_map, held_out, cases, given, notes)
    calibration_map = replace(fitted_map, quality=quality, origin=origin)
    return CalibrationResult(calibration_map=calibration_map, bad=bad, output=map_file)


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
    with trusting(trust_checkpoint):
        Calibrator.of_model(TrainedModel.open(Path(model), folds, checkpoint), map_of_others)
    path = Path(model) / map_file_of(checkpoint)
    check_output_map(path)
    write_atomically(path, map_of_others.read_text(encoding="utf-8"))
    return path


def _check_given(given: GivenCases) -> None:
    """UserError for what does not go together, or is no folder. This comes first: the check whether
    a map can be written would make a folder that is missing."""
    own_cases = given.images or given.predictions
    if given.images is not None and given.model is None:
        raise UserError("images need a model that predicts them; name one, or give predictions.")
    if (given.model is None) == (given.predictions is None):
        raise UserError("name a model, or a folder of predictions.")
    if given.labels is None and own_cases is not None:
        raise UserError(f"{own_cases}: the ground truth of these cases is needed, too.")
    if given.model is not None:
        check_folder(Path(given.model), "the model, TRAINER__PLANS__CONFIGURATION")
    if own_cases is not None:
        check_folder(Path(own_cases), "the images, or the predictions")


def _choose_cases(
    given: GivenCases, network: NetworkSettings, fit: FitSettings, map_file: Path
) -> HeldOutCases:
    """Saved predictions, a model's validation cases, or images that it predicts."""
    if given.model is None:
        return _open_predictions(given)
    model = TrainedModel.open(Path(given.model), network.folds, network.checkpoint)
    if given.images is None:
        return ValidationOfModel(model, on_present_device(network), any_age=fit.any_age)
    return ImagesOfModel(
        model,
        on_present_device(network),
        Path(given.images),
        Path(given.labels or ""),
        records=map_file.with_name(f"{map_file.stem}_records"),
        training_cases=fit.training_cases,
    )


def _check_known(cases: HeldOutCases, groups: str | None) -> None:
    """UserError, before hours of work, where there are too few cases or patients, or the map that
    theirs is shrunk towards is damaged."""
    names, problems = cases.find()
    if names:  # else whoever measures them says what is wrong
        check_enough(names, read_groups(groups, names), problems)
    if cases.model is not None and cases.is_predicted_as_deployed:
        path = cases.model.folder / map_file_of(cases.model.checkpoint)
        if path.is_file():
            CalibrationMap.load(path)


def _open_predictions(given: GivenCases) -> SavedCases:
    """A folder of predictions; UserError where they are calibrated already."""
    folder = Path(given.predictions or "")
    if (folder / APPLIED_FILE).is_file():
        raise UserError(f"{folder} is calibrated already; give the folder that it was made from.")
    opened = PredictionFolder.open(
        folder,
        given.labels,
        dataset_json=given.dataset_json,
        plans=given.plans_json,
        need_probabilities=True,
    )
    _LOG.info("%s is taken for a folder of predictions; name a model, too, for images.", folder)
    return SavedCases(str(folder), {"": opened})


def _find_prior_map(cases: HeldOutCases, held_out: HeldOut) -> CalibrationMap | None:
    """The map of a model's validation cases, towards which that of images is shrunk; None where
    there is none, or these are the cases."""
    model = cases.model
    if model is None or not cases.is_predicted_as_deployed:
        return None
    checksums = dict(zip(model.folds, model.hashes))
    inference = cases.inference(held_out)
    path = model.folder / map_file_of(model.checkpoint)
    return load_prior_map(path, held_out.labels, checksums, inference)


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
    calibration_map: CalibrationMap,
    held_out: HeldOut,
    cases: HeldOutCases,
    given: GivenCases,
    notes: list[str],
) -> Origin:
    """Where the cases come from, for the map's file."""
    checksums: dict[str, str] = {}
    source = str(Path(given.predictions or "").resolve())
    if cases.model is not None:
        checksums = dict(zip(cases.model.folds, cases.model.hashes))
        source = str(given.model)
    return replace(
        calibration_map.origin,
        source=source,
        folds=sorted(set(held_out.fold.values())),
        inference=cases.inference(held_out),
        checkpoint_sha256=checksums,
        versions={package: version(package) for package in ("nnunet_nacl", "nnunetv2", "torch")},
        settings=held_out.settings,
        notes=notes,
        problems=held_out.problems,
    )
