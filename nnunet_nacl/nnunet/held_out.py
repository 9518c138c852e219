"""Records of cases that a network was not trained on: found, made from saved probabilities, or predicted for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.case import Case, EvaluationSettings
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.case.record import RECORDS, CaseRecord, find_record
from nnunet_nacl.errors import UserError, list_problems
from nnunet_nacl.files import can_write, check_writable, remove_leftovers
from nnunet_nacl.json_files import decode
from nnunet_nacl.nnunet.image_files import RERUN
from nnunet_nacl.nnunet.input_cases import find_input_cases
from nnunet_nacl.nnunet.locate import predicted_folder, records_in, validation_folder
from nnunet_nacl.nnunet.output import write_case
from nnunet_nacl.nnunet.predicted import Images, ValidationCases
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.nnunet.records import SavedPredictions, Work, recorded_cases, records_of
from nnunet_nacl.nnunet.trained_model import FINAL, TrainedModel

NNUNETS_OWN: dict[str, Any] = {"step_size": 0.5, "mirroring": True}
"""How nnU-Net predicts validation cases."""


@dataclass
class HeldOut:
    """Cases that the network was not trained on.

    Attributes:
        labels: Their structures.
        records: By case, in order.
        fold: Of each case; empty where it is of a folder of predictions.
        problems: By name, why there is no record of other cases, or of a whole fold.
        settings: What was measured.
        folders: Of the predictions, by fold; none of images that were predicted for this.
    """

    labels: Labels
    settings: EvaluationSettings = EvaluationSettings()
    records: dict[str, CaseRecord] = field(default_factory=dict)
    fold: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    folders: dict[str, PredictionFolder] = field(default_factory=dict)

    def add(self, fold: str, outcomes: Mapping[str, CaseRecord | str]) -> None:
        """Take the records of a fold; UserError where a case lies in two."""
        for name, outcome in sorted(outcomes.items()):
            if isinstance(outcome, str):
                self.problems[name] = outcome
                continue
            if name in self.records:
                raise UserError(
                    f"case {name} lies in more than one of the folds {self.fold[name]} and {fold}; fold_all and "
                    "leftover predictions cannot be pooled with folds that hold the same cases."
                )
            self.records[name], self.fold[name] = outcome, fold

    @property
    def made_by(self) -> dict[str, Any]:
        """How the cases were predicted, as far as it is known: ``step_size`` and ``mirroring``."""
        known = [record.made_by for record in self.records.values() if record.made_by]
        return {name: known[0][name] for name in NNUNETS_OWN if name in known[0]} if known else {}


def records_folder(folder: Path, beside: Path | None = None) -> Path | None:
    """Where the records of a folder of predictions lie; in ``beside``, or nowhere, if nothing can be written there."""
    return records_in(folder) if can_write(folder) else beside and beside / RECORDS


def kept_settings(folder: Path) -> EvaluationSettings | None:
    """As the cases of a folder of predictions that have a record were measured; None where none has one."""
    place = records_in(folder)
    for case in sorted(recorded_cases(folder)):
        if record := find_record(place, case):
            return decode(EvaluationSettings, record.key["settings"].get("measured"), place, fix="delete this folder")
    return None


def measure_folder(
    folder: PredictionFolder,
    work: Work,
    records: Path | None,
    *,
    jobs: int = 1,
    chill: bool = True,
    title: str = "",
) -> dict[str, CaseRecord | str]:
    """The record of each case of a folder of predictions, by name, or the line that says why there is none.

    Args:
        folder: With its ground truth.
        work: What is measured.
        records: Folder of the records; None keeps none.
        jobs: Cases at the same time; 1 starts no process.
        chill: Do not report expected cases that have no prediction.
        title: Of the progress bar; empty shows none.

    Raises:
        UserError: The folder as a whole cannot be used.
    """
    known = {path.stem for path in records.glob("*.npz")} if records else set[str]()
    source = SavedPredictions(folder, chill=chill, known=known)
    if not known and not any(folder.folder.glob("*.npz")):  # once, not once for every case
        swapped = folder.reference_folder is not None and any(folder.reference_folder.glob("*.npz"))
        fix = f"those of {folder.reference_folder} have: give the ground truth first" if swapped else RERUN
        raise UserError(f"{folder.folder}: its predictions have no probabilities (there is no *.npz); {fix}.")
    return source.problems | dict(records_of(source, work, records, jobs=jobs, title=title))


def measure_folders(
    folders: Mapping[str, PredictionFolder],
    work: Work,
    *,
    beside: Path | None = None,
    jobs: int = 1,
    chill: bool = True,
    progress: bool = False,
) -> HeldOut:
    """The records of several folds' folders of predictions; what is wrong with a whole fold costs only itself.

    Args:
        folders: By fold; a single folder of predictions may have the empty name.
        work: What is measured.
        beside: Folder whose ``records`` are taken where nothing can be written into that of the predictions, or where
            a map is measured, which is not to replace what is known of the predictions as they are.
        jobs: Cases at the same time.
        chill: Do not report expected cases that have no prediction.
        progress: Show a bar on stderr for each fold.

    Raises:
        UserError: No case could be measured.
    """
    result, failed = HeldOut(next(iter(folders.values())).labels, work.settings, folders=dict(folders)), []
    for fold, folder in folders.items():
        place = records_folder(folder.folder, beside)
        if work.calibration is not None:
            place = beside and beside / RECORDS
        title = f"fold {fold}" if fold else "measure"
        try:
            found = measure_folder(folder, work, place, jobs=jobs, chill=chill, title=title if progress else "")
        except UserError as error:
            failed.append(str(error))
            result.problems[f"fold {fold}"] = str(error)
            continue
        result.add(fold, found)
    if not result.records:
        name = next(iter(folders.values())).folder
        raise UserError("\n".join(failed) or f"{name}: no case could be evaluated.{list_problems(result.problems)}")
    return result


@dataclass(frozen=True)
class WriteAndMeasure(Work):
    """Work on a predicted validation case: its segmentation is written into ``folder`` if it is not there yet."""

    folder: PredictionFolder | None = None

    def __call__(self, case: Case) -> CaseRecord:
        """The record of a case, once its segmentation is written.

        Raises:
            UserError: Another segmentation of the case lies there, or it cannot be written.
        """
        folder = self.folder
        assert folder is not None
        path = folder.folder / f"{case.name}{folder.file_ending}"
        if not path.is_file():
            write_case(folder, case, folder.folder)
        elif not np.array_equal(folder.read_labels(path)[0], case.segmentation):
            raise UserError(
                f"{path} is not what this network predicts; remove it, or predict again with `--val --npz`."
            )
        return super().__call__(case)


def check_held_out(folds: Sequence[str]) -> None:
    """UserError where fold all is among them."""
    if "all" in folds:
        raise UserError(
            "fold all was trained on every case, its validation cases too: nothing is held out. Give trained folds "
            "(-f 0 1 2 3 4), or cases of your own (-i IMAGES -gt LABELS -d ... -c ...)."
        )


def measure_validation(
    model: TrainedModel,
    network: Mapping[str, Any],
    work: Work,
    *,
    jobs: int = 1,
    any_age: bool = False,
    log: Callable[[str], None] = print,
) -> HeldOut:
    """The records of a model's validation cases; where neither probabilities nor records were kept, they are predicted.

    Where nnU-Net's ``validation/`` lacks those of some cases only, these alone are predicted.

    Args:
        model: The model. nnU-Net's ``validation/`` is that of checkpoint_final.pth; other checkpoints predict.
        network: Arguments of :class:`~nnunet_nacl.nnunet.network.Network` beside the model.
        work: What is measured; with the settings of the records that are there already.
        jobs: Cases measured at the same time.
        any_age: Take predictions that are older than the checkpoint, where nobody knows which network made them.
        log: Takes a line that says what is predicted.

    Raises:
        UserError: A fold was trained on every case, or was predicted otherwise than the others or by another network.
    """
    check_held_out(model.folds)
    places = [model.folder / f"fold_{fold}" for fold in model.folds]
    places = [
        validation_folder(fold) if model.checkpoint == FINAL else predicted_folder(fold, model.checkpoint)
        for fold in places
    ]
    work = replace(work, settings=next(filter(None, map(kept_settings, places)), work.settings))
    result, asked = HeldOut(model.labels, work.settings), {name: network[name] for name in NNUNETS_OWN}
    kept: dict[str, tuple[PredictionFolder, dict[str, CaseRecord | str]]] = {}
    for fold, digest in zip(model.folds, model.hashes):
        if found := _kept(model, fold, digest, work, jobs):
            kept[fold] = found
    inference = {fold: _inference(records) for fold, (_, records) in kept.items()}
    inference |= {fold: asked for fold in model.folds if fold not in kept}
    _check_alike(inference, model)
    lost = {
        fold: [
            name
            for name, found in records.items()
            if isinstance(found, str) and not (folder.folder / f"{name}.npz").is_file()
        ]
        for fold, (folder, records) in kept.items()
    }
    if todo := [fold for fold in model.folds if fold not in kept or lost[fold]]:
        log(
            f"folds {', '.join(todo)}: not all validation cases have probabilities or records of this version by "
            f"{model.checkpoint}. Those not predicted by an earlier run are predicted on {network['device']}; the bar "
            "shows the time left."
        )
    for fold, digest in zip(model.folds, model.hashes):
        if fold in kept:
            folder, records = kept[fold]
            _check_made_by(model, fold, digest, records, any_age)
            if lost[fold]:
                options = {**network, **inference[fold]}
                records |= predict_validation(model, fold, options, work, folder=folder, names=lost[fold], jobs=jobs)
        else:
            folder, records = open_predicted(model, fold), predict_validation(model, fold, network, work, jobs=jobs)
        result.folders[fold] = folder
        result.add(fold, records)
    return result


def predict_validation(
    model: TrainedModel,
    fold: str,
    network: Mapping[str, Any],
    work: Work,
    *,
    folder: PredictionFolder | None = None,
    names: Sequence[str] = (),
    jobs: int = 1,
) -> dict[str, CaseRecord | str]:
    """Predict validation cases of a fold; what an earlier run has finished is not done again.

    Args:
        model: The model.
        fold: One of its folds; ``all``: every case.
        network: Arguments of :class:`~nnunet_nacl.nnunet.network.Network` beside the model.
        work: What is measured.
        folder: Of the predictions; None: ``fold_X/validation_<checkpoint>``.
        names: Of the cases; none: all of the fold's split.
        jobs: Cases measured at the same time, while the next is predicted; 1 starts no process.

    Raises:
        UserError: The split or the preprocessed cases are missing, or the folder holds predictions of something else.
    """
    folder = folder or open_predicted(model, fold)
    names = names or folder.expected or ()
    if not names:
        raise UserError(f"fold {fold} is in no splits_final.json of {folder.plans.get('dataset_name')}; see -f.")
    source = ValidationCases(model, network, fold, folder, names)
    place = folder.folder / RECORDS
    remove_leftovers(folder.folder)
    # what another checkpoint of this name, or other settings, predicted is removed; one that a kill left without its
    # record must be what this network predicts
    for name in names:
        record, path = find_record(place, name), source.path(name)
        if folder.folder.name != "validation" and path.is_file() and record is not None:
            if not record.made_by:
                raise UserError(f"{folder.folder} holds predictions of something else ({path.name}); move them away.")
            if record.made_by != source.made_by:
                path.unlink()
    writing = WriteAndMeasure(work.calibration, work.settings, work.with_sample, folder=folder)
    return dict(records_of(source, writing, place, jobs=jobs, title=f"predict fold {fold}"))


def measure_images(
    model: TrainedModel,
    network: Mapping[str, Any],
    images: Path,
    references: Path,
    records: Path,
    work: Work,
    *,
    jobs: int = 1,
) -> HeldOut:
    """Predict labelled images by all folds of a model, and measure them; what an earlier run finished is kept.

    Args:
        model: The model.
        network: Arguments of :class:`~nnunet_nacl.nnunet.network.Network` beside the model.
        images: Folder of images, CASE_0000 and so on.
        references: Folder of their label maps.
        records: Folder of the records.
        work: What is measured.
        jobs: Cases measured at the same time, while the next is predicted; 1 starts no process.

    Raises:
        UserError: The model is a cascade, a folder cannot be used, or no image has a label map.
    """
    if model.previous_stage:
        raise UserError(
            f"{model.folder.name} is a cascade, which needs segmentations of {model.previous_stage} beside images: "
            "predict them with nnUNetv2_predict ... --save_probabilities, and give that folder without a model."
        )
    ending = model.opened.file_ending
    cases, problems = find_input_cases(images, model.opened)
    labelled = [case for case in cases if (references / f"{case.case}{ending}").is_file()]
    if not labelled:
        none = f"{references}: holds the label map (CASE{ending}) of none of the {len(cases)} images."
        raise UserError(none + list_problems(problems))
    check_writable(records / "case.npz")
    source = Images(model, network, labelled, references=references)
    result = HeldOut(model.labels, work.settings, problems=problems)
    result.add("", dict(records_of(source, work, records, jobs=jobs, title="predict")))
    return result


def _kept(
    model: TrainedModel, fold: str, digest: str, work: Work, jobs: int
) -> tuple[PredictionFolder, dict[str, CaseRecord | str]] | None:
    """A fold's folder of predictions with what can be had of its cases without a network; None where nothing can."""
    if model.checkpoint == FINAL:
        try:
            folder = find_fold_folders(model.folder, [fold])[fold]
        except UserError:
            return None
    elif predicted_folder(model.folder / f"fold_{fold}", model.checkpoint).is_dir():
        folder = open_predicted(model, fold)
    else:
        return None
    place = records_folder(folder.folder)
    known = recorded_cases(folder.folder)
    if not known and not any(folder.folder.glob("*.npz")):
        return None
    source = SavedPredictions(folder, known=known)
    found = dict(records_of(source, work, place, jobs=jobs, title="measure"))
    usable = [record for record in found.values() if isinstance(record, CaseRecord)]
    expected = folder.expected or list(found)
    if folder.folder.name != "validation":
        usable = [record for record in usable if record.made_by.get("checkpoint") == digest]
        found = {record.case: record for record in usable}
    if not usable:
        return None
    missing = {name: "it has neither probabilities nor a record" for name in expected if name not in found}
    return folder, {**found, **missing}


def _inference(records: Mapping[str, CaseRecord | str]) -> dict[str, Any]:
    """How the cases of a fold were predicted: as nnU-Net does, unless a record says otherwise."""
    for record in records.values():
        if isinstance(record, CaseRecord) and record.made_by:
            return {name: record.made_by.get(name, value) for name, value in NNUNETS_OWN.items()}
    return dict(NNUNETS_OWN)


def _check_alike(inference: Mapping[str, dict[str, Any]], model: TrainedModel) -> None:
    """UserError where folds were predicted in different ways: a map is fitted to predictions of one kind."""
    first = next(iter(inference))
    if other := next((fold for fold in inference if inference[fold] != inference[first]), None):
        ways = [", ".join(f"{name} {value}" for name, value in inference[fold].items()) for fold in (first, other)]
        raise UserError(
            f"fold {first} is predicted with {ways[0]} and fold {other} with {ways[1]}: a map is fitted to "
            "predictions of one kind. Give -step_size and --disable_tta so that they are the same, or remove "
            f"validation_{model.checkpoint.removesuffix('.pth')}/ of one of them."
        )


def _check_made_by(
    model: TrainedModel, fold: str, digest: str, records: Mapping[str, CaseRecord | str], any_age: bool
) -> None:
    """UserError where another network made the predictions of a fold, or may have made them."""
    checkpoint = model.folder / f"fold_{fold}" / model.checkpoint
    written = checkpoint.stat().st_mtime_ns
    for record in records.values():
        if isinstance(record, str):
            continue
        made_by, files = record.made_by.get("checkpoint"), record.key["files"]
        if made_by not in (None, digest):
            raise UserError(
                f"{record.case} of fold {fold} was predicted by another network than {checkpoint}; predict again with "
                "`nnUNetv2_train ... --val --npz`, or name that network with -chk."
            )
        known = files.get("probabilities") or files.get("segmentation")
        if made_by is None and not any_age and known and known["mtime_ns"] < written:
            raise UserError(
                f"predictions of fold {fold} are older than {model.checkpoint}: this network did not make them. "
                "Predict again with `nnUNetv2_train ... --val --npz`, or pass --any_age if a copy of the folder "
                "changed the times."
            )


def open_predicted(model: TrainedModel, fold: str) -> PredictionFolder:
    """``fold_X/validation_<checkpoint>``, which is made."""
    output = predicted_folder(model.folder / f"fold_{fold}", model.checkpoint)
    output.mkdir(exist_ok=True)
    return PredictionFolder.open(output).with_expected(fold)
