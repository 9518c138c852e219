"""Records of cases that a network was not trained on: read, measured, or predicted first."""

from __future__ import annotations

import filecmp
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_nacl.cases.case import EvaluationSettings, InferenceSettings, Labels
from nnunet_nacl.cases.record import RECORDS, CaseRecord, check_records, find_record, record_path
from nnunet_nacl.errors import Failed, UserError, list_problems, some
from nnunet_nacl.files import remove_leftovers
from nnunet_nacl.json_files import decode
from nnunet_nacl.nnunet.image_files import RERUN
from nnunet_nacl.nnunet.places import FINAL, is_measured, predicted_folder, records_in, splits_of
from nnunet_nacl.nnunet.predicted import NetworkSettings, ValidationCases
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work, find_records, records_of
from nnunet_nacl.nnunet.scans import Images
from nnunet_nacl.nnunet.trained_model import TrainedModel

_LOG = logging.getLogger(__name__)
NNUNETS_OWN: InferenceSettings = {"step_size": 0.5, "mirroring": True}
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
        folders: By fold, where its predictions lie.
    """

    labels: Labels
    settings: EvaluationSettings
    records: dict[str, CaseRecord] = field(default_factory=dict)
    fold: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    folders: dict[str, PredictionFolder] = field(default_factory=dict)

    def add(
        self,
        fold: str,
        outcomes: Mapping[str, CaseRecord | Failed],
        folder: PredictionFolder | None = None,
    ) -> None:
        """Take the records of a fold, and the folder of its predictions.

        Raises:
            UserError: A case lies in another fold, too.
        """
        if folder is not None:
            self.folders[fold] = folder
        for name, outcome in sorted(outcomes.items()):
            if isinstance(outcome, Failed):
                self.problems[name] = outcome.reason
                continue
            if name in self.records:
                raise UserError(
                    f"case {name} lies in more than one of the folds {self.fold[name]} and {fold};"
                    " fold_all and leftover predictions cannot be pooled with folds that hold the"
                    " same cases."
                )
            self.records[name] = outcome
            self.fold[name] = fold

    def checked(self, place: Path) -> HeldOut:
        """Itself; UserError, with all problems, where there is no record."""
        if not self.records:
            raise UserError(f"{place}: no case could be evaluated.{list_problems(self.problems)}")
        return self


def inference_of(records: Iterable[CaseRecord]) -> InferenceSettings:
    """``step_size`` and ``mirroring`` of cases: nnU-Net's own, unless a record says otherwise."""
    for record in records:
        if record.made_by:
            return {
                "step_size": record.made_by.get("step_size", NNUNETS_OWN["step_size"]),
                "mirroring": record.made_by.get("mirroring", NNUNETS_OWN["mirroring"]),
            }
    return NNUNETS_OWN


def kept_settings(folder: Path) -> EvaluationSettings | None:
    """As the first case with a record in a folder of predictions was measured; None without any."""
    records = records_in(folder)
    for path in sorted(records.glob("*.npz")):
        record = find_record(records, path.stem)
        if record is not None:
            settings = record.key["settings"].get("measured")
            return decode(EvaluationSettings, settings, records, fix="delete this folder")
    return None


def measure_folders(
    folders: Mapping[str, PredictionFolder],
    work: Work,
    *,
    jobs: int = 1,
    chill: bool = True,
    title: str = "",
) -> HeldOut:
    """The records of folders of predictions, of one or of several folds.

    They lie in ``records`` in each folder; under a map in ``calibrated/records``, so that they do
    not replace what was measured of the predictions as they are. What is wrong with one of several
    folders costs only itself.

    Args:
        folders: By fold; a single one may have the empty name.
        work: What is measured.
        jobs: Cases at the same time.
        chill: Whether expected cases that have no prediction are no problems.
        title: Of the progress bars; empty shows none.

    Raises:
        UserError: No case could be measured, or one lies in two folds.
    """
    first_folder = next(iter(folders.values()))
    held_out = HeldOut(first_folder.labels, work.settings, folders=dict(folders))
    _check_records(folders.values(), work)
    for fold, folder in folders.items():
        title_of_fold = title
        if title and fold:
            title_of_fold = f"{title}, fold {fold}"
        try:
            outcomes = _measure_folder(folder, work, jobs, title_of_fold)
        except UserError as error:
            if len(folders) == 1:
                raise
            held_out.problems[f"fold {fold}"] = str(error)
            continue
        problems = dict(folder.problems)
        if not chill:
            problems |= folder.missing
        not_measured = {case: Failed(case, reason) for case, reason in problems.items()}
        held_out.add(fold, not_measured | outcomes)
    return held_out.checked(first_folder.folder)


def _measure_folder(
    folder: PredictionFolder, work: Work, jobs: int, title: str
) -> dict[str, CaseRecord | Failed]:
    """The records of a folder; UserError, once for all cases, where it has no probabilities."""
    records = _records_under(work, folder)
    if not any(records.glob("*.npz")) and not any(folder.folder.glob("*.npz")):
        raise UserError(
            f"{folder.folder}: its predictions have no probabilities (there is no *.npz); {RERUN}."
        )
    return dict(records_of(folder, work, records, jobs=jobs, title=title))


def _records_under(work: Work, folder: PredictionFolder) -> Path:
    """Where records of a folder lie; those under a map lie apart."""
    if work.calibration is None:
        return folder.records
    return folder.folder / "calibrated" / RECORDS


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
    network: NetworkSettings,
    work: Work,
    *,
    jobs: int = 1,
    any_age: bool = False,
    anew: bool = False,
) -> HeldOut:
    """The records of a model's validation cases, which are predicted where nothing was kept.

    What an earlier run has finished is not done again. nnU-Net's ``validation/`` is that of
    checkpoint_final.pth; others have folders of their own, as has what is predicted here.

    Args:
        model: The model.
        network: How its networks predict.
        work: What is measured.
        jobs: Cases measured at the same time.
        any_age: Take predictions that are older than the checkpoint, where nobody knows which
            network made them.
        anew: Pass over nnU-Net's ``validation/``.

    Raises:
        UserError: A fold was predicted otherwise than the others, by another network, or cannot be
            predicted.
    """
    plans = []
    for fold in model.folds:
        plan = plan_fold(model.of_fold(fold), network, work, jobs=jobs, anew=anew)
        _check_made_by(model.of_fold(fold), plan.kept, any_age)
        plans.append(plan)
    _check_one_kind_of_prediction(plans, network)
    _announce(plans, model, network)
    for plan in plans:
        _check_files(plan)
    held_out = HeldOut(model.labels, work.settings)
    for plan in plans:
        _remove_predictions_of_others(plan)
        predicted = _predict_validation_cases(plan, work, jobs)
        held_out.add(plan.fold, plan.kept | predicted, plan.folder)
    return held_out.checked(model.folder)


@dataclass(frozen=True)
class FoldPlan:
    """What there is of a fold's validation cases, and what has to be predicted.

    Attributes:
        fold: The fold.
        folder: Where its predictions lie: nnU-Net's ``validation/``, or ours if nothing there can
            be used.
        kept: By case, its record, or why it cannot be measured although there are probabilities.
        is_nnunets: Whether nnU-Net predicted cases that are kept.
        source: What predicts cases of the fold; None where nnU-Net has left all of them.
        cases_to_predict: Names of those of which there is no record.
    """

    fold: str
    folder: PredictionFolder
    kept: dict[str, CaseRecord | Failed]
    is_nnunets: bool = False
    source: ValidationCases | None = None
    cases_to_predict: Sequence[str] = ()


def plan_fold(
    model: TrainedModel, network: NetworkSettings, work: Work, *, jobs: int = 1, anew: bool = False
) -> FoldPlan:
    """Find, or measure, the records of one fold of a model, and say which cases to predict.

    Arguments are those of :func:`measure_validation`; the model has one fold.
    """
    (fold,) = model.folds
    if not anew:
        validation = _open_nnunets_validation(model, fold)
        if validation is not None:
            outcomes = records_of(validation, work, validation.records, jobs=jobs, title="measure")
            kept = dict(outcomes)
            if any(isinstance(outcome, CaseRecord) for outcome in kept.values()):
                return _plan_beside_validation(model, network, work, validation, kept)
    source = ValidationCases(model, network, open_predicted(model, fold))
    earlier = _predicted_before(source, source.names, work)
    to_predict = [case for case in source.names if case not in earlier]
    return FoldPlan(fold, source.folder, earlier, source=source, cases_to_predict=to_predict)


def _plan_beside_validation(
    model: TrainedModel,
    network: NetworkSettings,
    work: Work,
    validation: PredictionFolder,
    kept: Mapping[str, CaseRecord | Failed],
) -> FoldPlan:
    """What to predict beside nnU-Net's validation, of which records were ``kept``."""
    (fold,) = model.folds
    lost = set(validation.missing)
    for case, outcome in kept.items():
        if isinstance(outcome, Failed) and not validation.path(case).is_file():
            lost.add(case)
    if not lost:
        return FoldPlan(fold, validation, dict(kept), is_nnunets=True)
    source = ValidationCases(model, network, open_predicted(model, fold))
    earlier = _predicted_before(source, sorted(lost), work)
    not_lost = {case: outcome for case, outcome in kept.items() if case not in lost}
    return FoldPlan(
        fold,
        validation,
        not_lost | earlier,
        is_nnunets=True,
        source=source,
        cases_to_predict=sorted(lost - earlier.keys()),
    )


def _open_nnunets_validation(model: TrainedModel, fold: str) -> PredictionFolder | None:
    """nnU-Net's validation of a fold, that of its final checkpoint; None where nothing was kept."""
    validation = model.folder / f"fold_{fold}" / "validation"
    if model.checkpoint != FINAL or not is_measured(validation):
        return None
    folder = PredictionFolder.open(validation)
    if folder.is_empty:  # of records alone, whose segmentations were deleted
        return None
    return folder.with_expected(fold)


def _predicted_before(
    source: ValidationCases, cases: Sequence[str], work: Work
) -> dict[str, CaseRecord | Failed]:
    """Records of cases that the same network has predicted in the same way, in an earlier run."""
    found, _ = find_records(source, work, source.folder.records, cases)
    earlier: dict[str, CaseRecord | Failed] = {}
    for case, record in found.items():
        if isinstance(record, CaseRecord) and record.made_by == source.made_by:
            earlier[case] = record
    return earlier


def _check_one_kind_of_prediction(plans: Sequence[FoldPlan], network: NetworkSettings) -> None:
    """UserError where nnU-Net has predicted some cases, and others would be predicted otherwise."""
    predicted_here = [plan.fold for plan in plans if plan.source is not None]
    has_both = predicted_here and any(plan.is_nnunets for plan in plans)
    if has_both and network.inference != NNUNETS_OWN:
        raise UserError(
            f"some cases were predicted with {NNUNETS_OWN}, those of fold {min(predicted_here)}"
            f" would be with {network.inference}: a map is fitted to predictions of one kind. Leave"
            " out -step_size and --disable_tta."
        )


def _announce(plans: Sequence[FoldPlan], model: TrainedModel, network: NetworkSettings) -> None:
    """Log that cases are predicted, which takes long."""
    folds = [plan.fold for plan in plans if plan.cases_to_predict]
    if folds:
        _LOG.info(
            "folds %s: there are neither probabilities nor records of this version by %s of all"
            " validation cases; they are predicted on %s. The bar shows the time left.",
            ", ".join(folds),
            model.checkpoint,
            network.device,
        )


def _check_files(plan: FoldPlan) -> None:
    """UserError, before any work, where predicting would replace files of others."""
    if plan.source is None or not plan.cases_to_predict:
        return
    plan.source.check_files(plan.cases_to_predict)
    check_records(plan.source.folder.records, plan.cases_to_predict)


def _remove_predictions_of_others(plan: FoldPlan) -> None:
    """Remove what other networks, or other settings, have predicted of the cases to predict."""
    if plan.source is None or not plan.cases_to_predict:
        return
    folder = plan.source.folder
    remove_leftovers(folder.folder)
    for case in plan.cases_to_predict:
        earlier = find_record(folder.records, case)
        if earlier is not None and earlier.made_by not in ({}, plan.source.made_by):
            plan.source.files_of(case).remove(plan.source.path(case).name)
            record_path(folder.records, case).unlink()


def _predict_validation_cases(
    plan: FoldPlan, work: Work, jobs: int
) -> dict[str, CaseRecord | Failed]:
    """The records of the cases that a plan has to predict, ``jobs`` at the same time."""
    if plan.source is None or not plan.cases_to_predict:
        return {}
    outcomes = records_of(
        plan.source,
        work,
        plan.source.folder.records,
        names=plan.cases_to_predict,
        jobs=jobs,
        again=True,
        title=f"predict fold {plan.fold}",
    )
    return dict(outcomes)


def _check_made_by(
    model: TrainedModel, outcomes: Mapping[str, CaseRecord | Failed], any_age: bool
) -> None:
    """UserError where another network made, or may have made, predictions of a model's one fold."""
    (fold,) = model.folds
    (digest,) = model.hashes
    checkpoint = model.folder / f"fold_{fold}" / model.checkpoint
    for record in outcomes.values():
        if isinstance(record, Failed):
            continue
        made_by = record.made_by.get("checkpoint")
        if made_by == digest:
            continue
        if made_by is not None:
            raise UserError(
                f"{record.case} of fold {fold} was predicted by another network than {checkpoint};"
                " predict again with `nnUNetv2_train ... --val --npz`, or name that network with"
                " -chk."
            )
        files = record.key["files"]
        prediction = files.get("probabilities") or files.get("segmentation")
        if any_age or prediction is None:
            continue
        if prediction["mtime_ns"] < checkpoint.stat().st_mtime_ns:
            raise UserError(
                f"predictions of fold {fold} are older than {model.checkpoint}: this network did"
                " not make them. Predict again with `nnUNetv2_train ... --val --npz`, or pass"
                " --any_age if a copy of the folder changed the times."
            )


def open_predicted(model: TrainedModel, fold: str) -> PredictionFolder:
    """``fold_X/validation_<checkpoint>``, which is made.

    UserError where nobody knows the fold's cases.
    """
    output = predicted_folder(model.folder / f"fold_{fold}", model.checkpoint)
    output.mkdir(exist_ok=True)
    folder = PredictionFolder.open(output).with_expected(fold)
    if not folder.expected:
        raise UserError(
            f"fold {fold} is in no splits_final.json of {folder.plans.get('dataset_name')}; see -f."
        )
    return folder


def measure_images(
    source: Images, records: Path, work: Work, *, jobs: int, training_cases: bool
) -> HeldOut:
    """Predict labelled images by all folds of a model, and measure them.

    What an earlier run finished is kept. Images that nobody has labelled are left out.

    Args:
        source: The images, with the folder of their labels.
        records: Folder of the records.
        work: What is measured.
        jobs: Cases at the same time.
        training_cases: Whether cases that folds were trained on are allowed.

    Raises:
        UserError: The model is a cascade, no image has a label map, or folds were trained on some
            of the cases.
    """
    stage = source.model.previous_stage
    if stage is not None:
        raise UserError(
            f"{source.model.folder.name} is a cascade, which needs segmentations of {stage} beside"
            " images: predict them with `nnUNetv2_predict ... --save_probabilities`, and give that"
            " folder without a model."
        )
    _leave_out_unlabelled(source)
    if not training_cases:
        _check_not_trained_on(source)
    held_out = HeldOut(source.labels, work.settings, problems=source.problems)
    held_out.add("", dict(records_of(source, work, records, jobs=jobs, title="predict")))
    return held_out


def _leave_out_unlabelled(source: Images) -> None:
    """Leave out the images without a label map; UserError where none has one."""
    n_images = len(source.scans)
    labelled = {}
    for name, scan in source.scans.items():
        truth = source.files(name)["reference"]
        if truth is not None and truth.is_file():
            labelled[name] = scan
    source.scans = labelled
    if not labelled:
        ending = source.model.opened.file_ending
        raise UserError(
            f"{source.references}: holds the label map (CASE{ending}) of none of the"
            f" {n_images} images.{list_problems(source.problems)}"
        )


def _check_not_trained_on(source: Images) -> None:
    """UserError where folds were trained on some of the images."""
    seen = _trained_on(source)
    if seen:
        raise UserError(
            f"{len(seen)} of {len(source.scans)} cases were used to train these folds:"
            f" {some(seen)}. On them networks are right too often: give other cases, or pass"
            " --allow-training-cases."
        )


def _trained_on(source: Images) -> list[str]:
    """Names of the cases that folds were trained on.

    They are in the training part of a fold, and have the label map or the first channel that
    nnU-Net had: other cases may have the same names.
    """
    dataset = source.model.opened.plans.get("dataset_name") or os.devnull
    preprocessed = Path(os.environ.get("nnUNet_preprocessed") or os.devnull)
    raw = Path(os.environ.get("nnUNet_raw") or os.devnull)
    names_in_training = _names_in_training(source, dataset)
    seen = []
    for case in source.names:
        if case not in names_in_training:
            continue
        truth = source.files(case)["reference"] or Path()
        image = source.path(case)
        if _is_same_file(
            truth, preprocessed / dataset / "gt_segmentations" / truth.name
        ) or _is_same_file(image, raw / dataset / "imagesTr" / image.name):
            seen.append(case)
    return seen


def _names_in_training(source: Images, dataset: str) -> set[str]:
    """Names of the cases in the training part of one of a model's folds.

    fold_all, and random splits beyond those of the file, may have seen any case.
    """
    splits = splits_of(dataset)
    names: set[str] = set()
    for fold in source.model.folds:
        if fold == "all" or int(fold) >= len(splits):
            return set(source.names)
        names |= set(splits[int(fold)]["train"])
    return names


def _is_same_file(path: Path, other: Path) -> bool:
    """Whether another file is there, and holds the same."""
    return other.is_file() and filecmp.cmp(path, other, shallow=False)
