"""Calibrates a model, or a folder of predictions: finds or makes the records, fits the map to them and writes it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.calibrator.calibration_map import FEWEST_CASES, CalibrationMap
from nnunet_nacl.calibrator.effect import changes, pooled_changes
from nnunet_nacl.calibrator.map_file import APPLIED_FILE, MAP_FILE, check_output_map, map_of_folds
from nnunet_nacl.calibrator.map_parts import MapQuality
from nnunet_nacl.cases.case import MASKS
from nnunet_nacl.cases.groups import detected_in, read_groups
from nnunet_nacl.cases.measure import under
from nnunet_nacl.cases.record import CaseRecord, scores, table
from nnunet_nacl.errors import UserError, list_problems
from nnunet_nacl.files import check_folder
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
from nnunet_nacl.quality.flags import patients_needed
from nnunet_nacl.quality.learned_quality import DEFAULT_ALPHA, learn
from nnunet_nacl.quality.presence import learn_presence
from nnunet_nacl.quality.recall import learn_recall

PREDICTED_DICE_ERROR = "predicted Dice error"
"""Key of ``effect``: the mean over a case's structures of |expected - true Dice| of nnU-Net's labels."""


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """What a model, or predictions, are calibrated on, and how.

    Attributes:
        images: Folder of images of one's own, or, without a model, of predictions with their probabilities; None: the
            model's validation cases.
        labels: Ground truth of the images.
        output: The map's file; None: calibration_map.json in the model's, or the predictions', folder.
        folds: Of the model; None: all that are trained.
        checkpoint: File in each fold.
        form: One of :data:`~nnunet_nacl.calibration.fitting.FORMS`, or ``auto``.
        groups: Patient of each case: a .json file, or a regular expression; None: each case its own.
        device: Of networks, where cases must be predicted: ``cuda``, ``mps``, ``cpu``, or ``auto``, the first of these.
        step_size: Of the sliding window, as a share of the patch.
        mirroring: Predict mirrored copies too.
        num_processes: Cases at the same time.
        any_age: Take predictions that are older than the checkpoint.
        training_cases: With ``images``, take cases that the folds were trained on; the map notes it.
        dataset_json: Of predictions; None: in their folder or above.
        plans: Likewise.
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
    """Fit a map to cases that the network was not trained on, and write it; bars on stderr show the progress.

    What is predicted is logged to ``nnunet_nacl.calibrator`` and ``nnunet_nacl.nnunet`` (level INFO).

    Args:
        model: nnU-Net's model folder, TRAINER__PLANS__CONFIGURATION: its validation cases, or with ``images`` these,
            predicted by its folds. None with ``images`` for a folder of predictions with their probabilities.
        options: What it is calibrated on, and how.

    Returns:
        The map with what it changes, promises and was learned from; ``problems`` has the cases that could not be used.

    Raises:
        UserError: What was given does not fit, cannot be read, or is too little to calibrate.

    Examples:
        >>> from nnunet_nacl import CalibrationOptions
        >>> calibration = calibrate_model(model_folder, CalibrationOptions(device="cpu"))
        >>> change = calibration.fitted.effect["NLL all"]  # on cases that the fit has not seen
        >>> change["after"]["mean"] < change["before"]["mean"]
        True
    """
    if model is None and options.images is None:
        raise UserError("name a model, or a folder of predictions.")
    place, images = Path(model or ""), options.images
    path = Path(options.output or Path(model or images or "") / MAP_FILE)
    check_output_map(path)
    opened = None if model is None else TrainedModel.open(place, options.folds, options.checkpoint)
    held_out = _held_out(opened, path, options)
    patients = read_groups(options.groups, list(held_out.records)) if options.groups else None
    networks = dict(zip(opened.folds, opened.hashes)) if opened else {}
    inference: Any = inference_of(held_out.records.values()) if opened else {}
    of_folds = map_of_folds(place / MAP_FILE, held_out.labels, networks, inference) if opened and images else None
    centre, taught = of_folds or (None, None)
    record = fit(held_out, patients=patients, form=options.form, centre=centre, as_deployed=images is not None)
    quality, notes = _with_profiles(record, held_out, opened, options.num_processes)
    notes += _notes(record, opened, options)
    needed, n_patients = patients_needed(DEFAULT_ALPHA), len(set(record.fitted.patients))
    if taught and n_patients < needed:
        notes.append(
            f"{n_patients} patients; with fewer than {needed}, what is predicted of Dice, volumes and presence, and "
            "-recall, stay what the model's validation cases taught."
        )
        quality = taught
    origin = replace(
        record.origin,
        source=str(model or Path(images or "").resolve()),
        folds=sorted(set(held_out.fold.values())),
        inference=inference,
        checkpoint_sha256=networks,
        versions={package: version(package) for package in ("nnunet_nacl", "nnunetv2", "torch")},
        settings=held_out.settings,
        notes=notes,
        problems=held_out.problems,
    )
    record = replace(record, quality=quality, origin=origin)
    record.save(path)
    return record


def _held_out(model: TrainedModel | None, path: Path, options: CalibrationOptions) -> HeldOut:
    """The records of the cases that a map for ``path`` is fitted to, which are predicted where they must be."""
    jobs, images, labels = options.num_processes, Path(options.images or ""), Path(options.labels or "")
    if options.images is not None:
        check_folder(images, "the images, or the predictions")
        if options.labels is None:
            raise UserError(f"{images}: the ground truth of these cases is needed, too.")
    if model is None:
        _LOG.info("%s is taken for a folder of predictions; name a model (-d, -c) for images.", images)
        if (images / APPLIED_FILE).is_file():
            raise UserError(f"{images} is calibrated already; give the folder that it was made from.")
        data = PredictionFolder.open(images, labels, dataset_json=options.dataset_json, plans=options.plans)
    else:
        data = model.opened
    places = [data.folder]
    if model and options.images is None:
        if "all" in model.folds:
            raise UserError(
                "fold all was trained on every case, its validation cases too: nothing is held out. Give trained folds "
                "(-f 0 1 2 3 4), or cases of your own (-i IMAGES -gt LABELS -d ... -c ...)."
            )
        places = [validation_folder(model.folder / f"fold_{fold}", model.checkpoint) for fold in model.folds]
    work = Work(settings=next(filter(None, map(kept_settings, places)), data.settings), with_sample=True)
    network = NetworkSettings(device=options.device, step_size=options.step_size, mirroring=options.mirroring)
    if model is None:
        return measure_folders({"": data}, work, jobs=jobs, title="measure")
    if options.images is None:
        return measure_validation(model, network, work, jobs=jobs, any_age=options.any_age)
    records, folds = path.with_name(f"{path.stem}_records"), ", ".join(model.folds)
    _LOG.info("%s is taken for images: folds %s predict them; records go to %s.", images, folds, records)
    source = Images.find(model, network, images, references=labels)
    return measure_images(source, records, work, jobs=jobs, training_cases=options.training_cases)


def _notes(record: CalibrationMap, model: TrainedModel | None, options: CalibrationOptions) -> list[str]:
    notes = []
    if options.training_cases:
        notes.append(
            "cases that these networks were trained on were allowed; what is said of such cases flatters them."
        )
    if model and model.previous_stage:
        notes.append("cascade: this map is for its last stage; the stage before is predicted as ever.")
    if any(each.form == "given" for each in record.fitted.forms):
        notes.append("the map is shrunk towards that of the model's validation cases, as far as these cases allow.")
    return notes


def _with_profiles(
    record: CalibrationMap, held_out: HeldOut, model: TrainedModel | None, num_processes: int
) -> tuple[MapQuality | None, list[str]]:
    """What was learned, with what the scans look like; and why that is not known."""
    if record.quality is None or record.quality.why_not:
        return record.quality, []
    why = "predictions alone do not tell; name the model (-d, -c), and give images"
    if model:
        records = [held_out.records[case] for case in record.fitted.part_of]
        try:
            profiles = learn_profiles(records, record.fitted.patients, model, num_processes=num_processes)
            return replace(record.quality, profiles=profiles), []
        except UserError as error:
            why = str(error)
    return record.quality, [
        f"what these scans look like was not learned, so none will be said to be unlike them: {why}"
    ]


def fit(
    held_out: HeldOut,
    *,
    patients: Mapping[str, str] | None = None,
    form: str = "auto",
    centre: LogOddsMap | None = None,
    as_deployed: bool = False,
) -> CalibrationMap:
    """Fit a map to samples of held-out cases, and measure what it changes on cases that its fit has not seen.

    What a map makes of a case follows from its sample. What the map's file says of the networks and the source of the
    cases is for the caller to add.

    Args:
        held_out: The cases; each record has a sample.
        patients: Patient of each case; None: each case its own.
        form: See :meth:`CalibrationMap.of_voxels`, as of ``centre``.
        centre: A map that was not fitted to these cases, towards which theirs is shrunk.
        as_deployed: Whether the cases were predicted as the model is used.

    Raises:
        UserError: There are fewer than ``FEWEST_CASES`` cases, or all are of one patient.
    """
    records, labels = held_out.records, held_out.labels
    if len(records) < FEWEST_CASES:
        raise UserError(
            f"{len(records)} held-out cases are too few to calibrate, it takes {FEWEST_CASES}; add folds or "
            f"cases.{list_problems(held_out.problems)}"
        )
    voxels = {case: record.sample.voxels() for case, record in records.items() if record.sample}
    more: dict[str, Any] = {"folds": held_out.fold, "prior_map": centre, "progress": True}
    made = CalibrationMap.of_voxels(voxels, labels.structures, form=form, patients=patients, **more)
    part_maps, of_each = made.part_maps, patients or {case: case for case in records}
    before, after = list(records.values()), [under(record, part_maps[case]) for case, record in records.items()]
    groups = [patients[case] for case in records] if patients else None
    old, new = ([record.bins["predicted"] for record in side] for side in (before, after))
    effect = pooled_changes(old, new, groups) | changes(_values(before), _values(after), groups)
    recall = learn_recall(table(before), [each.addable for each in before if each.addable is not None], of_each)
    rows, ignores = table(after), labels.ignore_label is not None
    if len(units := sorted(set(rows.unit))) != 1:  # calibration does not fail by it
        quality = MapQuality(why_not=f"volumes are in {' and '.join(units)}", recall=recall)
    else:
        learned = learn(rows, of_each, made.fitted.part_of, as_deployed=as_deployed, ignore_label=ignores)
        quality = MapQuality(unit=units[0], learned=learned, presence=learn_presence(rows, of_each), recall=recall)
    return replace(
        made, quality=quality, fitted=replace(made.fitted, effect=effect, detected=detected_in(table(before)))
    )


def _values(records: list[CaseRecord]) -> pd.DataFrame:
    """A row a case with what calibration may change: scores on each mask, and the error of predicted Dice."""
    found, cases = scores(records), table(records)
    values = {
        f"{metric} {mask}": found[f"{metric}:{mask}"].to_numpy() for mask in MASKS for metric in ("ECE", "NLL", "Brier")
    }
    errors = (cases.predicted_dice - cases.Dice).abs().groupby(cases.case, sort=False).mean()
    return pd.DataFrame({**values, PREDICTED_DICE_ERROR: errors.to_numpy()})
