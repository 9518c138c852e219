"""Whether networks, or the maps that calibrate them, have seen cases that they are compared on."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_nacl.comparison.methods import ComparedMethod
from nnunet_nacl.nnunet import places
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.utilities.errors import UserError, some


def check_training_cases(method: ComparedMethod, allowed: bool) -> list[str]:
    """Notes on networks that were trained on cases, and maps that were fitted to them.

    UserError for networks that certainly were, unless that is ``allowed``.
    """
    notes = []
    for fold, cases in method.cases().items():
        seen = _seen_in_training(method.folders[fold], fold, set(cases))
        if seen.is_certain and not allowed:
            raise UserError(
                f"{method.label}: its networks were trained on cases that they are compared on"
                f" ({seen.reason}); give predictions of other cases, or pass"
                " [[allow_training_cases=True]]"
                " to compare them with a note."
            )
        if seen.reason:
            were = "were" if seen.is_certain else "may have been"
            notes.append(
                f"{method.label}: its networks {were} trained on cases that they are compared on"
                f" ({seen.reason})."
            )
        fitted = set(cases) & method.calibrator.fitted_cases
        if fitted:
            notes.append(
                f"{method.label}: its calibration map was fitted to cases that it is compared on"
                f" ({_counted(fitted)}), which flatters it; what `nnunet_nacl calibrate` printed is"
                " of cases that were left out."
            )
    return notes


@dataclass(frozen=True)
class _SeenInTraining:
    """Whether networks were trained on cases that they are compared on.

    Attributes:
        is_certain: That they were.
        reason: Why they were, or why it is not known; empty where they were trained on none.
    """

    is_certain: bool
    reason: str


def _seen_in_training(folder: PredictionFolder, fold: str, cases: set[str]) -> _SeenInTraining:
    """What is known of the training of the networks that predicted a folder.

    nnUNetv2_predict records neither trainer nor folds, only (in plans.json) the data set: cases in
    no split of it were trained on by none of its networks, and where one run predicted validation
    cases of several folds, every choice of folds was trained on some. Of ensembles' and other
    tools' predictions of cases in the splits nothing is known.
    """
    if fold == "all":
        return _SeenInTraining(
            True, "fold_all is trained on all cases, those of its validation included"
        )
    dataset = folder.dataset.name
    splits = places.splits_of(dataset)
    if fold:
        seen = cases & set(splits[int(fold)]["train"]) if int(fold) < len(splits) else set[str]()
        if not seen:
            return _SeenInTraining(False, "")
        return _SeenInTraining(True, f"{_counted(seen)} in the training part of fold {fold}")
    if not splits:
        return _SeenInTraining(False, "there is no splits_final.json of its data set")
    in_splits = set[str]().union(*(split["train"] + split["val"] for split in splits))
    inside = cases & in_splits
    if not inside:
        return _SeenInTraining(False, "")
    is_in_one_fold = any(inside <= set(split["val"]) for split in splits)
    if not is_in_one_fold and (folder.folder / places.PREDICT_ARGUMENTS).is_file():
        reason = (
            f"{_counted(inside)} in the splits of {dataset}, in no single fold's validation part"
        )
        return _SeenInTraining(True, reason)
    reason = (
        f"{_counted(inside)} in the splits of {dataset}; which folds predicted them is not recorded"
    )
    return _SeenInTraining(False, reason)


def _counted(cases: set[str]) -> str:
    verb = "is" if len(cases) == 1 else "are"
    return f"{len(cases)} of them ({some(sorted(cases), 3)}) {verb}"
