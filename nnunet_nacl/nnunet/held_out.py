"""Gets the records of cases that a network was not trained on: reads them, measures predictions, or predicts first."""

from __future__ import annotations

import contextlib
import filecmp
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_nacl.case.case import EvaluationSettings, Labels
from nnunet_nacl.case.record import RECORDS, CaseRecord, find_record
from nnunet_nacl.errors import UserError, list_problems, some
from nnunet_nacl.files import remove_leftovers
from nnunet_nacl.json_files import decode
from nnunet_nacl.nnunet.image_files import RERUN
from nnunet_nacl.nnunet.input_cases import InputCase, find_input_cases
from nnunet_nacl.nnunet.predicted import Images, ValidationCases
from nnunet_nacl.nnunet.prediction_folder import (
    PredictionFolder,
    find_fold_folders,
    predicted_folder,
    recorded_cases,
    records_in,
    splits_of,
    validation_folder,
)
from nnunet_nacl.nnunet.records import SavedPredictions, Work, records_of
from nnunet_nacl.nnunet.trained_model import FINAL, TrainedModel

_LOG = logging.getLogger(__name__)
NNUNETS_OWN: dict[str, Any] = {"step_size": 0.5, "mirroring": True}
"""How nnU-Net predicts validation cases."""


@dataclass
class HeldOut:
    """Cases that the network was not trained on.

    Attributes:
        labels: Their structures.
        settings: What was measured.
        records: By case, in order.
        fold: Of each case; empty where it is of a folder of predictions.
        problems: By name, why there is no record of other cases, or of a whole fold.
    """

    labels: Labels
    settings: EvaluationSettings
    records: dict[str, CaseRecord] = field(default_factory=dict)
    fold: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

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


def inference_of(outcomes: Mapping[str, CaseRecord | str]) -> dict[str, Any]:
    """``step_size`` and ``mirroring`` of cases: nnU-Net's own, unless a record says otherwise."""
    made_by = (outcome.made_by for outcome in outcomes.values() if isinstance(outcome, CaseRecord) and outcome.made_by)
    said = next(made_by, {})
    return {name: said.get(name, value) for name, value in NNUNETS_OWN.items()}


def kept_settings(folder: Path) -> EvaluationSettings | None:
    """As the cases of a folder of predictions that have a record were measured; None where none has one."""
    place = records_in(folder)
    for case in sorted(recorded_cases(folder)):
        if record := find_record(place, case):
            return decode(EvaluationSettings, record.key["settings"].get("measured"), place, fix="delete this folder")
    return None


def measure_folders(
    folders: Mapping[str, PredictionFolder],
    work: Work,
    *,
    jobs: int = 1,
    chill: bool = True,
    title: str = "",
) -> HeldOut:
    """The records of folders of predictions, of one or of several folds; what is wrong with one costs only itself.

    They lie in ``records`` in each folder; under a map in ``calibrated/records``, so that they do not replace what was
    measured of the predictions as they are.

    Args:
        folders: By fold, with their ground truth; a single one may have the empty name.
        work: What is measured.
        jobs: Cases at the same time; 1 starts no process.
        chill: Do not report expected cases that have no prediction.
        title: Of the progress bars; empty shows none.

    Raises:
        UserError: No case could be measured, or one lies in two folds.
    """
    first = next(iter(folders.values()))
    result, failed = HeldOut(first.labels, work.settings), []
    for fold, folder in folders.items():
        is_mapped = work.calibration is not None
        place = folder.folder / "calibrated" / RECORDS if is_mapped else records_in(folder.folder)
        shown = title and ", fold ".join(filter(None, (title, fold)))
        known = {path.stem for path in place.glob("*.npz")}
        try:
            source = SavedPredictions(folder, chill=chill, known=known)
            if not known and not any(folder.folder.glob("*.npz")):  # once, not once for every case
                swapped = folder.reference_folder is not None and any(folder.reference_folder.glob("*.npz"))
                fix = f"those of {folder.reference_folder} have: give the ground truth first" if swapped else RERUN
                raise UserError(f"{folder.folder}: its predictions have no probabilities (there is no *.npz); {fix}.")
            made = dict(records_of(source, work, place, jobs=jobs, title=shown))
        except UserError as error:
            failed.append(str(error))
            result.problems[f"fold {fold}"] = str(error)
            continue
        result.add(fold, source.problems | made)
    if not result.records:
        lines = "\n".join(failed)
        raise UserError(lines or f"{first.folder}: no case could be evaluated.{list_problems(result.problems)}")
    return result


def measure_validation(
    model: TrainedModel,
    network: Mapping[str, Any],
    work: Work,
    *,
    jobs: int = 1,
    any_age: bool = False,
) -> HeldOut:
    """The records of a model's validation cases; where neither probabilities nor records were kept, they are predicted.

    Where nnU-Net's ``validation/`` lacks those of some cases only, these alone are predicted.

    Args:
        model: The model. nnU-Net's ``validation/`` is that of checkpoint_final.pth; other checkpoints predict.
        network: Arguments of :class:`~nnunet_nacl.nnunet.predicted.Network` beside the model.
        work: What is measured; with the settings of the records that are there already.
        jobs: Cases measured at the same time.
        any_age: Take predictions that are older than the checkpoint, where nobody knows which network made them.

    Raises:
        UserError: A fold was trained on every case, or was predicted otherwise than the others or by another network.
    """
    if "all" in model.folds:
        raise UserError(
            "fold all was trained on every case, its validation cases too: nothing is held out. Give trained folds "
            "(-f 0 1 2 3 4), or cases of your own (-i IMAGES -gt LABELS -d ... -c ...)."
        )
    final, folds = model.checkpoint == FINAL, [model.folder / f"fold_{fold}" for fold in model.folds]
    places = (validation_folder(fold) if final else predicted_folder(fold, model.checkpoint) for fold in folds)
    work = replace(work, settings=next(filter(None, map(kept_settings, places)), work.settings))
    kept = {fold: _kept(model, fold, digest, work, jobs) for fold, digest in zip(model.folds, model.hashes)}
    asked = {name: network[name] for name in NNUNETS_OWN}
    inference = {fold: inference_of(outcomes) if outcomes else asked for fold, (_, outcomes, _) in kept.items()}
    _check_alike(inference, model.checkpoint)
    todo = {fold for fold, (_, outcomes, lost) in kept.items() if lost or not outcomes}
    if todo:
        _LOG.info(
            "folds %s: not all validation cases have probabilities or records of this version by %s. Those not "
            "predicted by an earlier run are predicted on %s; the bar shows the time left.",
            ", ".join(sorted(todo)),
            model.checkpoint,
            network["device"],
        )
    result = HeldOut(model.labels, work.settings)
    for (fold, (folder, outcomes, lost)), digest in zip(kept.items(), model.hashes):
        _check_made_by(model, fold, digest, outcomes, any_age)
        if fold in todo:
            options = {**network, **inference[fold]}
            outcomes |= predict_validation(model, fold, options, work, folder=folder, names=lost, jobs=jobs)
        result.add(fold, outcomes)
    if not result.records:
        raise UserError(f"{model.folder}: no case could be evaluated.{list_problems(result.problems)}")
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
        model: This and what is not said here as for :func:`measure_validation`.
        fold: One of its folds; ``all``: every case.
        folder: Of the predictions; None: ``fold_X/validation_<checkpoint>``.
        names: Of the cases; none: all of the fold's split.

    Raises:
        UserError: The split or the preprocessed cases are missing, or the folder holds predictions of something else.
    """
    folder = folder or open_predicted(model, fold)
    names = names or folder.expected or ()
    if not names:
        raise UserError(f"fold {fold} is in no splits_final.json of {folder.plans.get('dataset_name')}; see -f.")
    source, place = ValidationCases(model, network, fold, folder, names), folder.folder / RECORDS
    remove_leftovers(folder.folder)
    # what another checkpoint of this name, or other settings, predicted is removed; one that a kill left without its
    # record must be what this network predicts
    for name in names if folder.folder.name != "validation" else ():
        record, path = find_record(place, name), source.path(name)
        if path.is_file() and record is not None:
            if not record.made_by:
                raise UserError(f"{folder.folder} holds predictions of something else ({path.name}); move them away.")
            if record.made_by != source.made_by:
                path.unlink()
    return dict(records_of(source, work, place, jobs=jobs, title=f"predict fold {fold}"))


def measure_images(
    model: TrainedModel,
    network: Mapping[str, Any],
    images: Path,
    references: Path,
    records: Path,
    work: Work,
    *,
    jobs: int = 1,
    training_cases: bool = False,
) -> HeldOut:
    """Predict labelled images by all folds of a model, and measure them; what an earlier run finished is kept.

    Args:
        model: This and what is not said here as for :func:`measure_validation`.
        images: Folder of images, CASE_0000 and so on.
        references: Folder of their label maps.
        records: Folder of the records.
        training_cases: Take cases that a fold was trained on, too.

    Raises:
        UserError: The model is a cascade, a folder cannot be used, no image has a label map, or folds were trained on
            some of the cases.
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
    if seen := [] if training_cases else _trained_on(model, labelled, references):
        raise UserError(
            f"{len(seen)} of {len(labelled)} cases were used to train these folds: {some(seen)}. On them networks are "
            "right too often: give other cases, or pass --allow-training-cases."
        )
    source = Images(model, network, labelled, references=references)
    result = HeldOut(model.labels, work.settings, problems=problems)
    result.add("", dict(records_of(source, work, records, jobs=jobs, title="predict")))
    return result


def _trained_on(model: TrainedModel, cases: Sequence[InputCase], references: Path) -> list[str]:
    """Names of the cases in the training part of a fold, with the label map or the first channel that nnU-Net had."""
    dataset, ending = model.opened.plans.get("dataset_name") or os.devnull, model.opened.file_ending
    splits = splits_of(dataset)
    parts = (splits if fold == "all" else splits[int(fold) : int(fold) + 1] for fold in model.folds)
    trained = {case for part in parts for split in part for case in split["train"]}
    preprocessed, raw = (Path(os.environ.get(f"nnUNet_{kind}") or os.devnull) for kind in ("preprocessed", "raw"))

    def is_same(path: Path, other: Path) -> bool:
        return other.is_file() and filecmp.cmp(path, other, shallow=False)

    seen = []
    for case in cases:
        label, image = f"{case.case}{ending}", case.images[0]
        if case.case in trained and (
            is_same(references / label, preprocessed / dataset / "gt_segmentations" / label)
            or is_same(image, raw / dataset / "imagesTr" / image.name)
        ):
            seen.append(case.case)
    return seen


def _kept(
    model: TrainedModel, fold: str, digest: str, work: Work, jobs: int
) -> tuple[PredictionFolder, dict[str, CaseRecord | str], list[str]]:
    """A fold's folder, what can be had of its cases without a network, and the names of those to be predicted."""
    with contextlib.suppress(UserError):
        is_final = model.checkpoint == FINAL
        folder = find_fold_folders(model.folder, [fold])[fold] if is_final else open_predicted(model, fold)
        source, place = SavedPredictions(folder, known=recorded_cases(folder.folder)), records_in(folder.folder)
        found = dict(records_of(source, work, place, jobs=jobs, title="measure"))
        if folder.folder.name != "validation":  # of this checkpoint alone
            records = [record for record in found.values() if isinstance(record, CaseRecord)]
            found = {record.case: record for record in records if record.made_by.get("checkpoint") == digest}
        outcomes = dict.fromkeys(folder.expected or (), "it has neither probabilities nor a record") | found
        without = [name for name, outcome in outcomes.items() if isinstance(outcome, str)]
        lost = [
            name for name in without if not (folder.folder / f"{name}.npz").is_file()
        ]  # a broken file is its case's
        if len(lost) < len(outcomes):
            return folder, outcomes, lost
    return open_predicted(model, fold), {}, []


def _check_alike(inference: Mapping[str, dict[str, Any]], checkpoint: str) -> None:
    """UserError where folds were predicted in different ways: a map is fitted to predictions of one kind."""
    ways = {fold: ", ".join(f"{name} {value}" for name, value in way.items()) for fold, way in inference.items()}
    (first, way), *others = ways.items()
    for fold, another in others:
        if another != way:
            raise UserError(
                f"fold {first} is predicted with {way} and fold {fold} with {another}: a map is fitted to "
                "predictions of one kind. Give -step_size and --disable_tta so that they are the same, or remove "
                f"validation_{checkpoint.removesuffix('.pth')}/ of one of them."
            )


def _check_made_by(
    model: TrainedModel, fold: str, digest: str, outcomes: Mapping[str, CaseRecord | str], any_age: bool
) -> None:
    """UserError where another network made the predictions of a fold, or may have made them."""
    checkpoint = model.folder / f"fold_{fold}" / model.checkpoint
    for record in (outcome for outcome in outcomes.values() if isinstance(outcome, CaseRecord)):
        made_by, files = record.made_by.get("checkpoint"), record.key["files"]
        if made_by not in (None, digest):
            raise UserError(
                f"{record.case} of fold {fold} was predicted by another network than {checkpoint}; predict again with "
                "`nnUNetv2_train ... --val --npz`, or name that network with -chk."
            )
        written = files.get("probabilities") or files.get("segmentation")
        if made_by is None and not any_age and written and written["mtime_ns"] < checkpoint.stat().st_mtime_ns:
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
