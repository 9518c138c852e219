"""Calibrates a model, or a folder of predictions: finds or makes the records, fits the map and writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path

from nnunet_nacl.calibrate.calibration_map import CalibrationMap, CalibrationSet, Inference
from nnunet_nacl.calibrate.map_file import APPLIED_FILE, MAP_FILE, check_output_map, map_of_folds
from nnunet_nacl.calibrate.workflow import fit, read_groups
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_folder
from nnunet_nacl.nnunet.held_out import (
    HeldOut,
    check_held_out,
    kept_settings,
    measure_folders,
    measure_images,
    measure_validation,
)
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.trained_model import FINAL, TrainedModel, learn_profiles
from nnunet_nacl.numbers.flags import patients_needed
from nnunet_nacl.numbers.learned_quality import DEFAULT_ALPHA


def calibrate_model(
    model: str | PathLike | None = None,
    *,
    images: str | PathLike | None = None,
    labels: str | PathLike | None = None,
    output: str | PathLike | None = None,
    folds: Sequence[str] | None = None,
    checkpoint: str = FINAL,
    form: str = "auto",
    groups: str | None = None,
    device: str = "cuda",
    step_size: float = 0.5,
    mirroring: bool = True,
    num_processes: int = 1,
    any_age: bool = False,
    dataset_json: Path | None = None,
    plans: Path | None = None,
    log: Callable[[str], None] = print,
) -> CalibrationMap:
    """Fit a map to cases that the network was not trained on, and write it; bars on stderr show the progress.

    Args:
        model: nnU-Net's model folder, TRAINER__PLANS__CONFIGURATION: its validation cases, or with ``images`` these,
            predicted by its folds. None with ``images`` for a folder of predictions with their probabilities.
        images: Folder of images of one's own, or of predictions.
        labels: Their ground truth.
        output: The map's file; None: calibration_map.json in the model's, or the predictions', folder.
        folds: Of the model; None: all that are trained.
        checkpoint: File in each fold.
        form: One of :data:`~nnunet_nacl.numbers.fitting.FORMS`, or ``auto``.
        groups: Patient of each case: a .json file, or a regular expression; None: each case its own.
        device: Of networks, where cases must be predicted: ``cuda``, ``cpu`` or ``mps``.
        step_size: Of the sliding window, as a share of the patch.
        mirroring: Predict mirrored copies too.
        num_processes: Cases at the same time.
        any_age: Take predictions that are older than the checkpoint.
        dataset_json: Of predictions; None: in their folder or above.
        plans: Likewise.
        log: Takes a line that says what is predicted.

    Returns:
        The map with what it changes, promises and was learned from; ``problems`` has the cases that could not be used.

    Raises:
        UserError: What was given does not fit, cannot be read, or is too little to calibrate.

    Example:
        >>> calibration = calibrate_model(model_folder, device="cpu", log=lambda line: None)
        >>> change = calibration.fitted.effect["NLL all"]  # on cases that the fit has not seen
        >>> change["after"]["mean"] < change["before"]["mean"]
        True
    """
    place, folder = (None if given is None else Path(given) for given in (model, images))
    if place is None and folder is None:
        raise UserError("name a model, or a folder of predictions.")
    if folder is not None:
        check_folder(folder, "the images, or the predictions")
        if labels is None:
            raise UserError(f"{folder}: the ground truth of these cases is needed, too.")
    else:
        check_held_out(folds or ())
    path = Path(output) if output else (place or folder or Path()) / MAP_FILE
    check_output_map(path)
    network = {"device": device, "step_size": step_size, "mirroring": mirroring}
    opened = TrainedModel.open(place, folds, checkpoint) if place else None
    work, records = Work(with_sample=True), path.with_name(f"{path.stem}_records")
    if opened is None:
        log(f"{folder} is taken for a folder of predictions; name a model (-d, -c) for images.")
        predictions = _open_predictions(folder or Path(), Path(labels or ""), dataset_json, plans)
        work = replace(work, settings=kept_settings(predictions.folder) or work.settings)
        held_out = measure_folders({"": predictions}, work, beside=records.parent, jobs=num_processes, title="measure")
    elif folder is None:
        held_out = measure_validation(opened, network, work, jobs=num_processes, any_age=any_age, log=log)
    else:
        log(f"{folder} is taken for images: folds {', '.join(opened.folds)} predict them; records go to {records}.")
        held_out = measure_images(opened, network, folder, Path(labels or ""), records, work, jobs=num_processes)
    networks = dict(zip(opened.folds, opened.hashes)) if opened else {}
    patients = read_groups(groups, list(held_out.records)) if groups else None
    inference: Inference = {}
    if opened:
        made_by = held_out.inference
        inference = {"step_size": made_by["step_size"], "mirroring": made_by["mirroring"]}
    of_folds = None
    if place and folder:
        known = held_out.labels
        of_folds = map_of_folds(place / MAP_FILE, known.structures, known.regions, networks, inference)
    record = fit(
        held_out.records,
        held_out.labels,
        folds=held_out.fold,
        patients=patients,
        form=form,
        centre=of_folds and of_folds[0],
        as_deployed=folder is not None,
        problems=held_out.problems,
        progress=True,
    )
    record, notes = _with_profiles(record, held_out, opened, num_processes)
    if opened and opened.previous_stage:
        notes.append("cascade: this map is for its last stage; the stage before is predicted as ever.")
    if any(each.form == "given" for each in record.fitted.forms):
        notes.append("the map is drawn to that of the model's validation cases, as far as these cases allow.")
    needed, n_patients = patients_needed(DEFAULT_ALPHA), record.quality.n_patients if record.quality else 0
    if few := of_folds is not None and n_patients < needed:
        notes.append(
            f"{n_patients} patients; with fewer than {needed}, what is predicted of Dice, volumes and presence, and "
            "-recall, stay what the model's validation cases taught."
        )
    origin = replace(
        record.origin,
        source=str(place or (folder or Path()).resolve()),
        folds=sorted(set(held_out.fold.values())),
        inference=inference,
        checkpoint_sha256=networks,
        calibration_set=CalibrationSet.of(record.fitted.part_of, patients, networks),
        versions={package: version(package) for package in ("nnunet_nacl", "nnunetv2", "torch")},
        settings=held_out.settings,
        notes=notes,
        problems=held_out.problems,
    )
    record = replace(record, origin=origin)
    (replace(record, quality=of_folds[1]) if of_folds and few else record).save(path)
    return record


def _open_predictions(folder: Path, labels: Path, dataset_json: Path | None, plans: Path | None) -> PredictionFolder:
    if (folder / APPLIED_FILE).is_file():
        raise UserError(f"{folder} is calibrated already; give the folder that it was made from.")
    return PredictionFolder.open(folder, labels, dataset_json=dataset_json, plans=plans)


def _with_profiles(
    record: CalibrationMap, held_out: HeldOut, model: TrainedModel | None, num_processes: int
) -> tuple[CalibrationMap, list[str]]:
    """The map with what its scans look like; and why that is not known."""
    if record.quality is None or record.quality.why_not:
        return record, []
    why = "predictions alone do not tell; name the model (-d, -c), and give images"
    if model:
        cases = [case for part in record.fitted.cross_fit.values() for case in part.cases]
        patients = [record.fitted.groups.get(case, case) for case in cases]
        try:
            records = [held_out.records[case] for case in cases]
            profiles = learn_profiles(records, patients, model, num_processes=num_processes)
            return replace(record, quality=replace(record.quality, profiles=profiles)), []
        except UserError as error:
            why = str(error)
    return record, [f"what these scans look like was not learned, so none will be said to be unlike them: {why}"]
