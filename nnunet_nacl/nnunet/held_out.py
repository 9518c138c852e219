"""Gets the records of cases that a network was not trained on: reads them, measures predictions, or predicts first."""

from __future__ import annotations

import contextlib
import filecmp
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_nacl.cases.case import EvaluationSettings, Labels
from nnunet_nacl.cases.record import RECORDS, CaseRecord, check_records, find_record, record_path
from nnunet_nacl.errors import UserError, list_problems, some
from nnunet_nacl.files import remove_leftovers
from nnunet_nacl.json_files import decode
from nnunet_nacl.nnunet.image_files import RERUN
from nnunet_nacl.nnunet.places import FINAL, is_measured, predicted_folder, records_in, splits_of
from nnunet_nacl.nnunet.predicted import ValidationCases
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work, find_records, records_of
from nnunet_nacl.nnunet.scans import Images
from nnunet_nacl.nnunet.trained_model import TrainedModel

_LOG = logging.getLogger(__name__)
NNUNETS_OWN: dict[str, Any] = {"step_size": 0.5, "mirroring": True}
"""How nnU-Net predicts validation cases."""
_Outcomes = dict[str, CaseRecord | str]


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

    def checked(self, place: Path) -> HeldOut:
        """Itself; UserError, with all problems, where there is no record."""
        if not self.records:
            raise UserError(f"{place}: no case could be evaluated.{list_problems(self.problems)}")
        return self


def inference_of(outcomes: Mapping[str, CaseRecord | str]) -> dict[str, Any]:
    """``step_size`` and ``mirroring`` of cases: nnU-Net's own, unless a record says otherwise."""
    said = next((one.made_by for one in outcomes.values() if isinstance(one, CaseRecord) and one.made_by), {})
    return {name: said.get(name, value) for name, value in NNUNETS_OWN.items()}


def kept_settings(folder: Path) -> EvaluationSettings | None:
    """As the cases of a folder of predictions that have a record were measured; None where none has one."""
    place = records_in(folder)
    for path in sorted(place.glob("*.npz")):
        if record := find_record(place, path.stem):
            return decode(EvaluationSettings, record.key["settings"].get("measured"), place, fix="delete this folder")
    return None


def measure_folders(
    folders: Mapping[str, PredictionFolder], work: Work, *, jobs: int = 1, chill: bool = True, title: str = ""
) -> HeldOut:
    """The records of folders of predictions, of one or of several folds; what is wrong with one costs only itself.

    They lie in ``records`` in each folder; under a map in ``calibrated/records``, so that they do not replace what was
    measured of the predictions as they are. A single folder may have the empty name. With ``chill`` expected cases that
    have no prediction are no problems; without a ``title`` there are no progress bars. UserError where no case could be
    measured, or one lies in two folds.
    """
    first = next(iter(folders.values()))
    result = HeldOut(first.labels, work.settings)
    _check_records(folders.values(), work)
    for fold, folder in folders.items():
        place = _records_under(work, folder)
        shown = title and ", fold ".join(filter(None, (title, fold)))
        try:
            if not any(place.glob("*.npz")) and not any(folder.folder.glob("*.npz")):  # once, not once for every case
                raise UserError(f"{folder.folder}: its predictions have no probabilities (there is no *.npz); {RERUN}.")
            made = dict(records_of(folder, work, place, jobs=jobs, title=shown))
        except UserError as error:
            if len(folders) == 1:
                raise
            result.problems[f"fold {fold}"] = str(error)
            continue
        result.add(fold, folder.problems | ({} if chill else folder.missing) | made)
    return result.checked(first.folder)


def _records_under(work: Work, folder: PredictionFolder) -> Path:
    """Where the records of a folder lie: under a map apart from those of the predictions as they are."""
    return folder.records if work.calibration is None else folder.folder / "calibrated" / RECORDS


def _check_records(folders: Iterable[PredictionFolder], work: Work) -> None:
    """UserError, before any work, where a record would replace a file that is none."""
    for folder in folders:
        try:
            names = folder.names
        except UserError:  # it has no cases, which is said when its turn comes
            continue
        check_records(_records_under(work, folder), names)


def measure_validation(
    model: TrainedModel,
    network: Mapping[str, Any],
    work: Work,
    *,
    jobs: int = 1,
    any_age: bool = False,
    anew: bool = False,
) -> HeldOut:
    """The records of a model's validation cases; where neither probabilities nor records were kept, they are predicted.

    What an earlier run has finished is not done again. nnU-Net's ``validation/`` is that of checkpoint_final.pth;
    others have folders of their own, as has what is predicted here.

    Args:
        model: The model.
        network: Arguments of :class:`~nnunet_nacl.nnunet.predicted.Network` beside the model.
        work: What is measured.
        jobs: Cases measured at the same time.
        any_age: Take predictions that are older than the checkpoint, where nobody knows which network made them.
        anew: Pass over nnU-Net's ``validation/``.

    Raises:
        UserError: A fold was predicted otherwise than the others, by another network, or cannot be predicted.
    """
    kept, ours, lost = dict[str, _Outcomes](), dict[str, ValidationCases](), dict[str, list[str]]()
    is_nnunets = False
    for fold in model.folds:
        one, place = model.of_fold(fold), model.folder / f"fold_{fold}" / "validation"
        found, absent = dict[str, CaseRecord | str](), set[str]()
        with contextlib.suppress(UserError):  # records without their segmentations
            if model.checkpoint == FINAL and is_measured(place) and not anew:
                folder = PredictionFolder.open(place).with_expected(fold)
                found = dict(records_of(folder, work, folder.records, jobs=jobs, title="measure"))
                without = {n for n, it in found.items() if isinstance(it, str) and not (place / f"{n}.npz").is_file()}
                absent = without | set(folder.missing)
        if not any(isinstance(outcome, CaseRecord) for outcome in found.values()):
            found, absent = {}, set()
        is_nnunets |= bool(found)
        if absent or not found:
            source = ours[fold] = ValidationCases(one, network, open_predicted(one, fold))
            names = sorted(absent) if found else source.names
            there, _ = find_records(source, work, source.folder.records, names)
            found = {name: outcome for name, outcome in found.items() if name not in absent}
            found |= {n: r for n, r in there.items() if isinstance(r, CaseRecord) and r.made_by == source.made_by}
            lost[fold] = [name for name in names if name not in found]
        _check_made_by(one, found, any_age)
        kept[fold] = found
    if is_nnunets and ours and (asked := {name: network[name] for name in NNUNETS_OWN}) != NNUNETS_OWN:
        raise UserError(
            f"some cases were predicted with {NNUNETS_OWN}, those of fold {min(ours)} would be with {asked}: "
            "a map is fitted to predictions of one kind. Leave out -step_size and --disable_tta."
        )
    if todo := [fold for fold, names in lost.items() if names]:
        _LOG.info(
            "folds %s: there are neither probabilities nor records of this version by %s of all validation cases; they "
            "are predicted on %s. The bar shows the time left.",
            ", ".join(todo),
            model.checkpoint,
            network["device"],
        )
    for fold in todo:
        ours[fold].check_files(lost[fold])
        check_records(ours[fold].folder.records, lost[fold])
    result = HeldOut(model.labels, work.settings)
    for fold, found in kept.items():
        if fold in todo:
            folder = ours[fold].folder
            remove_leftovers(folder.folder)
            for name in lost[fold]:  # what another network, or this one with other settings, has predicted
                earlier = find_record(folder.records, name)
                if earlier is not None and earlier.made_by not in ({}, ours[fold].made_by):
                    ours[fold].files_of(name).remove(ours[fold].path(name).name)
                    record_path(folder.records, name).unlink()
            options: dict[str, Any] = {"jobs": jobs, "again": True, "title": f"predict fold {fold}"}
            found |= dict(records_of(ours[fold], work, folder.records, names=lost[fold], **options))
        result.add(fold, found)
    return result.checked(model.folder)


def _check_made_by(model: TrainedModel, outcomes: _Outcomes, any_age: bool) -> None:
    """UserError where another network made the predictions of a model's one fold, or may have made them."""
    (fold,), (digest,) = model.folds, model.hashes
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
    """``fold_X/validation_<checkpoint>``, which is made; UserError where nobody knows the fold's cases."""
    output = predicted_folder(model.folder / f"fold_{fold}", model.checkpoint)
    output.mkdir(exist_ok=True)
    folder = PredictionFolder.open(output).with_expected(fold)
    if not folder.expected:
        raise UserError(f"fold {fold} is in no splits_final.json of {folder.plans.get('dataset_name')}; see -f.")
    return folder


def measure_images(source: Images, records: Path, work: Work, *, jobs: int, training_cases: bool) -> HeldOut:
    """Predict labelled images by all folds of a model, and measure them; what an earlier run finished is kept.

    Those that nobody has labelled are left out. UserError where the model is a cascade, no image has a label map, or
    folds were trained on some of the cases, unless ``training_cases`` are allowed.
    """
    if stage := source.model.previous_stage:
        raise UserError(
            f"{source.model.folder.name} is a cascade, which needs segmentations of {stage} beside images: "
            "predict them with nnUNetv2_predict ... --save_probabilities, and give that folder without a model."
        )
    truths = {name: source.files(name)["reference"] for name in source.names}
    source.scans = {name: scan for name, scan in source.scans.items() if (truth := truths[name]) and truth.is_file()}
    if not source.scans:
        none = f"{source.references}: holds the label map (CASE{source.model.opened.file_ending}) of none of the "
        raise UserError(f"{none}{len(truths)} images.{list_problems(source.problems)}")
    if seen := [] if training_cases else _trained_on(source):
        raise UserError(
            f"{len(seen)} of {len(source.scans)} cases were used to train these folds: {some(seen)}. On them networks "
            "are right too often: give other cases, or pass --allow-training-cases."
        )
    result = HeldOut(source.labels, work.settings, problems=source.problems)
    result.add("", dict(records_of(source, work, records, jobs=jobs, title="predict")))
    return result


def _trained_on(source: Images) -> list[str]:
    """Names of the cases in the training part of a fold, with the label map or the first channel that nnU-Net had."""
    dataset = source.model.opened.plans.get("dataset_name") or os.devnull
    splits = splits_of(dataset)
    trained = set[str]()
    for fold in source.model.folds:  # fold_all, and random splits beyond those of the file, may have seen any case
        is_listed = fold != "all" and int(fold) < len(splits)
        trained |= set(splits[int(fold)]["train"] if is_listed else source.names)
    preprocessed, raw = (Path(os.environ.get(f"nnUNet_{kind}") or os.devnull) for kind in ("preprocessed", "raw"))
    seen = []
    for case in filter(trained.__contains__, source.names):
        truth, image = source.files(case)["reference"] or Path(), source.path(case)
        theirs = preprocessed / dataset / "gt_segmentations" / truth.name, raw / dataset / "imagesTr" / image.name
        if any(b.is_file() and filecmp.cmp(a, b, shallow=False) for a, b in zip((truth, image), theirs)):
            seen.append(case)
    return seen
