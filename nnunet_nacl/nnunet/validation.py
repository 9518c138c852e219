"""Records of a model's validation cases: read, measured, or predicted first."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunet_nacl.cases.record import CaseRecord, check_records, find_record, record_path
from nnunet_nacl.nnunet.folders import FINAL, can_be_measured, predicted_folder
from nnunet_nacl.nnunet.held_out import NNUNETS_OWN, HeldOut
from nnunet_nacl.nnunet.predicted import ValidationCases, check_network
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work, find_records, records_of
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.settings import NetworkSettings
from nnunet_nacl.utilities.errors import Failed, UserError
from nnunet_nacl.utilities.files import remove_leftovers

_LOG = logging.getLogger(__name__)


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
        any_age: Take predictions that do not say which network made them even if they are older
            than the checkpoint.
        anew: Leave nnU-Net's ``validation/`` out, so that all cases are predicted here.

    Raises:
        UserError: A fold was predicted otherwise than the others, by another network, or cannot be
            predicted.
    """
    fold_plans = []
    for fold in model.folds:
        plan = plan_fold(model.of_fold(fold), network, work, jobs=jobs, anew=anew)
        _check_made_by(model.of_fold(fold), plan.kept, any_age)
        fold_plans.append(plan)
    _check_one_kind_of_prediction(fold_plans, network)
    if any(plan.cases_to_predict for plan in fold_plans):
        check_network(model, network)
    _announce(fold_plans, model, network)
    for plan in fold_plans:
        _check_files(plan)
    held_out = HeldOut(model.labels, work.settings)
    for plan in fold_plans:
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
    """Find the records of one fold of a model, measure what nnU-Net left, and say which cases to
    predict.

    Arguments are those of :func:`measure_validation`; the model has one fold.
    """
    (fold,) = model.folds
    if not anew:
        validation = _open_nnunets_validation(model, fold)
        if validation is not None:
            records = work.records_beside(validation.records)
            outcomes = records_of(validation, work, records, jobs=jobs, title="measuring")
            kept = dict(outcomes)
            if any(isinstance(outcome, CaseRecord) for outcome in kept.values()):
                return _plan_beside_validation(model, network, work, validation, kept)
    source = ValidationCases(model, network, make_predicted_folder(model, fold))
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
    lost = set(validation.missing)  # cases of which there are neither probabilities nor a record
    for case, outcome in kept.items():
        if isinstance(outcome, Failed) and not validation.path(case).is_file():
            lost.add(case)
    if not lost:
        return FoldPlan(fold, validation, dict(kept), is_nnunets=True)
    source = ValidationCases(model, network, make_predicted_folder(model, fold))
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
    if model.checkpoint != FINAL or not can_be_measured(validation):
        return None
    folder = PredictionFolder.open(validation)
    if folder.is_empty:  # of records alone, whose segmentations were deleted
        return None
    return folder.with_expected(fold)


def _predicted_before(
    source: ValidationCases, cases: Sequence[str], work: Work
) -> dict[str, CaseRecord | Failed]:
    """Records of cases that the same network has predicted in the same way, in an earlier run."""
    found, _ = find_records(source, work, work.records_beside(source.folder.records), cases)
    earlier: dict[str, CaseRecord | Failed] = {}
    for case, record in found.items():
        if isinstance(record, CaseRecord) and record.made_by == source.made_by:
            earlier[case] = record
    return earlier


def _check_one_kind_of_prediction(fold_plans: Sequence[FoldPlan], network: NetworkSettings) -> None:
    """UserError where nnU-Net has predicted some cases, and others would be predicted otherwise."""
    predicted_here = [plan.fold for plan in fold_plans if plan.source is not None]
    has_both = predicted_here and any(plan.is_nnunets for plan in fold_plans)
    if has_both and network.inference != NNUNETS_OWN:
        raise UserError(
            f"some cases were predicted with {NNUNETS_OWN}, those of fold {min(predicted_here)}"
            f" would be with {network.inference}: a map is fitted to predictions of one kind. Leave"
            " out [[step_size]] and [[mirroring=False]]."
        )


def _announce(
    fold_plans: Sequence[FoldPlan], model: TrainedModel, network: NetworkSettings
) -> None:
    """Log that cases are predicted, which takes long."""
    folds = [plan.fold for plan in fold_plans if plan.cases_to_predict]
    if folds:
        _LOG.info(
            "folds %s: there are neither probabilities nor records of this version by %s of all"
            " validation cases; they are predicted on %s. The bar shows the time left.",
            ", ".join(folds),
            model.checkpoint,
            network.device,
        )


def _check_files(plan: FoldPlan) -> None:
    """UserError, before anything is predicted, where that would replace files of others."""
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
        work.records_beside(plan.source.folder.records),
        names=plan.cases_to_predict,
        jobs=jobs,
        again=True,
        title=f"predicting fold {plan.fold}",
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
                f"{record.name} of fold {fold} was predicted by another network than {checkpoint};"
                " predict again with `nnUNetv2_train ... --val --npz`, or name that network with"
                " [[checkpoint]]."
            )
        files = record.key["files"]
        prediction = files.get("probabilities") or files.get("segmentation")
        if any_age or prediction is None:
            continue
        if prediction["mtime_ns"] < checkpoint.stat().st_mtime_ns:
            raise UserError(
                f"predictions of fold {fold} are older than {model.checkpoint}: this network did"
                " not make them. Predict again with `nnUNetv2_train ... --val --npz`, or pass"
                " [[any_age=True]] if a copy of the folder changed the times."
            )


def make_predicted_folder(model: TrainedModel, fold: str) -> PredictionFolder:
    """``fold_X/validation_<checkpoint>``, which is made.

    UserError where nobody knows the fold's cases.
    """
    output = predicted_folder(model.folder / f"fold_{fold}", model.checkpoint)
    output.mkdir(exist_ok=True)
    folder = PredictionFolder.open(output).with_expected(fold)
    if not folder.expected:
        raise UserError(
            f"fold {fold} is in no splits_final.json of {folder.dataset.name}; see [[folds]]."
        )
    return folder
