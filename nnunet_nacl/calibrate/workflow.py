"""Calibrates a model, or a folder of predictions: finds or makes the records, fits the map to them and writes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_nacl.calibrate.calibration_map import FEWEST_CASES, CalibrationMap, CalibrationSet, MapQuality
from nnunet_nacl.calibrate.effect import changes, pooled_changes
from nnunet_nacl.calibrate.map_file import APPLIED_FILE, MAP_FILE, check_output_map, map_of_folds
from nnunet_nacl.case.case import MASKS, Labels
from nnunet_nacl.case.measure import under
from nnunet_nacl.case.record import CaseRecord, scores, table
from nnunet_nacl.errors import UserError, list_problems, one_line
from nnunet_nacl.files import check_folder
from nnunet_nacl.json_files import decode, read_dict
from nnunet_nacl.nnunet.held_out import (
    HeldOut,
    inference_of,
    kept_settings,
    measure_folders,
    measure_images,
    measure_validation,
)
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.trained_model import FINAL, TrainedModel, learn_profiles
from nnunet_nacl.numbers.crossfit import STRENGTHS, choose, cross_fit, parts_of
from nnunet_nacl.numbers.fitting import AFFINE_FORMS, FORMS
from nnunet_nacl.numbers.flags import patients_needed
from nnunet_nacl.numbers.learned_quality import DEFAULT_ALPHA, learn
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.numbers.overlap import Detected
from nnunet_nacl.numbers.presence import learn_presence
from nnunet_nacl.numbers.recall import learn_recall

PREDICTED_DICE_ERROR = "predicted Dice error"
"""Key of ``effect``: the mean over a case's structures of |expected - true Dice| of nnU-Net's labels."""


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
    device: str = "auto",
    step_size: float = 0.5,
    mirroring: bool = True,
    num_processes: int = 1,
    any_age: bool = False,
    training_cases: bool = False,
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
        device: Of networks, where cases must be predicted: ``cuda``, ``mps``, ``cpu``, or ``auto``, the first of these.
        step_size: Of the sliding window, as a share of the patch.
        mirroring: Predict mirrored copies too.
        num_processes: Cases at the same time.
        any_age: Take predictions that are older than the checkpoint.
        training_cases: With ``images``, take cases that the folds were trained on; the map notes it.
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
    path = Path(output) if output else (place or folder or Path()) / MAP_FILE
    check_output_map(path)
    network = {"device": device, "step_size": step_size, "mirroring": mirroring}
    opened = TrainedModel.open(place, folds, checkpoint) if place else None
    records = path.with_name(f"{path.stem}_records")
    predictions = opened.opened if opened else None
    if predictions is None:
        log(f"{folder} is taken for a folder of predictions; name a model (-d, -c) for images.")
        predictions = _open_predictions(folder or Path(), Path(labels or ""), dataset_json, plans)
    work = Work(settings=kept_settings(predictions.folder) or predictions.settings, with_sample=True)
    if opened is None:
        held_out = measure_folders({"": predictions}, work, jobs=num_processes, title="measure")
    elif folder is None:
        held_out = measure_validation(opened, network, work, jobs=num_processes, any_age=any_age, log=log)
    else:
        log(f"{folder} is taken for images: folds {', '.join(opened.folds)} predict them; records go to {records}.")
        jobs, truth = num_processes, Path(labels or "")
        held_out = measure_images(
            opened, network, folder, truth, records, work, jobs=jobs, training_cases=training_cases
        )
    networks = dict(zip(opened.folds, opened.hashes)) if opened else {}
    patients = read_groups(groups, list(held_out.records)) if groups else None
    inference: Any = inference_of(held_out.records) if opened else {}
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
    if training_cases:
        notes.append(
            "cases that these networks were trained on were allowed; what is said of such cases flatters them."
        )
    if opened and opened.previous_stage:
        notes.append("cascade: this map is for its last stage; the stage before is predicted as ever.")
    if any(each.form == "given" for each in record.fitted.forms):
        notes.append("the map is shrunk towards that of the model's validation cases, as far as these cases allow.")
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


def fit(
    records: Mapping[str, CaseRecord],
    labels: Labels,
    *,
    folds: Mapping[str, str] | None = None,
    patients: Mapping[str, str] | None = None,
    form: str = "auto",
    centre: LogOddsMap | None = None,
    as_deployed: bool = False,
    problems: Mapping[str, str] | None = None,
    progress: bool = False,
) -> CalibrationMap:
    """Fit a map to samples of held-out cases, and measure what it changes on cases that its fit has not seen.

    What a map makes of a case follows from its sample. What the map's file says of the networks and the source of the
    cases is for the caller to add.

    Args:
        records: By case, each with a sample.
        labels: Of the cases.
        folds: Fold of each case, where there are several.
        patients: Patient of each case; None: each case its own.
        form: One of ``FORMS``, or ``auto``: see :func:`nnunet_nacl.numbers.crossfit.choose`.
        centre: A map of the same structures, not fitted to these cases, towards which theirs is drawn; None: their own
            temperature.
        as_deployed: Whether the cases were predicted as the model is used.
        problems: By name, why other cases cannot be used; for the message where there are too few.
        progress: Show a bar on stderr.

    Raises:
        UserError: There are fewer than ``FEWEST_CASES`` cases, or all are of one patient.
    """
    from tqdm import tqdm

    if form not in ("auto", *FORMS):
        raise UserError(f"the form must be auto, {', '.join(FORMS)}, got {form!r}.")
    if len(records) < FEWEST_CASES:
        raise UserError(
            f"{len(records)} held-out cases are too few to calibrate, it takes {FEWEST_CASES}; add folds or "
            f"cases.{list_problems(problems or {})}"
        )
    cases = list(records)
    groups = [patients[case] if patients else case for case in cases]
    if len(set(groups)) < 2:
        raise UserError(f"all cases belong to one patient, {one_line(groups[0])}: nothing is left to test on.")
    several = folds is not None and len(set(folds.values())) > 1
    parts = parts_of(groups, [folds[case] for case in cases] if folds and several else None)
    voxels = [record.sample.voxels() for record in records.values() if record.sample]
    total = (1 + len(set(parts))) * (len(AFFINE_FORMS) + len(STRENGTHS) + (centre is not None))
    with tqdm(total=total, desc="fit, at most", unit="fit", leave=False, disable=not progress) as bar:
        tried = cross_fit(voxels, parts, groups=groups, centre=centre, progress=bar.update)
    chosen = choose(tried, form)
    before = list(records.values())
    after = [under(record, chosen.part_maps[part]) for record, part in zip(before, parts)]
    structures = labels.structures
    rows, of_groups = ["out", "in"] if labels.regions else list(labels.names), dict(zip(cases, groups))
    of_parts, ignore = dict(zip(cases, parts)), labels.ignore_label is not None
    made = CalibrationMap.of_fits(tried, chosen, structures, rows, voxels, of_parts, of_groups if patients else {})
    of_cases = groups if patients else None
    old, new = ([record.bins["predicted"] for record in side] for side in (before, after))
    effect = pooled_changes(old, new, of_cases) | changes(_values(before), _values(after), of_cases)
    recall = learn_recall(table(before), [each.addable for each in before if each.addable is not None], of_groups)
    return replace(
        made,
        fitted=replace(made.fitted, effect=effect, detected=detected_in(table(before))),
        quality=replace(_learn(table(after), of_groups, of_parts, as_deployed, ignore), recall=recall),
    )


def detected_in(cases: pd.DataFrame) -> dict[str, Detected]:
    """By structure, what the segmentations of cases find of it.

    Args:
        cases: A row a case and structure, see :func:`nnunet_nacl.case.record.table`.
    """
    return {
        str(key): Detected.of(rows.Dice, rows.TP + rows.FN > 0, rows.TP + rows.FP > 0)
        for key, rows in cases.groupby("key", sort=False)
    }


def _values(records: list[CaseRecord]) -> pd.DataFrame:
    """A row a case with what calibration may change: scores on each mask, and the error of predicted Dice."""
    found, cases = scores(records), table(records)
    values = {
        f"{metric} {mask}": found[f"{metric}:{mask}"].to_numpy() for mask in MASKS for metric in ("ECE", "NLL", "Brier")
    }
    errors = (cases.predicted_dice - cases.Dice).abs().groupby(cases.case, sort=False).mean()
    return pd.DataFrame({**values, PREDICTED_DICE_ERROR: errors.to_numpy()})


def _learn(
    cases: pd.DataFrame, patients: Mapping[str, str], parts: Mapping[str, str], as_deployed: bool, ignore_label: bool
) -> MapQuality:
    """What held-out cases teach of Dice, volumes and presence, and how it does on cases that it has not seen.

    With ``why_not`` where the volumes of the cases have different units: calibration does not fail by it.
    """
    counts, units = (len(patients), len(set(patients.values()))), sorted(set(cases.unit))
    if len(units) != 1:
        return MapQuality("", *counts, f"volumes are in {' and '.join(units)}")
    learned = learn(cases, patients, parts, as_deployed=as_deployed, ignore_label=ignore_label)
    return MapQuality(units[0], *counts, "", learned, learn_presence(cases, patients))


def read_groups(given: str | None, cases: Sequence[str]) -> dict[str, str]:
    """The group (patient) of each case.

    Args:
        given: A .json file with ``{"case": "patient"}``, or a regular expression that is searched in the case's name
            and whose first group, or whole match, is the patient. None makes each case its own.
        cases: Names.

    Raises:
        UserError: The file or expression cannot be used, or leaves a case without a group.
    """
    if given is None:
        return {case: case for case in cases}
    if given.endswith(".json"):
        fix = "it must be an object with the patient of each case, as text"
        table = decode(dict[str, str | int], read_dict(Path(given)), given, fix=fix)
        found = {case: str(table[case]) if case in table else None for case in cases}
    else:
        try:
            pattern = re.compile(given)
        except re.error as error:
            raise UserError(
                f"-groups {given!r} is neither a .json file nor a regular expression ({error}); "
                "for patient001_frame01 it would be '^(patient[0-9]+)'."
            ) from None
        matches = {case: pattern.search(case) for case in cases}
        found = {case: match and match.group(1 if pattern.groups else 0) for case, match in matches.items()}
    missing = [case for case, group in found.items() if group is None]
    if missing:
        raise UserError(f"-groups {given!r} gives no patient for {len(missing)} cases, {one_line(missing[0])} first.")
    return {case: str(group) for case, group in found.items()}
